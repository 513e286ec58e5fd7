"""What rules cost: lists with and without them, on one recommender, in turns.

    python benchmarks/rules.py DATA/amazon-beauty --json docs/results/speed/rules.json

Recommenders are fitted for it: neighbours by co-occurrence, which score every item, and a small generative one, which
searches with a beam; it is trained for one epoch on the events of some users, which is no matter to the time. Items get
a shelf (the first of their ``attributes``), and a stock and sponsors by chance. Ways alternate, batch by batch, so that
whatever else the machine does falls on all of them alike; the ratio is to the same batch without rules. Times are those
of the process on its cores, since others may run beside it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from diffgrm import InteractionDataset, Recipe, Recommender, read_rules
from diffgrm.apps.machine import machine
from diffgrm.foundation.registry import resolve
from turns import keep
from workload import dataset_of

WAYS: dict[str, Any] = {
    "none": None,
    "where": {"where": {"stock": {"min": 3}}},
    "caps": {"caps": {"shelf": 2}},
    "pins": {"pins": {1: "PIN"}},
    "boosts": {"boosts": [{"by": 1.0, "where": {"sponsored": {"in": [True]}}}]},
    "minimum": {"minimum": {"count": 3, "where": {"sponsored": {"in": [True]}}}},
    "diversity, depth 100": {"diversity": 0.3},
    "all of them": {
        "where": {"stock": {"min": 3}},
        "caps": {"shelf": 2},
        "pins": {1: "PIN"},
        "boosts": [{"by": 1.0, "where": {"sponsored": {"in": [True]}}}],
        "minimum": {"count": 3, "where": {"sponsored": {"in": [True]}}},
        "diversity": 0.3,
    },
}
GENERATIVE = {
    "recommender": "diffgrm",
    "embedding": {"name": "lsa", "width": 64},
    "tokenizer": {"n_digits": 4, "codebook_size": 64, "iterations": 3, "pca_width": 64},
    "model": {"width": 64, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 128, "max_len": 20},
    "training": {"batch_size": 512, "epochs": 1, "validation_users": 50, "validation_decoding": {"beam": 10}},
    "decoding": {"beam": 32},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--users", type=int, default=2000, help="whose events the generative recommender learns from")
    parser.add_argument("--recommenders", nargs="+", default=["item_knn", "diffgrm"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = with_columns(dataset_of(arguments.data))
    found = {}
    for name in arguments.recommenders:
        recipe, users = (GENERATIVE, arguments.users) if name == "diffgrm" else ({"recommender": name}, None)
        recommender = fitted(Recipe.from_dict(recipe), of_users(dataset, users))
        found[name] = {f"{count} at once": cost(recommender, dataset, count, arguments.rounds) for count in (1, 32)}
    options = f"--recommenders {' '.join(arguments.recommenders)} --users {arguments.users} --rounds {arguments.rounds}"
    content = {
        "command": f"python benchmarks/rules.py DATA/{arguments.data.name} {options} --threads {arguments.threads}",
        "seed": 0,
        "rules": WAYS,
        "items": dataset.n_items,
        "recipe": GENERATIVE if "diffgrm" in found else None,
        "machine": machine(),
        "found": found,
    }
    for name, ways in found.items():
        print(pl.DataFrame([{"recommender": name, "users": u, **row} for u, rows in ways.items() for row in rows]))
    keep(content, arguments.json)


def with_columns(dataset: InteractionDataset) -> InteractionDataset:
    """With columns that rules go by."""
    generator, count = np.random.default_rng(0), dataset.n_items
    table = dataset.item_table.with_columns(
        pl.col("attributes").list.first().alias("shelf"),
        pl.Series("stock", generator.poisson(5, count)),
        pl.Series("sponsored", generator.random(count) < 0.02),
    )
    return InteractionDataset.from_tables(dataset.event_table(), table, name=dataset.name)


def of_users(dataset: InteractionDataset, count: int | None) -> InteractionDataset:
    """The events of the first users, and all items."""
    if count is None:
        return dataset
    events = dataset.event_table()
    chosen = events["user_id"].unique(maintain_order=True)[:count]
    return InteractionDataset.from_tables(events.filter(pl.col("user_id").is_in(chosen.implode())), dataset.item_table)


def fitted(recipe: Recipe, dataset: InteractionDataset) -> Recommender:
    return resolve("recommender", recipe.recommender)(recipe).fit(dataset, progress=False)


def cost(recommender: Recommender, dataset: InteractionDataset, users: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds and the ratio to no rules, for lists of ten items."""
    generator = np.random.default_rng(0)
    ways = {name: read_rules(pinned(rules, dataset.items.ids([0])[0])) for name, rules in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        chosen = generator.choice(len(dataset.events), users, replace=False)
        histories = {str(row): dataset.items.ids(dataset.events[row]) for row in chosen}
        for name in generator.permutation(list(ways)):
            recommender.item_rules(ways[name])  # as a server has it, which asks with the same rules again and again
            started = time.process_time()
            recommender.recommend(histories, k=10, rules=ways[name])
            if number >= 2:  # the first make tables
                seconds[name].append(time.process_time() - started)
    plain = np.array(seconds["none"])
    return [
        {
            "rules": name,
            "ms": round(1000 * float(np.median(times)), 2),
            "ratio": round(float(np.median(np.array(times) / plain)), 2),
            "ratio_quartiles": [round(float(q), 2) for q in np.percentile(np.array(times) / plain, [25, 75])],
        }
        for name, times in seconds.items()
    ]


def pinned(rules: Any, item: Any) -> Any:
    """Rules with an item where one is pinned."""
    return {**rules, "pins": {1: item}} if rules and "pins" in rules else rules


if __name__ == "__main__":
    main()
