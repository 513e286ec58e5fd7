"""How well items that were held out of training entirely are recommended once they are added, without training.

    python benchmarks/cold_items.py RECIPE DATA/amazon-beauty --json docs/results/cold-items.json

A tenth of the items (drawn by --seed) lose all their events before anything is fitted; then they are added with
``add_items``. Measured on the test users whose held-out item is one of them, among the whole catalogue and among the
cold items only, beside neighbours by text (which got the items in the same way) and beside the same recipe fitted with
all events.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm import InteractionDataset, Recipe, leave_one_out
from diffgrm.apps.machine import machine
from diffgrm.data.dataset import EvaluationSet
from diffgrm.evaluation.metrics import ndcg, ranks_in_lists, recall
from diffgrm.foundation.registry import resolve
from diffgrm.recommenders.base import Recommender
from turns import keep
from workload import dataset_of

LIFTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


def fitted(recipe: Recipe, dataset: InteractionDataset) -> Recommender:
    """A new recommender of the recipe."""
    recommender: Recommender = resolve("recommender", recipe.recommender)(recipe)
    return recommender.fit(dataset, progress=False)


def measure(recommender: Recommender, dataset: InteractionDataset, test: EvaluationSet, cold: list[Any]) -> dict[str, Any]:
    """Recall and NDCG at 10 of the test users, history filtered, by item."""
    item_ids = dataset.items.series
    histories = {number: item_ids.gather(test.histories[number]).to_list() for number in range(len(test))}
    found: dict[str, Any] = {}
    for name, only in (("whole catalogue", None), *((("cold items only", cold),) if cold else ())):
        table = recommender.recommend(histories, k=10, only=only)
        lists = np.full((len(test), 10), -1)
        lists[table["user_id"].to_numpy(), table["rank"].to_numpy() - 1] = dataset.items.positions(table["item_id"])
        ranks = ranks_in_lists(lists, test.targets)
        found[name] = {
            "recall@10": round(float(recall(ranks, 10).mean()), 4),
            "ndcg@10": round(float(ndcg(ranks, 10).mean()), 4),
            "places_with_a_cold_item": round(float(table["item_id"].is_in(cold).mean()), 4),
        }
    return found


def of_others(recommender: Recommender, dataset: InteractionDataset, others: EvaluationSet) -> dict[str, float]:
    """The same of test users whose item was there all the time: what new items cost them."""
    whole = measure(recommender, dataset, others, [])["whole catalogue"]
    return {metric: whole[metric] for metric in ("recall@10", "ndcg@10")}


def texts_of(recipe: Recipe) -> dict[str, Any]:
    """The embedding section that reads texts: of the recipe, or of the item scorer that its embedding is made of."""
    chosen = recipe.embedding
    if chosen.name == "item_scorer":
        return texts_of(Recipe.preset(chosen.options["recipe"], chosen.options["changes"]))
    return recipe.to_dict()["embedding"]


def lift_of(recipe: Recipe) -> str | None:
    """The setting that lifts items without training events, if the recipe has one."""
    if "new_items" in recipe.item_scoring.scorers:
        return "item_scoring.new_items.weight"
    has = "decoding" in recipe.sections and "new_items" in recipe.decoding.options
    return "decoding.new_items" if has else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*", help="settings of the recipe, for example training.epochs=5")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--fitted", type=Path, help="model folder of this recipe and seed, fitted with all events, if there is one"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    dataset = dataset_of(arguments.data)
    recipe = Recipe.from_yaml(arguments.recipe, arguments.overrides)
    text_knn = Recipe.from_dict({"recommender": "text_knn", "embedding": texts_of(recipe)})
    chosen = np.random.default_rng(arguments.seed).permutation(dataset.n_items)[: int(arguments.share * dataset.n_items)]
    cold = dataset.items.gather(np.sort(chosen))
    is_cold = pl.col("item_id").is_in(cold.implode())
    warm = InteractionDataset.from_tables(dataset.event_table().filter(~is_cold), dataset.item_table.filter(~is_cold))
    split = leave_one_out(dataset)
    test = split.test.rows(np.flatnonzero(np.isin(split.test.targets.values, chosen)))
    others = split.test.rows(np.flatnonzero(~np.isin(split.test.targets.values, chosen))).sample(5000, 0)
    new = dataset.item_table.filter(is_cold)
    found = {}
    for name, recommender in (
        ("text_knn, items added", lambda: fitted(text_knn, warm).add_items(new)),
        (f"{recipe.recommender}, items added", lambda: fitted(recipe, warm).add_items(new)),
        (
            f"{recipe.recommender}, fitted with their events",
            lambda: fitted(recipe, dataset) if arguments.fitted is None else Recommender.load(arguments.fitted),
        ),
    ):
        ready = recommender()
        found[name] = measure(ready, dataset, test, cold.to_list())
        found[name]["targets that were there"] = of_others(ready, dataset, others)
        print(name, json.dumps(found[name]), flush=True)
        setting = lift_of(ready.recipe)
        if "added" not in name or setting is None:
            continue
        for lift in LIFTS:
            lifted, label = ready.variant([f"{setting}={lift}"]), f"{name}, lifted by {lift}"
            found[label] = measure(lifted, dataset, test, cold.to_list())
            found[label]["targets that were there"] = of_others(lifted, dataset, others)
            print(label, json.dumps(found[label]), flush=True)
    content = {
        "command": " ".join(
            [f"python benchmarks/cold_items.py {arguments.recipe} DATA/{arguments.data.name}", *arguments.overrides]
        ),
        "seed": arguments.seed,
        "items": dataset.n_items,
        "cold_items": len(cold),
        "users_with_a_cold_target": len(test),
        "machine": machine(),
        "seconds": round(time.perf_counter() - started, 1),
        "found": found,
    }
    keep(content, arguments.json)


if __name__ == "__main__":
    main()
