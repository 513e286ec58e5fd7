"""What a second opinion adds to item scores, on validation: co-occurrence, a lift of new items, and the digits' denoising.

    python benchmarks/fusion.py DATA/amazon-beauty MODEL --sasrec MODEL --json docs/results/quality/fusion-beauty.json

The models are those that a bench suite keeps under OUT/models. Test is not looked at. Co-occurrence is added to the scores
of a SASRec too, to see how much of the gain is its own.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import diffgrm
from diffgrm import HybridRecommender, SASRecRecommender, leave_one_out
from diffgrm.apps.machine import machine
from diffgrm.data.dataset import EvaluationSet
from diffgrm.evaluation.metrics import ndcg, ranks_in_lists, recall
from diffgrm.ranking.item_scoring.base import ItemScoring
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrenceScorer
from diffgrm.ranking.query import Query
from turns import keep
from workload import dataset_of

CO_OCCURRENCE = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
NEW_ITEMS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
DIGITS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)


def found(lists: np.ndarray, validation: EvaluationSet) -> dict[str, float]:
    """Recall and NDCG at 10."""
    ranks = ranks_in_lists(lists, validation.targets)
    return {"recall@10": round(float(recall(ranks, 10).mean()), 4), "ndcg@10": round(float(ndcg(ranks, 10).mean()), 4)}


def of_hybrid(model: HybridRecommender, validation: EvaluationSet, overrides: list[str]) -> dict[str, float]:
    """With other weights."""
    lists, _ = model.variant(["decoding.name=item_proposals", *overrides])._rank(Query(validation.histories, 10))
    return found(lists, validation)


def of_sasrec(
    model: SASRecRecommender, validation: EvaluationSet, neighbours: CoOccurrenceScorer, weight: float
) -> dict[str, float]:
    """Its scores with co-occurrence beside them."""
    neighbours.weight, ranker = weight, model.ranker()
    scoring = ItemScoring((*ranker.scoring.scorers, neighbours), ranker.scoring.items)
    return found(replace(ranker, scoring=scoring).top(validation.histories, 10), validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sasrec", type=Path)
    parser.add_argument("--users", type=int, default=5000, help="validation users")
    parser.add_argument("--digit-users", type=int, default=2000, help="of them, for the digits, which take longer")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    dataset = dataset_of(arguments.data)
    split = leave_one_out(dataset)
    validation = split.validation.sample(arguments.users, 0)
    model = diffgrm.load(arguments.model)
    assert isinstance(model, HybridRecommender)
    together, lift = "item_scoring.co_occurrence.weight", "item_scoring.new_items.weight"
    tables: dict[str, dict[str, Any]] = {
        "co-occurrence": {str(w): of_hybrid(model, validation, [f"{together}={w}"]) for w in CO_OCCURRENCE}
    }
    tables["new items"] = {str(w): of_hybrid(model, split.validation, [f"{lift}={w}"]) for w in NEW_ITEMS}
    print(json.dumps(tables), flush=True)
    if arguments.sasrec:
        sasrec = diffgrm.load(arguments.sasrec)
        assert isinstance(sasrec, SASRecRecommender)
        neighbours = CoOccurrenceScorer().fit(split.train, dataset.n_items)
        tables["co-occurrence, SASRec"] = {str(w): of_sasrec(sasrec, validation, neighbours, w) for w in CO_OCCURRENCE}
        print(json.dumps(tables["co-occurrence, SASRec"]), flush=True)
    fewer = validation.sample(arguments.digit_users, 0)
    for beside in (0.0, 2.0):
        name = f"digits, beside co-occurrence {beside}"
        tables[name] = {str(w): of_hybrid(model, fewer, [f"decoding.weight={w}", f"{together}={beside}"]) for w in DIGITS}
        print(name, json.dumps(tables[name]), flush=True)
    content = {
        "command": f"python benchmarks/fusion.py DATA/{arguments.data.name} MODEL --sasrec MODEL",
        "validation_users": len(validation),
        "digit_users": len(fewer),
        "model": model.facts,
        "machine": machine(),
        "seconds": round(time.perf_counter() - started, 1),
        "found": tables,
    }
    keep(content, arguments.json)


if __name__ == "__main__":
    main()
