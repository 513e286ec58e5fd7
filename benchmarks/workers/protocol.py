"""What a benchmark worker is: a process that holds one implementation and answers timed questions, one JSON line each.

A worker runs in the environment of its implementation, so this file needs nothing but NumPy and PyTorch.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Workload:
    """Semantic IDs, histories and training examples that all implementations are given (see ``workload.py``).

    Attributes:
        codes: [I, n] codes; codebook_size: K.
        histories: item positions of each user, oldest first.
        examples: (history, target) pairs.
    """

    def __init__(self, path: str) -> None:
        with np.load(path) as data:
            self.codes, self.codebook_size = data["codes"], int(data["codebook_size"])
            self.histories = np.split(data["history_values"], data["history_offsets"][1:-1])
            windows = np.split(data["window_values"], data["window_offsets"][1:-1])
            self.examples = list(zip(windows, data["targets"].tolist(), strict=True))


def serve(handlers: dict[str, Callable[..., Any]]) -> None:
    """Answer requests {"do": name, ...} until stdin closes; every answer has the seconds the handler reports or took."""
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with answers
    for line in sys.stdin:
        request = json.loads(line)
        handler = handlers[request.pop("do")]
        begin_peak()
        before = resident()
        started = time.perf_counter()
        try:
            result = handler(**request) or {}
            seconds = time.perf_counter() - started
            answer = {"seconds": seconds, "peak_mb": round(peak() - before, 1), **result}
        except (RuntimeError, MemoryError) as error:  # out of memory is an answer too
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


def resident() -> float:
    """MiB of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def begin_peak() -> None:
    """Give back what this process holds for nothing, and forget what it has held, where the system can (Linux)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Most MiB that this process has held since :func:`begin_peak` (what ``getrusage`` says may be its parent's)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**10
