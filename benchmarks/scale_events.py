"""How time and memory grow with the events: ``python benchmarks/run.py scale events --events 1000000 10000000``.

Events of generated users (ten each on average, popular items more often, times at random) are written as a folder of
parquet parts, and read in a process of its own for each size, with a cache folder of its own. Stages are ``read`` (two
passes over the parts), ``read again`` (large tables from the cache), ``split`` (leave one out, with its fingerprint), and
for popularity and item_knn ``fit`` and ``recommend`` (lists of 10 for all users, by blocks). See ``workers/events.py`` for
``own_mb`` and ``resident_mb``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from turns import Worker

ITEMS = 1_000
EVENTS_OF_A_USER = 10
PART = 2**20  # events of a file
STAGES: tuple[tuple[str, dict[str, str]], ...] = (
    ("read", {"do": "read"}),
    ("read again", {"do": "read"}),
    ("split", {"do": "part"}),
    ("fit popularity", {"do": "fit", "name": "popularity"}),
    ("recommend popularity", {"do": "recommend"}),
    ("fit item_knn", {"do": "fit", "name": "item_knn"}),
    ("recommend item_knn", {"do": "recommend"}),
)


def scale_events(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is measured, and the cases: one a stage and size, and one a stage with its exponents."""
    cases: list[dict[str, Any]] = []
    for events in arguments.events:
        home = folder / str(events)
        generate(home, events)
        os.environ["DIFFGRM_CACHE"] = str(home / "cache")
        worker = Worker(sys.executable, "events.py", arguments.threads, home, {})
        for stage, request in STAGES:
            answer = worker.ask(**request)
            if "error" in answer:
                raise SystemExit(f"{stage}, {events:,} events: {answer['error']}")
            case = {"stage": stage, "events": events, **answer, "seconds": round(answer["seconds"], 2)}
            cases.append({name: value for name, value in case.items() if name != "peak_mb"})
            print(json.dumps(cases[-1]), flush=True)
        worker.close()
    facts = {"grows": "events", "threads": arguments.threads, "items": ITEMS, "events_of_a_user": EVENTS_OF_A_USER}
    return facts, cases + [growth(stage, cases) for stage, _ in STAGES if len(arguments.events) > 1]


def growth(stage: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Exponents of what a stage takes between the smallest and the largest number of events."""
    first, *_, last = (case for case in cases if case["stage"] == stage)
    times = np.log(last["events"] / first["events"])
    grown = {name: np.log(last[name] / max(first[name], 1e-2)) / times for name in ("seconds", "own_mb", "resident_mb")}
    return {"stage": stage, "exponents": {name: round(float(value), 2) for name, value in grown.items()}}


def generate(folder: Path, events: int) -> None:
    """Write ``events``, a folder of parts, and ``items.parquet``."""
    (folder / "events").mkdir(parents=True)
    draw = np.random.default_rng(0)
    names = pl.Series([f"item {number}" for number in range(ITEMS)])
    pl.DataFrame({"item_id": names, "text": names}).write_parquet(folder / "items.parquet")
    popularity = 1 / np.arange(1, ITEMS + 1)
    users = max(1, events // EVENTS_OF_A_USER)
    for part, start in enumerate(range(0, events, PART)):
        size = min(PART, events - start)
        table = pl.DataFrame(
            {
                "user_id": pl.Series(draw.integers(0, users, size)).cast(pl.String).str.zfill(10),
                "item_id": names.gather(draw.choice(ITEMS, size, p=popularity / popularity.sum())),
                "timestamp": draw.integers(0, 10**9, size),
                "other": draw.random(size),  # a column that is not read
            }
        )
        table.write_parquet(folder / "events" / f"part-{part:05}.parquet")
