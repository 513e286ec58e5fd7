"""How many digits each step of a search fills, where that is settled before it begins.

Letters: n digits; f(j) mean negative log-likelihood, in nats, of a digit when j others are known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def digits_per_step(n: int, steps: int) -> list[int]:
    """How many of n digits each step fills: as even as can be, the larger steps last, when more is known.

    >>> digits_per_step(4, 3), digits_per_step(4, 4), digits_per_step(5, 1)
    ([1, 1, 2], [1, 1, 1, 1], [5])
    """
    small, larger = divmod(n, steps)
    return [small] * (steps - larger) + [small + 1] * larger


def random_sizes(n: int, steps: int, seed: int) -> list[int]:
    """Sizes of so many steps, all ways to cut n digits being as likely."""
    cuts = np.random.default_rng(seed).choice(n - 1, steps - 1, replace=False) + 1
    return np.diff([0, *sorted(cuts.tolist()), n]).tolist()


def warmed_up(n: int, single: int, after: int) -> list[int]:
    """So many steps of a single digit, then ``after`` digits a step; the last step takes what is left.

    The warm-up of MDGR (arXiv 2601.19501), whose formulas were not to be had: the reading is ours.

    >>> warmed_up(8, 2, 4), warmed_up(4, 4, 3)
    ([1, 1, 4, 2], [1, 1, 1, 1])
    """
    whole, rest = divmod(n - single, after)
    return [1] * single + [after] * whole + [rest] * (rest > 0)


def divergence(difficulty: Sequence[float], sizes: Sequence[int]) -> float:
    """What filling several digits at once loses, in nats: the Kullback-Leibler divergence of true semantic IDs from those
    that steps of these sizes draw, the mean over all orders of the digits.

    It is the sum over steps, and over the digits of each, of f(known before the step) - f(known before the digit)
    (arXiv 2602.20126 has laws that follow from it; the sum itself is elementary).

    Args:
        difficulty: f(0), ..., f(n - 1).
        sizes: digits of each step, n in all.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    return float(sum(_loss(difficulty, start, start + size) for start, size in zip(starts.tolist(), sizes, strict=True)))


def planned_sizes(difficulty: Sequence[float], steps: int) -> list[int]:
    """The sizes of so many steps that lose least (:func:`divergence`), by dynamic programming over their ends.

    >>> planned_sizes([1.0, 0.9, 0.3, 0.29], 2)
    [2, 2]
    """
    n = len(difficulty)
    best = [[np.inf] * (n + 1) for _ in range(steps + 1)]  # [steps taken][digits known]
    start = [[0] * (n + 1) for _ in range(steps + 1)]
    best[0][0] = 0.0
    for step in range(1, steps + 1):
        for end in range(step, n + 1):
            costs = [best[step - 1][begin] + _loss(difficulty, begin, end) for begin in range(step - 1, end)]
            chosen = int(np.argmin(costs))
            best[step][end], start[step][end] = costs[chosen], step - 1 + chosen
    sizes, end = list[int](), n
    for step in range(steps, 0, -1):
        sizes.append(end - start[step][end])
        end = start[step][end]
    return sizes[::-1]


def _loss(difficulty: Sequence[float], begin: int, end: int) -> float:
    return sum(difficulty[begin] - later for later in difficulty[begin:end])
