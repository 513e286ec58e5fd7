"""Lists of the best items of users' rankings, as rules want them; what that is, :mod:`diffgrm.ranking.rules` says.

Letters: U users, D items of a ranking that are looked at, k places of a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from diffgrm.ranking.item_rules import ItemRules


@dataclass(frozen=True)
class Pool:
    """The best items of users, best first.

    Attributes:
        items: [U, D] positions, distinct in a row, -1 where there is none.
        scores: [U, D], boosts among them; -inf where there is no item.
        late: column from which on items are worse than all before, come in for ``minimum`` only, and have scores of another
            search.
        near: columns of the best items, among which diversity chooses; others follow in their order.
    """

    items: np.ndarray
    scores: np.ndarray
    late: int
    near: int

    def with_late(self, items: np.ndarray) -> Pool:
        """With items [U, L], best first, of which those that are there already are left out."""
        here = np.zeros(items.shape, dtype=bool)
        for row, (late, known) in enumerate(zip(items, self.items, strict=True)):
            here[row] = np.isin(late, known)
        items = np.where(here, -1, items)
        scores = np.full(items.shape, -np.inf, dtype=self.scores.dtype)
        found = np.concatenate([self.items, items], 1), np.concatenate([self.scores, scores], 1)
        return Pool(*found, self.late, self.near)


class Lists(NamedTuple):
    """What rules made of pools.

    Attributes:
        items: [U, k] positions, -1 after the last.
        scores: [U, k], NaN where no search said one: of pins that are not in the pool, and of late items; -inf after the
            last.
        lacking: [U] items that ``minimum`` wants more than there were.
    """

    items: np.ndarray
    scores: np.ndarray
    lacking: np.ndarray


def arranged(rules: ItemRules, pool: Pool, pins: np.ndarray) -> Lists:
    """Lists of ``pins.shape[1]`` places.

    Args:
        pins: [U, k] the item pinned at each place, -1 where there is none.
    """
    return _Arranging(rules, pool, pins).lists()


class _Arranging:
    """Lists under way.

    Attributes:
        free: [U, D] bool, items that are neither in the list nor pinned.
        held: [U, D] bool, items that places are held free for.
        same: for each cap, [U, D] items of the list, pinned or held ones among them, that share the value.
        nearest: [U, near] the largest similarity to the list; -inf where it is empty.
    """

    def __init__(self, rules: ItemRules, pool: Pool, pins: np.ndarray) -> None:
        self.rules, self.pool, self.pins = rules, pool, pins
        users = len(pins)
        self.free = pool.items >= 0
        self.held = np.zeros_like(self.free)
        self.values = [np.where(self.free, cap.values[pool.items], -1) for cap in rules.caps]
        self.same = [np.zeros(pool.items.shape, dtype=np.int64) for _ in rules.caps]
        self.nearest = np.full((users, pool.near), -np.inf)
        self.in_set = None if rules.minimum is None else self.free & rules.minimum[pool.items]
        self.early = np.arange(pool.items.shape[1]) < pool.late
        self.relevance = _relevance(pool.scores[:, : pool.near]) if rules.similarity is not None else None
        self.left = (pins < 0).sum(1)  # places that are still to be filled
        self.wanted = np.zeros(users, dtype=np.int64)  # items of the set that the list still needs
        everyone = np.arange(users)
        for column in pins.T:
            pinned = everyone[column >= 0]
            self.free[pinned] &= pool.items[pinned] != column[pinned, None]
            for number, cap in enumerate(rules.caps):
                self._count(number, pinned, cap.values[column[pinned]], 1)
            self._meet(pinned, column[pinned])

    def lists(self) -> Lists:
        """Fill all places."""
        self._hold()
        lacking = self.wanted - self.held.sum(1)
        users, k = self.pins.shape
        everyone = np.arange(users)
        columns = np.full((users, k), -1)
        for place in range(k):
            chosen, found = self._best(everyone[self.pins[:, place] < 0])
            columns[chosen, place] = found
        items = np.where(columns >= 0, self.pool.items[everyone[:, None], columns], self.pins)
        scores = np.where(self.early[columns], self.pool.scores[everyone[:, None], columns], np.nan)
        scores = np.where(columns >= 0, scores, self._scores_of_pins())
        order = np.argsort(items < 0, axis=1, kind="stable")  # a pin stands at the end of a list that is too short for it
        return Lists(np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1), lacking)

    def _hold(self) -> None:
        """Hold places free for the best items of the minimum's set, as far as caps leave them."""
        minimum = self.rules.rules.minimum
        if minimum is None or self.in_set is None or self.rules.minimum is None:
            return
        pinned = (self.rules.minimum[self.pins] & (self.pins >= 0)).sum(1)
        self.wanted = np.minimum(np.maximum(minimum.count - pinned, 0), self.left)
        for number in range(int(self.wanted.max(initial=0))):
            may = self.free & ~self.held & self.in_set & self._under_caps()
            users = np.flatnonzero(may.any(1) & (self.wanted > number))
            columns = may[users].argmax(1)
            self.held[users, columns] = True
            self._count_items(users, columns, 1)

    def _best(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the best item for the next place of users; gives those [V] for whom there is one, and its column [V]."""
        held = self.held.sum(1)
        may = self.free & (self.held | (self._under_caps() & self.early))
        room = self.held | (held < self.left)[:, None]
        may &= room if self.in_set is None else room | self.in_set
        users = users[may[users].any(1)]
        columns = may[users].argmax(1)
        if self.relevance is not None:
            weight, may = self.rules.rules.diversity, may[users, : self.pool.near]
            near = np.where(self.nearest[users] > -np.inf, self.nearest[users], 0)
            marginal = np.where(may, (1 - weight) * self.relevance[users] - weight * near, -np.inf)
            columns = np.where(may.any(1), marginal.argmax(1), columns)
        taken = self.held[users, columns]
        self.free[users, columns] = self.held[users, columns] = False
        self.left[users] -= 1
        self._count_items(users[~taken], columns[~taken], 1)
        if self.in_set is not None:
            self._release(users, self.in_set[users, columns])
        self._meet(users, self.pool.items[users, columns])
        return users, columns

    def _release(self, users: np.ndarray, of_set: np.ndarray) -> None:
        """Give the last held place back where an item of the set came that no place was held for."""
        self.wanted[users] -= of_set
        users = users[self.held[users].sum(1) > np.maximum(self.wanted[users], 0)]
        last = self.held.shape[1] - 1 - self.held[users, ::-1].argmax(1)
        self.held[users, last] = False
        self._count_items(users, last, -1)

    def _under_caps(self) -> np.ndarray:
        """[U, D] bool, items of which no value is there as often as may be."""
        may = np.ones(self.free.shape, dtype=bool)
        for cap, values, same in zip(self.rules.caps, self.values, self.same, strict=True):
            may &= (same < cap.most) | (values < 0)
        return may

    def _count_items(self, users: np.ndarray, columns: np.ndarray, by: int) -> None:
        for number in range(len(self.rules.caps)):
            self._count(number, users, self.values[number][users, columns], by)

    def _count(self, number: int, users: np.ndarray, values: np.ndarray, by: int) -> None:
        """Count values [V] of a cap, one of each user [V]."""
        self.same[number][users] += by * (self.values[number][users] == values[:, None])

    def _meet(self, users: np.ndarray, items: np.ndarray) -> None:
        """Note how near the pool is to items [V] that came to the lists of users [V]."""
        if self.rules.similarity is None:
            return
        for user, item in zip(users.tolist(), items.tolist(), strict=True):
            near = self.rules.similarity(item, self.pool.items[user, : self.pool.near])
            np.maximum(self.nearest[user], near, out=self.nearest[user])

    def _scores_of_pins(self) -> np.ndarray:
        """[U, k]."""
        found = np.where(self.pins >= 0, np.nan, -np.inf).astype(self.pool.scores.dtype)
        for place in np.flatnonzero((self.pins >= 0).any(0)):
            user, column = np.nonzero((self.pool.items == self.pins[:, [place]]) & self.early & (self.pool.items >= 0))
            found[user, place] = self.pool.scores[user, column]
        return found


def _relevance(scores: np.ndarray) -> np.ndarray:
    """[U, near] scores brought to 0..1 in each row; 0 where there is no item, and where all are equal."""
    there = np.isfinite(scores)
    low = np.where(there, scores, np.inf).min(1, keepdims=True, initial=np.inf)
    high = np.where(there, scores, -np.inf).max(1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        width = high - low
    width = np.where(width > 0, width, 1)
    return np.where(there, (np.where(there, scores, 0) - np.where(there, low, 0)) / width, 0)
