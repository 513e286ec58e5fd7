"""Integer keys of sets of (digit, code)s, such as partial and complete semantic IDs."""

from __future__ import annotations

import numpy as np


def code_keys(n_digits: int, codebook_size: int) -> np.ndarray:
    """[n, K] int64 keys of single (digit, code)s; the key of a set of them is their sum.

    Mixed-radix numbers with 0 for an unknown digit where they fit into 63 bits, else random numbers: two different sets
    then get one key with a chance of about 10^-19.
    """
    if n_digits * np.log2(codebook_size + 1) < 63:
        radix = np.array([(codebook_size + 1) ** j for j in range(n_digits)], dtype=np.int64)
        return radix[:, None] * np.arange(1, codebook_size + 1)
    return np.random.default_rng(2510_21805).integers(-(2**62), 2**62, (n_digits, codebook_size))
