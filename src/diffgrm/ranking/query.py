"""Query: what a recommender is asked, in integers; and the answer of methods that score every item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import DiffGRMError
from diffgrm.foundation.top_k import best_places

BLOCK = 2**24  # scores (users x items) that are held at once


@dataclass(frozen=True)
class Query:
    """A checked question to a recommender.

    Attributes:
        histories: item positions of every user, oldest first, at least one each.
        k: items wanted for each user.
        exclude_seen: leave out what is in the user's history, by types of events that count as seen.
        candidates: [I] bool, items that may be recommended; None is all.
        offsets: [I] float32, what is added to the scores of items; None is nothing. Only for methods that take them.
        progress: called with the number of users done since the last call; None for nobody to tell.
    """

    histories: Ragged
    k: int
    exclude_seen: bool = True
    candidates: np.ndarray | None = None
    progress: Callable[[int], None] | None = None
    offsets: np.ndarray | None = None


class Hidden(NamedTuple):
    """What of a block's scores [b, I] does not count as it is.

    Attributes:
        offsets: [I] that are added; None: nothing.
        candidates: [I] bool, items that may be recommended; None: all.
        row, item: [H] single scores that are left out.
    """

    offsets: np.ndarray | None
    candidates: np.ndarray | None
    row: np.ndarray
    item: np.ndarray


Best = Callable[[Any, int, Hidden], tuple[np.ndarray, np.ndarray]]
"""``best(scores [b, I], k, hidden)``: item positions [b, min(k, I)] and their scores, -inf of what is left out; the scores
may be written to."""


def best_of_array(scores: np.ndarray, k: int, hidden: Hidden) -> tuple[np.ndarray, np.ndarray]:
    """See :data:`Best`, of NumPy's arrays.

    Raises:
        DiffGRMError: scores that are NaN or infinite; -inf is an item that is out of question.
    """
    fine = scores.max(1) < np.inf  # which NaN is not
    if not fine.all():
        raise DiffGRMError(
            f"no list can be made of the scores: for {int((~fine).sum()):,} of {len(scores):,} users some are NaN or "
            "infinite; what the model has learnt is no finite numbers, or too large ones: fit it again"
        )
    if hidden.offsets is not None:
        scores += hidden.offsets
    if hidden.candidates is not None:
        scores[:, ~hidden.candidates] = -np.inf
    scores[hidden.row, hidden.item] = -np.inf
    order = best_places(scores, k)
    return order, np.take_along_axis(scores, order, 1)


def top_k_of_scores(
    query: Query, scores_of: Callable[[np.ndarray], Any], best: Best = best_of_array
) -> tuple[np.ndarray, np.ndarray]:
    """Exact top-k of methods that score every item, a block of users at a time.

    Equal scores are put in order of item position, and of those that tie for the last place the first ones come in: a
    shorter list is the head of a longer one.

    Args:
        scores_of: user rows [b] -> scores [b, I], of the kind that ``best`` takes.

    Returns:
        Item positions [U, k], -1 after the last, and scores [U, k].

    Raises:
        DiffGRMError: see ``best``.
    """
    histories, k = query.histories, query.k
    items = np.full((len(histories), k), -1, dtype=np.int64)
    found_scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
    step, start = 1, 0
    while start < len(histories):
        rows = np.arange(start, min(start + step, len(histories)))
        scores = scores_of(rows)
        start, step = start + len(rows), max(1, BLOCK // scores.shape[1])
        row = item = np.empty(0, dtype=np.int64)
        if query.exclude_seen:
            seen = histories.rows(rows).seen()
            row, item = np.repeat(np.arange(len(rows)), seen.lengths), seen.values
        order, top = best(scores, k, Hidden(query.offsets, query.candidates, row, item))
        found = top.shape[1]  # fewer than k where there are fewer items
        items[rows, :found], found_scores[rows, :found] = np.where(top > -np.inf, order, -1), top
        if query.progress:
            query.progress(len(rows))
    return items, found_scores
