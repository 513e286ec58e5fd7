"""Rankings under rules: what the search is asked, and how deep, until the lists are as the rules want them.

The search is asked for more items than a list has where rules may pass some over, and again for four times as many for the
users whose lists are too short, up to all items (or ``deepest``). So a list is the one that the whole ranking would give.

Letters: U users, I items, k places of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.arranging import Lists, Pool, arranged
from diffgrm.ranking.item_rules import ItemRules
from diffgrm.ranking.query import Query

Rank = Callable[[Query], tuple[np.ndarray, np.ndarray]]
"""Item positions [U, k], best first, -1 after the last, and their scores [U, k]."""

MORE = 4  # times as many items as before are asked for where lists are too short
HELD = 2**20  # items of rankings (users x items) that are held at once


def rank_by_rules(
    rank: Rank, query: Query, rules: ItemRules | None, n_items: int, takes_offsets: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Item positions [U, k] of lists under rules, if any, -1 after the last, and their scores [U, k]; of nobody, none.

    Scores are those of the search, boosts among them, and so need not fall along a list; they are NaN of items that no
    search scored beside the others.

    Args:
        query: of which ``candidates`` hold the rules' ``where`` already.
        n_items: of the catalogue.
        takes_offsets: whether ``rank`` adds ``Query.offsets``; else boosts order the best ``depth`` items anew.

    Raises:
        DataError: see :meth:`ItemRules.check_k`.
    """
    if rules is not None:
        rules.check_k(query.k, query.candidates)
    if not len(query.histories):
        return np.empty((0, query.k), dtype=np.int64), np.empty((0, query.k), dtype=np.float32)
    if rules is None:
        return rank(query)
    return _Search(rank, query, rules, n_items, takes_offsets).answer()


