"""One digit more, which numbers the items that the other digits do not tell apart (TIGER, arXiv 2305.05065; GRID)."""

from __future__ import annotations

from collections import defaultdict
from itertools import count, filterfalse

import numpy as np

from diffgrm.foundation.schema import TokenizerError


def numbered(codes: np.ndarray, taken: np.ndarray, most: int) -> np.ndarray:
    """Distinct codes [N, n + 1] int32: each row with the least number that no other row of its digits has.

    Rows get theirs in order, from 0.

    Args:
        codes: [N, n]; rows may repeat.
        taken: [T, n + 1] distinct codes that are in use.
        most: K, numbers that there are.

    Raises:
        TokenizerError: more than K items have the same digits.
    """
    used: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for *digits, number in taken.tolist():
        used[tuple(digits)].add(number)
    rows = [tuple(row) for row in codes.tolist()]
    free = {row: filterfalse(used[row].__contains__, count()) for row in rows}
    numbers = np.array([next(free[row]) for row in rows], dtype=np.int64)
    if (beyond := numbers >= most).any():
        row = codes[beyond.argmax()]
        items = int((codes == row).all(1).sum() + (taken[:, :-1] == row).all(1).sum())
        raise TokenizerError(
            f"{items} items have the digits {row.tolist()}, and an extra digit of {most} codes cannot number them; raise "
            "tokenizer.n_digits or tokenizer.codebook_size and fit again, or use semantic_ids.collisions=reassign"
        )
    return np.concatenate([codes, numbers[:, None]], axis=1).astype(np.int32)
