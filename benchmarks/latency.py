"""How long one list takes with item scores, with the digits beside them, and with plain CPD, all on one model.

    python benchmarks/latency.py DATA/amazon-beauty MODEL --json docs/results/quality/latency.json

Ways alternate, user by user and batch by batch, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import diffgrm
from diffgrm import leave_one_out
from diffgrm.apps.machine import machine
from turns import keep
from workload import dataset_of

WAYS = {
    "plain CPD, beam 64": ["decoding.name=any_order_beam", "decoding.beam=64"],
    "item scores": ["decoding.name=item_proposals", "item_scoring.co_occurrence.weight=0"],
    "item scores and co-occurrence": ["decoding.name=item_proposals", "item_scoring.co_occurrence.weight=2"],
    "item scores, co-occurrence and digits of 64": [
        "decoding.name=item_proposals",
        "item_scoring.co_occurrence.weight=2",
        "decoding.weight=0.05",
        "decoding.candidates=64",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = dataset_of(arguments.data)
    test = leave_one_out(dataset).test
    model = diffgrm.load(arguments.model)
    models = {name: model.variant(overrides) for name, overrides in WAYS.items()}
    generator, found = np.random.default_rng(0), {}
    for users in (1, 32):
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(arguments.rounds + 5):
            chosen = generator.choice(len(test), users, replace=False)
            histories = {str(row): dataset.items.ids(test.histories[row]) for row in chosen}
            for name in generator.permutation(list(WAYS)):
                started = time.perf_counter()
                models[name].recommend(histories, k=10)
                if number >= 5:  # the first make tables
                    seconds[name].append(time.perf_counter() - started)
        plain = np.array(seconds["plain CPD, beam 64"])
        found[f"{users} at once"] = {
            name: {
                "ms": round(1000 * float(np.median(times)), 2),
                "ms_quartiles": [round(1000 * float(q), 2) for q in np.percentile(times, [25, 75])],
                "times_plain_cpd": round(float(np.median(np.array(times) / plain)), 3),
            }
            for name, times in seconds.items()
        }
    content = {
        "command": f"python benchmarks/latency.py DATA/{arguments.data.name} MODEL --threads {arguments.threads}",
        "rounds": arguments.rounds,
        "model": model.facts,
        "machine": machine(),
        "found": found,
    }
    print(json.dumps(found, indent=1))
    keep(content, arguments.json)


if __name__ == "__main__":
    main()
