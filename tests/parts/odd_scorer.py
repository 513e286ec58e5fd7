"""Scorers that say what no list can be made of."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np

from diffgrm.data.ragged import Ragged
from diffgrm.foundation.schema import OnlyWith
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.base import Array, Rescorer, ScoredItems, Scorer, Users

ODD = 3  # the item of which something odd is said


class Odd(Scorer):
    """0 for every item, but for one."""

    def __init__(
        self,
        says: Annotated[Literal["0", "nan", "inf", "-inf", "short", "one", "list"], "of the odd item, or as a whole"] = "0",
        weight: Annotated[float, "what it counts for"] = 1.0,
    ) -> None:
        self.says, self.weight = says, weight

    def scores(self, users: Users, items: ScoredItems) -> Array:
        count = len(items.neighbours.has_events)
        if self.says in ("short", "one", "list"):
            shape = (1, 1 if self.says == "one" else count - 1)
            return [[0.0] * count] if self.says == "list" else np.zeros(shape, dtype=np.float32)
        said = np.zeros((1, count), dtype=np.float32)
        said[0, ODD] = float(self.says)
        return said


class Choosy(Odd):
    """The same, with a weight that counts beside one saying only."""

    only_with: ClassVar[OnlyWith] = (("weight", "says", ("nan",)),)


class Weightless(Scorer):
    """Forgets what it counts for."""

    def scores(self, users: Users, items: ScoredItems) -> Array:
        raise AssertionError("it is refused before it is asked")


class Learnt(Scorer):
    """Counts events, and learns what those count for."""

    def fit(self, events: Ragged, n_items: int) -> Learnt:
        self.counts = np.bincount(events.values, minlength=n_items).astype(np.float32)
        self.weight = 1 / int(events.lengths.max())
        return self

    def scores(self, users: Users, items: ScoredItems) -> Array:
        return self.counts[None]

    def state(self) -> State:
        return State({"counts": self.counts}, {"weight": self.weight})

    def load_state(self, state: State) -> Learnt:
        self.counts, self.weight = state.arrays["counts"], state.facts["weight"]
        return self


class Endless(Rescorer):
    """Forgets at how many items it looks again."""

    weight = 1.0

    def rescore(self, users: Users, items: ScoredItems, candidates: Array, scores: Array) -> Array:
        raise AssertionError("it is refused before it is asked")


class NoScorer:
    """Has nothing of a scorer but its weight."""

    weight = 1.0