@dataclass(frozen=True)
class _Search:
    rank: Rank
    query: Query
    rules: ItemRules
    n_items: int
    takes_offsets: bool

    def answer(self) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`rank_by_rules`."""
        users, k = len(self.query.histories), self.query.k
        items, scores = np.full((users, k), -1, dtype=np.int64), np.full((users, k), -np.inf, dtype=np.float32)
        pins, waiting, size, progress = self._pins(), np.arange(users), self._first(), self.query.progress
        while len(waiting):
            short = []
            for rows in _blocks(waiting, size):
                found = self._lists(rows, size, pins[rows], progress)
                items[rows], scores[rows] = found.items, found.scores
                short.append(rows[self._may_gain(found, rows, size, pins)])
            waiting, size = np.concatenate(short), min(self._deepest, MORE * size)
            progress = None if self.query.progress is None else _still_there(self.query.progress)
        return items, scores

    @cached_property
    def _seen(self) -> Ragged:
        """Items that each user has seen, by types of events that count as seen."""
        return self.query.histories.seen()

    @property
    def _allowed(self) -> int:
        """Items that may be recommended."""
        candidates = self.query.candidates
        return self.n_items if candidates is None else int(np.count_nonzero(candidates))

    @property
    def _deepest(self) -> int:
        """Most items of a ranking that are looked at."""
        deepest = self.rules.rules.deepest
        return self._allowed if deepest is None else min(self._allowed, max(deepest, self.query.k))

    @property
    def _near(self) -> int:
        """Best items among which diversity chooses, and which boosts order anew where the search does not add them."""
        return max(self.rules.rules.depth, self.query.k)

    def _first(self) -> int:
        """Items that the search is asked for at first."""
        rules, size = self.rules, self.query.k * (MORE if self.rules.caps else 1)
        if rules.similarity is not None or (rules.offsets is not None and not self.takes_offsets):
            size = max(size, self._near)
        return min(size, self._deepest)

    def _pins(self) -> np.ndarray:
        """[U, k] the item that each user gets at each place, -1 where none is pinned."""
        histories, candidates, pinned = self.query.histories, self.query.candidates, self.rules.pinned
        may = np.ones((len(histories), len(pinned)), dtype=bool)
        if candidates is not None:
            may &= candidates[pinned]
        if self.query.exclude_seen and not self.rules.rules.pin_seen:
            user = np.repeat(np.arange(len(histories)), self._seen.lengths)
            for number, pin in enumerate(pinned):
                may[user[self._seen.values == pin], number] = False
        return self.rules.placed(self.query.k, may)

    def _lists(self, rows: np.ndarray, size: int, pins: np.ndarray, progress: Callable[[int], None] | None) -> Lists:
        """Lists of some users from their best ``size`` items."""
        offsets = self.rules.offsets if self.takes_offsets else None
        histories = self.query.histories.rows(rows)
        items, scores = self.rank(replace(self.query, histories=histories, k=size, offsets=offsets, progress=progress))
        near = min(self._near, items.shape[1])
        if self.rules.offsets is not None and not self.takes_offsets:
            scores = np.where(items >= 0, scores + self.rules.offsets[items], -np.inf)
            order = np.tile(np.arange(items.shape[1]), (len(items), 1))
            order[:, :near] = np.argsort(-scores[:, :near], axis=1, kind="stable")
            items, scores = np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)
        pool = Pool(items, scores, items.shape[1], near)
        found = arranged(self.rules, pool, pins)
        lacking = np.flatnonzero(found.lacking)
        if len(lacking) and size < self._allowed:
            of_set = self._of_set(rows[lacking], size, progress)
            some = replace(pool, items=items[lacking], scores=scores[lacking]).with_late(of_set)
            again = arranged(self.rules, some, pins[lacking])
            for part, new in zip(found, again, strict=True):
                part[lacking] = new
        return found

    def _of_set(self, rows: np.ndarray, size: int, progress: Callable[[int], None] | None) -> np.ndarray:
        """[U, L] the best items of the minimum's set, by a search among them alone."""
        candidates, silent = self._set, None if progress is None else _still_there(progress)
        if not candidates.any():
            return np.empty((len(rows), 0), dtype=np.int64)
        histories, size = self.query.histories.rows(rows), min(size, int(np.count_nonzero(candidates)))
        offsets = self.rules.offsets if self.takes_offsets else None
        asked = replace(self.query, histories=histories, k=size, candidates=candidates, offsets=offsets, progress=silent)
        return self.rank(asked)[0]

    @property
    def _set(self) -> np.ndarray:
        """[I] bool, items of the minimum's set that may be recommended."""
        assert self.rules.minimum is not None
        return self.rules.minimum if self.query.candidates is None else self.rules.minimum & self.query.candidates

    def _may_gain(self, found: Lists, rows: np.ndarray, size: int, pins: np.ndarray) -> np.ndarray:
        """[V] bool, users [V] whose lists may be nearer to the rules if more items are looked at."""
        if size >= self._deepest:
            return np.zeros(len(rows), dtype=bool)
        gain = np.zeros(len(rows), dtype=bool)
        if self.rules.minimum is not None and size < np.count_nonzero(self._set):
            gain = found.lacking > 0
        for place in np.flatnonzero(((found.items >= 0).sum(1) < self.query.k) & ~gain):
            gain[place] = (found.items[place] >= 0).sum() < self._most(rows[place], pins[rows[place]])
        return gain

    def _most(self, row: int, pins: np.ndarray) -> int:
        """Items that a list of a user may have at most, by any single cap."""
        may = np.ones(self.n_items, dtype=bool) if self.query.candidates is None else self.query.candidates.copy()
        if self.query.exclude_seen:
            may[self._seen[row]] = False
        may[pins[pins >= 0]] = True
        most = [self.query.k, int(np.count_nonzero(may))]
        for cap in self.rules.caps:
            values = cap.values[may]
            most.append(int(np.bincount(values[values >= 0]).clip(max=cap.most).sum() + (values < 0).sum()))
        return min(most)


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    step = max(1, HELD // size)
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _still_there(progress: Callable[[int], None]) -> Callable[[int], None]:
    """Told of users who were counted already."""
    return lambda done: progress(0)
