"""What every door does around the ranking: which items may be recommended, and the table of the answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from diffgrm.data.ids import IdMap, known_positions
from diffgrm.foundation.schema import Columns, DataError, first_few

if TYPE_CHECKING:  # PyTorch, which exports do without
    from diffgrm.ranking.explaining import FilledDigit

logger = logging.getLogger(__name__)

EXPLANATION: dict[str, Any] = {
    "step": pl.Int64,
    "digit": pl.Int64,
    "code": pl.Int64,
    "confidence": pl.Float64,
    "rival": pl.Int64,
    "rival_confidence": pl.Float64,
    "items_left": pl.Int64,
}
SEARCH: dict[str, Any] = {"step": pl.Int64, "place": pl.Int64, Columns.SCORE: pl.Float64, "digits": pl.List(pl.Int64)}


def check_number(number: Any, name: str) -> None:
    """Refuse what is no number of something.

    Raises:
        DataError: it is no whole number from 1.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise DataError(f"{name} is {number!r}; expected a whole number from 1")


def check_k(k: Any, most: int, what: str = "items") -> None:
    """Refuse a number of items, or of what they are called, that a list cannot have.

    Raises:
        DataError: it is none, or more than there are.
    """
    check_number(k, "k")
    if k > most:
        raise DataError(f"k is {k}, but the catalogue has only {most} {what}; ask for at most that many")


def candidate_items(
    items: IdMap, recommendable: np.ndarray | None, k: int, only: Any, without: Any, where: np.ndarray | None = None
) -> np.ndarray | None:
    """[I] bool, what may be recommended; None is all.

    Args:
        recommendable: [I] bool, what may be recommended at most; None is all.
        k: items wanted for each user.
        only, without: item ids that may be, and may not be, recommended, in any form that
            :func:`diffgrm.data.ids.id_list` takes; None is no such filter.
        where: [I] bool, what rules let be recommended; None is all.

    Raises:
        DataError: k out of range, something that is no list of ids, a filter of which no id is known, or filters that
            leave no item.
    """
    check_k(k, len(items))
    if only is None and without is None and where is None:
        return recommendable
    candidates = np.full(len(items), only is None)
    if only is not None:
        candidates[_known(items, only, "only", "the filters leave no item to recommend: ")] = True
    if without is not None:
        candidates[_known(items, without, "without", "the filter forbids nothing: ")] = False
    if recommendable is not None:
        candidates &= recommendable
    if where is not None and candidates.any():
        candidates &= where
        if not candidates.any():
            raise DataError(
                "the filters leave no item to recommend: none that may be recommended meets the rules' 'where'; widen its "
                "conditions"
            )
    if not candidates.any():
        raise DataError(
            "the filters leave no item to recommend: 'only' names no catalogue item that 'without' does not forbid"
        )
    return candidates


def _known(items: IdMap, ids: Any, what: str, harm: str) -> np.ndarray:
    """Positions of a filter's items; unknown ones are told, and an error where none is known."""
    positions, unknown = known_positions(items, ids, Columns.ITEM, what)
    if unknown and not len(positions):
        raise DataError(
            f"{harm}{what!r} names {len(unknown)} items, none of which is in the catalogue: {first_few(unknown)}"
        )
    if unknown:
        logger.warning("%r names %d items that are not in the catalogue: %s", what, len(unknown), first_few(unknown))
    return positions


def answer_table(user_ids: pl.Series, items: IdMap, positions: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
    """user_id, item_id, score, rank (from 1), best first.

    Args:
        user_ids: [U].
        positions: [U, k] of the items, best first, -1 after the last; scores: [U, k], NaN where there is none.
    """
    row, column = np.nonzero(positions >= 0)
    return pl.DataFrame(
        {
            Columns.USER: user_ids.gather(row),
            Columns.ITEM: items.gather(positions[row, column]),
            Columns.SCORE: pl.Series(scores[row, column].astype(np.float32)).fill_nan(None),
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


def explanation_table(items: IdMap, digits: Iterable[FilledDigit]) -> pl.DataFrame:
    """rank, item_id, step, digit, code, confidence, rival, rival_confidence, items_left of the digits of a list."""
    rows = list(digits)
    ids = items.gather(np.array([row.item for row in rows], dtype=np.int64))
    columns = {Columns.RANK: pl.Series([row.rank for row in rows], dtype=pl.Int64), Columns.ITEM: ids}
    for name, kind in EXPLANATION.items():
        columns[name] = pl.Series([getattr(row, name) for row in rows], dtype=kind)
    return pl.DataFrame(columns)


def beams_table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """step, place, score, digits of what :func:`diffgrm.ranking.explaining.searched` saw."""
    return pl.DataFrame(rows, schema=SEARCH)
