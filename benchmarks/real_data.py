"""Fit a recipe on a dataset folder, evaluate it on test once, and write everything down.

    python benchmarks/real_data.py beauty-small DATA/amazon-beauty docs/results/beauty-small.json

The folder holds interactions.parquet and items.parquet. ``--model`` evaluates a model that ``diffgrm fit`` has saved with
that recipe instead of fitting again. Popularity and random items are evaluated beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import diffgrm
from diffgrm import InteractionDataset, PopularityRecommender, RandomRecommender, Recipe, evaluate
from diffgrm.apps.console import show_metrics
from diffgrm.apps.machine import machine
from diffgrm.data.splits import make_split
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.terminal import progress_bar
from diffgrm.recommenders import Recommender
from workload import dataset_of


def measured(recommender: Recommender, dataset: InteractionDataset) -> dict[str, Any]:
    """Test metrics of a recommender on the split of its recipe, and the seconds it took."""
    split = make_split(dataset, recommender.recipe.data)
    started = time.perf_counter()
    with progress_bar(f"Evaluating {recommender.recipe.recommender}", 2 * len(split.test)) as progress:
        result = evaluate(recommender, split.test, dataset.items, split.item_counts, progress=progress)
    seconds = round(time.perf_counter() - started, 1)
    popularity = split.item_counts[split.test.targets.values]
    return {
        **result.to_dict(),
        "evaluation_seconds": seconds,
        "by_training_events_of_the_target": by_bin(popularity, [0, 1, 5, 10, 20, 50], result.per_user),
        "by_history_length": by_bin(split.test.histories.lengths, [1, 4, 5, 6, 10, 20, 50], result.per_user),
    }


def by_bin(values: np.ndarray, edges: list[int], per_user: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Recall@10 and NDCG@10, history filtered, of the test events whose value lies between two edges."""
    rank = per_user["rank"].to_numpy()
    gain = np.where((rank > 0) & (rank <= 10), 1 / np.log2(np.maximum(rank, 1) + 1), 0.0)
    found = {}
    for low, high in pairwise([*edges, None]):
        here = (values >= low) if high is None else (values >= low) & (values < high)
        if here.any():
            name = f"{low} or more" if high is None else str(low) if high == low + 1 else f"{low} to {high - 1}"
            found[name] = {
                "users": int(here.sum()),
                "recall@10": round(float((gain[here] > 0).mean()), 4),
                "ndcg@10": round(float(gain[here].mean()), 4),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--run-folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    dataset = dataset_of(arguments.data)
    if arguments.model is not None:
        recommender = diffgrm.load(arguments.model).override(arguments.overrides)
    else:
        recipe = Recipe.from_yaml(arguments.recipe, arguments.overrides)
        recommender = resolve("recommender", recipe.recommender)(recipe)
        recommender.fit(dataset, run_folder=arguments.run_folder, resume=arguments.resume)
    found = {recommender.recipe.recommender: measured(recommender, dataset)}
    for cls in (PopularityRecommender, RandomRecommender):
        baseline = cls(Recipe(recommender=cls.name, data=recommender.recipe.data))
        found[cls.name] = measured(baseline.fit(dataset), dataset)
    show_metrics(f"Test, {dataset.name}", {name: result["metrics"] for name, result in found.items()})
    files = f"{arguments.recipe} DATA/{dataset.name} docs/results/{arguments.out.name}"
    content = {
        "command": " ".join(["python benchmarks/real_data.py", files, *arguments.overrides]),
        "machine": machine(),
        "recipe": recommender.recipe.to_dict(),
        "fit": recommender.facts,
        "test": found,
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
