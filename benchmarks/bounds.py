"""How many beams a step needs: python benchmarks/bounds.py MODEL DATA/amazon-beauty --json docs/results/speed/bounds.json

Beams go in order of score, and a score only falls. So a beam that does not stand above the last of the candidates kept (the
k-th best complete SID at the last digit) need not be asked about. Says which share of the beams stands above it, by step.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import diffgrm
from diffgrm import leave_one_out
from diffgrm.apps.machine import machine
from diffgrm.ranking.decoding import any_order_beam
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from turns import keep
from workload import dataset_of


class Watched(AnyOrderBeam):
    """The beam search, noting at each digit which share of its beams stood above the last candidate kept."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.needed: dict[int, list[float]] = {}

    def _fill_one(self, task: Any, beams: Any, log_p: Any, turn: Any, filled: int, width: int, step: int) -> Any:
        kept, source = super()._fill_one(task, beams, log_p, turn, filled, width, step)
        if filled > 0 and kept.score.shape[1] == width:
            self.needed.setdefault(filled, []).append(float((beams.score > kept.score[:, -1:]).float().mean()))
        return kept, source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--users", type=int, default=48)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    any_order_beam.LAST_PARTS = 1  # ask for all beams, to see how many were needed
    dataset = dataset_of(arguments.data)
    validation = leave_one_out(dataset).validation
    rows = np.random.default_rng(0).choice(len(validation), arguments.users, replace=False)
    ranker, cases = diffgrm.load(arguments.model).ranker(), []
    for beam in (32, 128):
        decoder = Watched(beam=beam)
        replace(ranker, decoder=decoder).rank(validation.histories.rows(rows), 10, exclude_seen=True)
        shares = {f"{filled} digits known": round(float(np.mean(s)), 3) for filled, s in decoder.needed.items()}
        cases.append({"beam": beam, "k": 10, "share_of_beams_needed": shares})
    content = {"users": arguments.users, "seed": 0, "set": "validation", "machine": machine(), "cases": cases}
    print(json.dumps(content, indent=1))
    keep(content, arguments.json)


if __name__ == "__main__":
    main()
