"""How time and memory of every stage grow: ``python benchmarks/run.py scale catalogue --json FILE --work FOLDER``.

Each size has a process of its own. Every stage is written to the JSON file when it is done, and a run that was killed goes
on after the last of them; ``--work`` keeps what the stages make (generated tables, vectors, semantic IDs, a model), so that
others can begin there. ``exponent`` is that of the seconds between the smallest and the largest size, or between
neighbouring ones (``last_exponent``): 1 is as fast as the data.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from turns import Worker, keep

FEWEST = 10_000  # items, below which the stages have too little to learn from


class Stage(NamedTuple):
    """What is asked of the worker (``workers/catalogue.py``), and what that reads before its time begins."""

    name: str
    do: str
    needs: tuple[str, ...] = ()
    given: tuple[tuple[str, Any], ...] = ()


STAGES = (
    Stage("read", "read"),
    Stage("LSA", "lsa", ("dataset", "counts")),
    Stage("OPQ, 4 digits", "opq", ("vectors", "counts"), (("digits", "4"),)),
    Stage("OPQ, 16 digits", "opq", ("vectors", "counts"), (("digits", "16"),)),
    Stage("semantic IDs, 4 digits", "semantic_ids", ("vectors",), (("digits", "4"),)),
    Stage("semantic IDs, 16 digits", "semantic_ids", ("vectors",), (("digits", "16"),)),
    Stage("co-occurrence", "co_occurrence", ("train",)),
    Stage("text neighbours", "text_neighbours", ("vectors", "train")),
    Stage("training step", "training_step", ("train", "counts")),
    Stage("one_pass, a user", "decode", ("train",), (("name", "one_pass"),)),
    Stage("catalogue_beam, a user", "decode", ("train",), (("name", "catalogue_beam"),)),
    Stage("save", "save", ("dataset", "train", "counts", "vectors")),
    Stage("load", "load_model"),
    Stage("first list", "first_list", ("dataset", "train", "model")),
    Stage("a list", "lists", ("dataset", "train", "model")),
)


def scale_catalogue(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is measured, and the cases: one a stage and size, and one a stage with its exponents."""
    return by_stages(arguments, folder, "catalogue.py", STAGES, "seconds")


def by_stages(
    arguments: argparse.Namespace, folder: Path, script: str, stages: tuple[Stage, ...], what: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The stages of a worker, size by size.

    Args:
        script: the worker.
        what: number of an answer whose growth is told.
    """
    if too_few := [items for items in arguments.items if items < FEWEST]:
        raise SystemExit(f"--items {too_few[0]}: expected {FEWEST:,} or more, since tokenizers learn 256 codes a digit")
    done = done_before(arguments.json)
    for items in arguments.items:
        missing = [stage for stage in stages if (stage.name, items) not in done]
        if missing:
            work = (arguments.work or folder) / str(items)
            worker = Worker(sys.executable, script, arguments.threads, work, {"items": items})
            for stage in missing:
                worker.ask(do="prepare", stage=stage.name, needs=stage.needs)
                answer = worker.ask(do=stage.do, **dict(stage.given))
                if "error" in answer:
                    raise SystemExit(f"{stage.name}, {items:,} items: {answer['error']}")
                case = {"stage": stage.name, "items": items, **rounded(answer)}
                done[stage.name, items] = case
                print(json.dumps(case), flush=True)
                keep({"cases": list(done.values())}, arguments.json)
            worker.close()
    facts = {"grows": arguments.grows, "threads": arguments.threads, "measured": time.strftime("%Y-%m-%d")}
    cases = [done[stage.name, items] for items in arguments.items for stage in stages]
    return facts, [*cases, *(growth(stage.name, done, arguments.items, what) for stage in stages)]


def done_before(path: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    """Cases that a file holds, by stage and size."""
    cases = json.loads(path.read_text())["cases"] if path is not None and path.exists() else []
    return {(case["stage"], case["items"]): case for case in cases if "items" in case}


def rounded(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with four digits of each number."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in answer.items()}


def growth(
    stage: str, done: dict[tuple[str, int], dict[str, Any]], sizes: list[int], what: str = "seconds"
) -> dict[str, Any]:
    """How what a stage takes grows with the items."""
    if len(sizes) < 2:
        return {"stage": stage}
    items = np.log(sizes)
    seconds = np.log([done[stage, size][what] for size in sizes])
    slopes = np.diff(seconds) / np.diff(items)
    whole = (seconds[-1] - seconds[0]) / (items[-1] - items[0])
    return {"stage": stage, "exponent": round(float(whole), 2), "last_exponent": round(float(slopes[-1]), 2)}
