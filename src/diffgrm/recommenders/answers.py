"""What every door does around the ranking: which items may be recommended, and the table of the answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.dataset import IdMap
from diffgrm.foundation.schema import Columns, DataError, first_few

logger = logging.getLogger(__name__)


def candidate_items(
    items: IdMap, recommendable: np.ndarray | None, k: int, only: Iterable[Any] | None, without: Iterable[Any] | None
) -> np.ndarray | None:
    """[I] bool, what may be recommended; None is all.

    Args:
        recommendable: [I] bool, what may be recommended at most; None is all.
        k: items wanted for each user.
        only, without: item ids that may be, and may not be, recommended; None is no such filter.

    Raises:
        DataError: k out of range, or filters that leave no item.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise DataError(f"k is {k!r}; expected a whole number from 1")
    if k > len(items):
        raise DataError(f"k is {k}, but the catalogue has only {len(items)} items; ask for at most that many")
    if only is None and without is None:
        return recommendable
    candidates = np.full(len(items), only is None)
    if only is not None:
        candidates[_known_positions(items, only, "only")] = True
    if without is not None:
        candidates[_known_positions(items, without, "without")] = False
    if recommendable is not None:
        candidates &= recommendable
    if not candidates.any():
        raise DataError(
            "the filters leave no item to recommend: 'only' names no catalogue item that 'without' does not forbid"
        )
    return candidates


def _known_positions(items: IdMap, ids: Iterable[Any], what: str) -> np.ndarray:
    ids = list(ids)
    positions = items.positions(ids)
    if (positions < 0).any():
        unknown = [i for i, p in zip(ids, positions, strict=True) if p < 0]
        logger.warning("'%s' names %d items that are not in the catalogue: %s", what, len(unknown), first_few(unknown))
    return positions[positions >= 0]


def answer_table(user_ids: pl.Series, items: IdMap, positions: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
    """user_id, item_id, score, rank (from 1), best first.

    Args:
        user_ids: [U].
        positions: [U, k] of the items, best first, -1 after the last; scores: [U, k].
    """
    row, column = np.nonzero(positions >= 0)
    return pl.DataFrame(
        {
            Columns.USER: user_ids.gather(row),
            Columns.ITEM: items.gather(positions[row, column]),
            Columns.SCORE: scores[row, column].astype(np.float32),
            Columns.RANK: (column + 1).astype(np.int32),
        }
    )


def similar_table(
    items: IdMap, position: int, similarity: np.ndarray, candidates: np.ndarray | None, k: int
) -> pl.DataFrame:
    """item_id, score, rank (from 1) of the k items most similar to one, best first, without that one.

    Args:
        similarity: [I] of each item to the one at ``position``.
        candidates: [I] bool, what may stand in the table; None is all.
    """
    scores = similarity.astype(np.float32)
    scores[position] = -np.inf
    if candidates is not None:
        scores[~candidates] = -np.inf
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[scores[best] > -np.inf]
    rank = np.arange(1, len(best) + 1, dtype=np.int32)
    return pl.DataFrame({Columns.ITEM: items.gather(best), Columns.SCORE: scores[best], Columns.RANK: rank})
