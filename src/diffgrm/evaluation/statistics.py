"""What users gain by a run, the interval of what they gain over another, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from diffgrm.data.dataset import Ragged
from diffgrm.evaluation.metrics import LIST, ndcg, recall
from diffgrm.foundation.schema import Columns

RESAMPLES = 2000
GAINS = {
    "ndcg@10": lambda ranks: ndcg(ranks, 10),
    "recall@10": lambda ranks: recall(ranks, 10),
}


def _starts(table: pl.DataFrame) -> np.ndarray:
    """[L] the first row of every list; tables of older versions have one list for each user."""
    column = table[LIST if LIST in table.columns else Columns.USER]
    return np.flatnonzero((column != column.shift(1)).fill_null(True).to_numpy())


def list_gains(ranks: Sequence[pl.DataFrame], metric: str, column: str = "rank") -> np.ndarray:
    """[L] a metric of every list, mean over seeds.

    Args:
        ranks: one table for each seed with ``user_id``, ``list`` and ``column``, a row for each held-out event; a list's
            rows stand together, and all tables hold the same lists in the same order.
        metric: a name of ``GAINS``.
    """
    offsets = np.concatenate([_starts(ranks[0]), [ranks[0].height]])
    return np.mean([GAINS[metric](Ragged(table[column].to_numpy(), offsets)) for table in ranks], axis=0)


def list_owners(ranks: pl.DataFrame) -> np.ndarray:
    """[L] whose lists they are: users, numbered from 0; a user's lists stand together."""
    return ranks[Columns.USER].gather(_starts(ranks)).rle_id().to_numpy().astype(np.int64)


def interval_of_difference(
    gain: np.ndarray, reference: np.ndarray, owners: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float]:
    """Paired bootstrap 95% interval of the mean of ``gain - reference`` [L] over lists; users are drawn, with all theirs.

    >>> interval_of_difference(np.ones(50), np.zeros(50))
    (1.0, 1.0)

    Args:
        owners: [L] see :func:`list_owners`; None: every list is of another user.
    """
    sums, counts = _by_user(gain, reference, owners)
    generator, means = np.random.default_rng(seed), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = generator.integers(0, len(sums), len(sums))
        means[number] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def signed_rank_p(gain: np.ndarray, reference: np.ndarray, owners: np.ndarray | None = None) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (1945) that users gain as much as by the reference.

    A user's lists count as one, by their mean; users without a difference are left out, as Wilcoxon does: 1 of none.

    >>> round(signed_rank_p(np.array([3.0, 1, 2, 4, 5, 6]), np.zeros(6)), 5), signed_rank_p(np.ones(3), np.ones(3))
    (0.03125, 1.0)
    """
    from scipy.stats import wilcoxon

    sums, counts = _by_user(gain, reference, owners)
    differences = np.round(sums / counts, 12)  # what only rounding tells apart is a tie
    differences = differences[differences != 0]
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several comparisons, so raised that the chance of any false one is bounded (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03, 0.5])
    [0.04, 0.09, 0.09, 0.5]
    """
    order = np.argsort(p_values, kind="stable")
    raised = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return [float(value) for value in found]


def _by_user(gain: np.ndarray, reference: np.ndarray, owners: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """[U] the sum of each user's differences, and of how many lists."""
    difference = np.asarray(gain, dtype=np.float64) - reference
    owners = np.arange(len(difference)) if owners is None else owners
    return np.bincount(owners, weights=difference), np.bincount(owners)
