"""Numbers that name sets of (digit, code)s (floor 1)."""

from __future__ import annotations

import numpy as np


def words_of_codes(n_digits: int, codebook_size: int) -> np.ndarray:
    """[n, K] int64 words whose sum over any set of (digit, code)s names that set.

    Mixed-radix numbers with 0 for an unknown digit where they fit into 63 bits, else random words: two different sets
    then get one name with a chance of about 10^-19.
    """
    if n_digits * np.log2(codebook_size + 1) < 63:
        place = np.array([(codebook_size + 1) ** j for j in range(n_digits)], dtype=np.int64)
        return place[:, None] * np.arange(1, codebook_size + 1)
    return np.random.default_rng(2510_21805).integers(-(2**62), 2**62, (n_digits, codebook_size))
