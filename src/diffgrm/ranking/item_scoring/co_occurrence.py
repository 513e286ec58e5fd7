"""What goes with a history by co-occurrence: a second opinion beside a network's item scores. No gradients.

Items with training events have the neighbours of :class:`diffgrm.ranking.neighbours.ItemKNN`; the others borrow them from
the items whose texts are nearest (:class:`TextNeighbours`).
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.sparse import arrays_of, matrix_of
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.base import Array, ScoredItems, Scorer, Users
from diffgrm.ranking.neighbours import Decay, ItemKNN, Last, NeighbourCount, Shrink, recency_weights


class CoOccurrenceScorer(Scorer):
    """From 0 to 1: each user's most similar item has 1; all 0 where nothing is similar."""

    def __init__(
        self,
        weight: Annotated[
            float, Field(ge=0), "what going together with the history's items in training counts for; 0: nothing"
        ] = 1.0,
        neighbours: NeighbourCount = 100,
        shrink: Shrink = 20.0,
        last: Last = None,
        decay: Decay = 0.8,
    ) -> None:
        self.weight, self.knn = weight, ItemKNN(neighbours, shrink, last, decay)
        self.similarity: sp.csr_array | None = None  # [J, J] of each item (row) to its neighbours
        self._strongest: np.ndarray | None = None  # [J] to the nearest one

    def fit(self, events: Ragged, n_items: int) -> Self:
        """See :meth:`Scorer.fit`."""
        return self._learnt(self.knn.fit(events, n_items).astype(np.float32))

    def _learnt(self, similarity: sp.csr_array) -> Self:
        self.similarity, self._strongest = similarity, similarity.max(axis=1).toarray().ravel()
        return self

    def scores(self, users: Users, items: ScoredItems) -> Array:
        """See :meth:`Scorer.scores`."""
        similarity, neighbours = self.similarity, items.neighbours
        assert similarity is not None
        n_items, histories = len(neighbours.has_events), users.histories
        weights = recency_weights(histories, self.knn.last, self.knn.decay, n_items) @ neighbours.weights  # [U, J]
        beside = weights @ similarity
        found = np.zeros((len(histories), n_items), dtype=np.float32)
        found[:, : similarity.shape[0]] = beside.toarray()
        borrowers = np.flatnonzero(~neighbours.has_events)
        if len(borrowers):  # what goes with a neighbour by text, and that one itself, as much as its best neighbour does
            borrowed = beside + weights @ sp.diags_array(self._strongest)
            found[:, borrowers] = (borrowed @ neighbours.weights[borrowers].T).toarray()
        return found / np.maximum(found.max(axis=1, keepdims=True), 1e-9)

    def state(self) -> State:
        """See :meth:`Scorer.state`."""
        found = self.similarity
        assert found is not None
        return State(arrays_of(found), {"items": found.shape[0]})

    def load_state(self, state: State) -> Self:
        """See :meth:`Scorer.load_state`."""
        size = state.facts["items"]
        return self._learnt(matrix_of(state.arrays, (size, size)))
