"""What users gain by a run, and the interval of what they gain over another."""

from __future__ import annotations

import numpy as np
import polars as pl

from diffgrm.data.dataset import Ragged
from diffgrm.evaluation.metrics import ndcg, recall
from diffgrm.foundation.schema import Columns

RESAMPLES = 2000
GAINS = {
    "ndcg@10": lambda ranks: ndcg(ranks, 10),
    "recall@10": lambda ranks: recall(ranks, 10),
}


def user_gains(ranks: list[pl.DataFrame], metric: str, column: str = "rank") -> np.ndarray:
    """[U] a metric of every user, mean over seeds.

    Args:
        ranks: one table for each seed with ``user_id`` and ``column``, a row for each held-out event; a user's rows stand
            together, and all tables hold the same users in the same order.
        metric: a name of ``GAINS``.
    """
    start = np.flatnonzero((ranks[0][Columns.USER] != ranks[0][Columns.USER].shift(1)).fill_null(True).to_numpy())
    offsets = np.concatenate([start, [ranks[0].height]])
    return np.mean([GAINS[metric](Ragged(table[column].to_numpy(), offsets)) for table in ranks], axis=0)


def interval_of_difference(gain: np.ndarray, reference: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Paired bootstrap 95% interval of the mean of ``gain - reference`` [U], over users.

    >>> interval_of_difference(np.ones(50), np.zeros(50))
    (1.0, 1.0)
    """
    difference = np.asarray(gain, dtype=np.float64) - reference
    generator, means = np.random.default_rng(seed), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        means[number] = difference[generator.integers(0, len(difference), len(difference))].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
