"""Processes that take turns, what is said of their answers, and the file that it is kept in."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent


class Worker:
    """A process that holds one implementation (see ``workers/protocol.py``)."""

    def __init__(self, python: str, script: str, threads: int, workload: Path, sizes: dict[str, Any]) -> None:
        environment = os.environ | {"BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [python, str(HERE / "workers" / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.loaded = self.ask(do="load", workload=str(workload), **sizes)

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request, one answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the worker ended with status {self.process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def close(workers: dict[str, Worker], cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases, once the workers have ended."""
    for worker in workers.values():
        worker.close()
    return cases


def how_alike(ours: tuple[list[Any], list[float]], peer: tuple[list[Any], list[float]]) -> str:
    """Whether two lists of items with their scores are equal, or equal but where scores are within 1e-4 of each other."""
    if ours[0] == peer[0]:
        return "equal"
    close_scores = len(ours[1]) == len(peer[1]) and np.allclose(ours[1], peer[1], rtol=0, atol=1e-4)
    return "equal_but_for_ties" if close_scores else "different"


def matrix_speed() -> float:
    """Operations a second of a matrix product of the decoder's shape, best of several."""
    a, b = torch.randn(4096, 256), torch.randn(256, 1024)
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * 4096 * 256 * 1024 / best


def keep(content: dict[str, Any], path: Path | None) -> None:
    """Write what has been found, where a file is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, default=str) + "\n")
