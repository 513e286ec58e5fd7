"""What grows with items alone: ``python benchmarks/run.py scale vectors --json FILE --work FOLDER``.

Vectors of width 64 are generated a block of items at a time into a file that is mapped into memory. Lists are found by
vectors through the index of an item scorer, and by 16 random digits an item in one pass of the recipe
``generative-best``, whose network is not trained; semantic IDs of 8 digits are made of the vectors. No process may hold
more than ``--cap`` GiB. ``own_mb`` is the most that the process held during a stage without the mapped file,
``cpu_seconds`` are those of processors, and exponents are of them. As in ``scale catalogue``, every stage is written to
the JSON file when it is done, and a run that was killed goes on after the last.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import Any

from scale_catalogue import Stage, by_stages

STAGES = (
    Stage("vectors", "vectors"),
    Stage("first list by 16 digits (tables)", "first_by_digits"),
    Stage("a list by 16 digits", "by_digits"),
    Stage("first candidates (ivf_pq)", "first_by_vectors"),
    Stage("candidates", "by_vectors"),
    Stage("OPQ, 8 digits", "opq"),
    Stage("digits", "digits"),
    Stage("repair of collisions", "repair"),
    Stage("report", "report"),
)


def scale_vectors(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is measured, and the cases: one a stage and size, and one a stage with its exponents."""
    cap = int(arguments.cap * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    facts, cases = by_stages(arguments, folder, "vectors.py", STAGES, "cpu_seconds")
    return {**facts, "cap_gib": arguments.cap}, cases
