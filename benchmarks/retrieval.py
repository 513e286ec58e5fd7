"""Recall and time of the first stage against all items: python benchmarks/retrieval.py [--items 100000] [--kinds hnsw]

Generated vectors: about as many clusters as the square root of the items, in 24 of 128 directions, with noise in all and
lengths that differ; one item in twenty is new and lifted by .5; users stand near items. ``recall`` is the share of the best
10 of all items that is among the best 10 that are looked up. One thread; a user at a time.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from diffgrm.apps.machine import machine
from diffgrm.data.dataset import Ragged
from diffgrm.ranking.first_stage import FirstStage
from diffgrm.ranking.item_index import KeptIndex
from diffgrm.ranking.item_scoring.base import ItemScoring, ScoredItems, Users
from diffgrm.ranking.item_scoring.new_items import NewItemScorer
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.ranking.item_scoring.vectors import VectorScorer
from turns import keep

WIDTH, DIRECTIONS, K = 128, 24, 10


def world(items: int, users: int, seed: int = 0) -> tuple[ItemScoring, Users]:
    """Generated items and users, as scorers see them."""
    generator = np.random.default_rng(seed)
    clusters = generator.normal(size=(round(items**0.5), DIRECTIONS)).astype(np.float32)
    into = generator.normal(size=(DIRECTIONS, WIDTH)).astype(np.float32) / DIRECTIONS**0.5
    inside = clusters[generator.integers(0, len(clusters), items)]
    inside += 0.6 * generator.standard_normal(inside.shape, dtype=np.float32)
    vectors = inside @ into + 0.15 * generator.standard_normal((items, WIDTH), dtype=np.float32)
    vectors *= np.exp(0.2 * generator.standard_normal((items, 1), dtype=np.float32))
    near = vectors[generator.integers(0, items, users)] + 0.5 * generator.standard_normal((users, WIDTH), dtype=np.float32)
    neighbours = TextNeighbours.alone(generator.random(items) >= 0.05)
    scoring = ItemScoring((VectorScorer(), NewItemScorer(0.5)), ScoredItems(vectors, neighbours))
    return scoring, Users(near, Ragged.from_lists(generator.integers(0, items, (users, 8)).tolist()))


def measured(scoring: ItemScoring, users: Users, kind: Any, candidates: list[int]) -> list[dict[str, Any]]:
    """The cases of one kind of index: how long it takes to build, and what is found."""
    count, kept, cases = len(users.histories), KeptIndex(), []
    one = [users.rows(np.array([user])) for user in range(count)]
    started, best = time.perf_counter(), []
    for user in one:
        scores = scoring.scores(user)[0]
        scores[user.histories.values] = -np.inf
        best.append(set(np.argpartition(scores, -K)[-K:].tolist()))
    exact = (time.perf_counter() - started) / count
    for number in candidates:
        stage = FirstStage(scoring, kind, number, 0, kept)
        started = time.perf_counter()
        assert stage.index.n_items == len(scoring.items.vectors)
        built = time.perf_counter() - started
        started = time.perf_counter()
        found = [stage.best(user, K, None, user.histories)[0][0, :K].tolist() for user in one]
        seconds = (time.perf_counter() - started) / count
        recall = np.mean([len(wanted.intersection(items)) / K for wanted, items in zip(best, found, strict=True)])
        case: dict[str, Any] = {"index": kind, "candidates": number, "recall": round(float(recall), 4)}
        case |= {"ms_a_user": round(1e3 * seconds, 2), "ms_a_user_exact": round(1e3 * exact, 2)}
        cases.append(case | ({"build_seconds": round(built, 1)} if number == candidates[0] else {}))
        print(json.dumps(cases[-1]), flush=True)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", choices=("hnsw", "ivf_pq"), default=["hnsw", "ivf_pq"])
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 200, 500])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with threadpool_limits(limits=1):
        scoring, users = world(arguments.items, arguments.users)
        cases = [case for kind in arguments.kinds for case in measured(scoring, users, kind, arguments.candidates)]
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    command = f"python benchmarks/retrieval.py --items {arguments.items} --kinds {' '.join(arguments.kinds)}"
    content = {
        "command": command,
        "machine": machine(),
        "items": arguments.items,
        "users": arguments.users,
        "peak_mb": peak,
    }
    print(json.dumps({"peak_mb": peak}))
    keep(content | {"cases": cases}, arguments.json)


if __name__ == "__main__":
    main()
