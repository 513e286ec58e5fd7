"""A second look at the best hundred: less of what everybody buys."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.base import Array, Rescorer, ScoredItems, Users, as_numpy


class LessPopular(Rescorer):
    """Lowers each candidate by the log of its training events."""

    def __init__(
        self,
        weight: Annotated[float, "what the second look counts for"] = 1.0,
        candidates: Annotated[int, Field(ge=1), "items that are looked at again"] = 100,
    ) -> None:
        self.weight, self.candidates = weight, candidates
        self.events = np.zeros(0, dtype=np.float32)

    def fit(self, events: Ragged, n_items: int) -> Self:
        self.events = np.bincount(events.values, minlength=n_items).astype(np.float32)
        return self

    def rescore(self, users: Users, items: ScoredItems, candidates: Array, scores: Array) -> Array:
        events = np.append(self.events, np.float32(0))  # of items that came later, and of no item
        return -np.log1p(events[np.minimum(as_numpy(candidates), len(self.events))])

    def state(self) -> State:
        return State({"events": self.events})

    def load_state(self, state: State) -> Self:
        self.events = state.arrays["events"]
        return self
