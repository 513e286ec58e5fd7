from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from diffgrm.learning import heap
from diffgrm.learning.heap import STEPS, HeapTrimming


def test_free_pages_are_given_back_every_so_many_steps_and_at_the_end(monkeypatch):
    asked = []
    monkeypatch.setattr(heap, "_malloc_trim", lambda: asked.append)
    trimming = HeapTrimming()
    for _ in range(4):
        for batch in range(STEPS // 2 + 10):  # an epoch has fewer
            trimming.on_train_batch_end(None, None, None, None, batch)
    assert len(asked) == 2
    trimming.on_train_end(None, None)
    assert asked == [0, 0, 0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_holes_in_the_heap_are_given_back():
    """Tensors of 96 KiB lie on the heap; between those that stay, the others leave holes."""
    if heap._malloc_trim()(0) not in (0, 1) or heap._malloc_trim().__class__.__name__ == "function":
        pytest.skip("another C library than glibc")
    tensors = [torch.ones(24 * 1024) for _ in range(2000)]
    kept = tensors[::2]
    before = _resident()
    del tensors
    HeapTrimming().on_train_end(None, None)
    assert before - _resident() > 50 * 2**20 and len(kept) == 1000


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert heap._malloc_trim()(0) == 0


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
