"""What each way of decoding gives and costs, on one fitted model and validation users.

    python benchmarks/decoding.py MODEL DATA/amazon-beauty --json docs/results/speed/decoding-quality.json

Accuracy by item, history filtered. Times are of single runs one after the other, so they tell large differences only; the
number of partial SIDs the network is asked about does not depend on the machine.
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
from diffgrm import leave_one_out
from diffgrm.apps.machine import machine
from diffgrm.evaluation.metrics import ndcg, ranks_in_lists, recall
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.catalogue_beam import CatalogueBeam
from diffgrm.ranking.decoding.one_pass import OnePass
from turns import keep
from workload import dataset_of


def ways(n_digits: int, beam: int) -> dict[str, Any]:
    """Decoders by what they are called in the table."""
    few = [steps for steps in (1, 2, 3, 4, 8) if steps < n_digits]
    return {
        f"CPD, {n_digits} steps": AnyOrderBeam(beam=beam),
        "finish=items": AnyOrderBeam(beam=beam, finish="items"),
        **{f"catalogue_beam, beam {width}": CatalogueBeam(beam=width) for width in (32, 64, 128, 512)},
        **{f"steps={steps}": AnyOrderBeam(beam=beam, steps=steps) for steps in few},
        "one pass over the catalogue": OnePass(),
        "fixed order": AnyOrderBeam(beam=beam, order="fixed"),
        "random order": AnyOrderBeam(beam=beam, order="random"),
        "sum of paths": AnyOrderBeam(beam=beam, merge="sum_paths"),
        "not constrained": AnyOrderBeam(beam=beam, constrained=False),
        **{f"CPD, beam {width}": AnyOrderBeam(beam=width) for width in (16, 32, 128, 256) if width != beam},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--beam", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    dataset = dataset_of(arguments.data)
    validation = leave_one_out(dataset).validation.sample(arguments.users, seed=0)
    recommender = diffgrm.load(arguments.model)
    ranker, asked, cases = recommender.ranker(), [0], []
    denoise = ranker.network.denoise

    def counting(codes: Any, mask: Any, memory: Any) -> Any:
        asked[0] += codes.shape[:2].numel()
        return denoise(codes, mask, memory)

    ranker.network.denoise = counting
    ranker.rank(validation.histories.rows(np.arange(32)), 10, exclude_seen=True)  # makes the catalogue's tables
    for name, decoder in ways(ranker.catalogue.n_digits, arguments.beam).items():
        asked[0], started = 0, time.perf_counter()
        lists, _ = replace(ranker, decoder=decoder).rank(validation.histories, 10, exclude_seen=True)
        seconds, ranks = time.perf_counter() - started, ranks_in_lists(lists, validation.targets)
        cases.append(
            {
                "decoding": name,
                "ndcg@10": round(float(ndcg(ranks, 10).mean()), 4),
                "recall@10": round(float(recall(ranks, 10).mean()), 4),
                "places_with_an_item": round(float((lists >= 0).mean()), 4),
                "partial_sids_asked_per_user": round(asked[0] / len(validation), 1),
                "ms_per_user": round(1e3 * seconds / len(validation), 2),
            }
        )
        print(json.dumps(cases[-1]), flush=True)
    content = {
        "command": f"python benchmarks/decoding.py MODEL DATA/{arguments.data.name} --users {arguments.users}",
        "model": recommender.recipe.to_dict(),
        "set": f"validation, {len(validation)} users drawn once (seed 0), history filtered",
        "beam": arguments.beam,
        "machine": machine(),
        "cases": cases,
    }
    keep(content, arguments.json)


if __name__ == "__main__":
    main()
