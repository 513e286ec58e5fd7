"""Numbers that tell the rows of a matrix apart."""

from __future__ import annotations

import numpy as np

HASHED = 2**16  # rows of which the numbers are made at once


def fingerprints(vectors: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """[N] uint64 of rows: equal ones have the same, two that differ with a chance of 10^-10 at most.

    Args:
        vectors: [M, f].
        rows: [N] which; None is all.
    """
    words = np.random.default_rng(1603_09320).integers(0, 2**64, vectors.shape[1], dtype=np.uint64) | np.uint64(1)
    found = np.empty(len(vectors) if rows is None else len(rows), dtype=np.uint64)
    for start in range(0, len(found), HASHED):
        part = slice(start, start + HASHED)
        block = np.array(vectors[part if rows is None else rows[part]], dtype=np.float32, order="C")
        block += 0  # -0 is 0
        found[part] = (block.view(np.uint32) * words).sum(1, dtype=np.uint64)
    return found
