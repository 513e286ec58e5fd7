"""Free codes near an item: the combinations of one code a digit that cost least, and are not in use."""

from __future__ import annotations

import numpy as np

from diffgrm.foundation.top_k import best_places
from diffgrm.semantic_ids.tokenizers.base import Tokenizer


class CodeKeys:
    """One uint64 a code row: exact mixed-radix numbers where they fit into 63 bits, else a sum of random words."""

    def __init__(self, n_digits: int, codebook_size: int) -> None:
        if n_digits * np.log2(codebook_size) <= 63:
            place = np.array([codebook_size**j for j in range(n_digits)], dtype=np.uint64)
            self.words: np.ndarray = place[:, None] * np.arange(codebook_size, dtype=np.uint64)
        else:
            shape = (n_digits, codebook_size)
            self.words = np.random.default_rng(20251021).integers(0, 2**64, shape, dtype=np.uint64)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Keys [...] uint64 of codes [..., n]."""
        total = np.zeros(codes.shape[:-1], dtype=np.uint64)
        for digit, words in enumerate(self.words):
            total += words[codes[..., digit]]
        return total


def nearest_codes(costs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` combinations of one code a digit with the least sum of costs, least first. Exact.

    Args:
        costs: [N, n, K], not negative.

    Returns:
        codes [N, C, n] int32 and their sums [N, C], C = min(count, K^n).
    """
    rows = np.arange(len(costs))[:, None]
    width = min(count, costs.shape[-1])
    sums, digits = np.zeros((len(costs), 1)), np.zeros((len(costs), 1, 0), dtype=np.int32)
    for digit in range(costs.shape[1]):
        column = costs[:, digit]
        best = best_places(-column, width)  # the cheapest first, of equal ones the smaller code
        # The pair (a-th best so far, b-th best code) has (a+1)(b+1) - 1 pairs before it, so most cannot be among `count`.
        a, b = np.nonzero(np.outer(np.arange(1, sums.shape[1] + 1), np.arange(1, width + 1)) <= count)
        total = sums[:, a] + np.take_along_axis(column, best, 1)[:, b]
        keep = best_places(-total, count)
        sums = np.take_along_axis(total, keep, 1)
        digits = np.concatenate([digits[rows, a[keep]], best[rows, b[keep]][..., None].astype(np.int32)], axis=2)
    return digits, sums


def free_candidates(
    tokenizer: Tokenizer, embeddings: np.ndarray, codes: np.ndarray, keys: CodeKeys, taken: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per item, the free codes among its ``length`` nearest, nearest first; cost inf where there is none.

    Nearest goes by the sum of the costs of changing single digits. Where those do not add up, the list is sorted again by
    the true error, and a cost is below 0 where a free code fits better than the tokenizer's own choice.
    """

    def block(embeddings: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        costs = tokenizer.digit_costs(embeddings, codes).astype(np.float64)
        here = np.take_along_axis(costs, codes[..., None].astype(np.int64), axis=-1)  # the error as it is
        near, extra = nearest_codes(np.maximum(costs - costs.min(-1, keepdims=True), 0), length)
        extra = np.maximum(extra - (here - costs.min(-1, keepdims=True)).sum((1, 2))[:, None], 0)
        near_keys = keys(near)
        spot = np.minimum(np.searchsorted(taken, near_keys), len(taken) - 1)
        extra[taken[spot] == near_keys] = np.inf
        if not tokenizer.costs_add:
            which, place = np.nonzero(np.isfinite(extra))
            errors = tokenizer.pair_errors(embeddings, which, near[which, place]).astype(np.float64)
            extra[which, place] = errors - tokenizer.error(embeddings, codes)[which]
        order = np.argsort(extra, axis=1, kind="stable")
        row = np.arange(len(near))[:, None]
        return near[row, order], extra[row, order]

    rows = max(1, 2**22 // (tokenizer.n_digits * tokenizer.codebook_size + length * tokenizer.n_digits * 8))
    starts = range(0, max(1, len(embeddings)), rows)
    found = [block(embeddings[start : start + rows], codes[start : start + rows]) for start in starts]
    near, extra = zip(*found, strict=True)
    return np.concatenate(near), np.concatenate(extra)
