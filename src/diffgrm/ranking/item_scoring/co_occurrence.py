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
from diffgrm.foundation.sparse import arrays_of, matrix_of, product_of_few
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
        return self.sparse_scores(users, items).toarray()

    def sparse_scores(self, users: Users, items: ScoredItems) -> sp.csr_array:
        """See :meth:`Scorer.sparse_scores`."""
        similarity, neighbours = self.similarity, items.neighbours
        assert similarity is not None and self._strongest is not None
        n_items, histories = len(neighbours.has_events), users.histories
        recent = recency_weights(histories, self.knn.last, self.knn.decay, n_items)
        weights = product_of_few(recent, neighbours.weights)  # [U, J]
        beside = product_of_few(weights, similarity)
        found = sp.csr_array((beside.data, beside.indices, beside.indptr), shape=(len(histories), n_items))
        if not neighbours.has_events.all():
            # what goes with a neighbour by text, and that one itself, as much as its best neighbour does
            itself = sp.csr_array(
                (weights.data * self._strongest[weights.indices], weights.indices, weights.indptr), weights.shape
            )
            found = found + product_of_few(beside + itself, neighbours.borrowers)
        found = found.astype(np.float32)
        highest = np.maximum(found.max(axis=1).toarray().ravel(), np.float32(1e-9))
        found.data /= np.repeat(highest, np.diff(found.indptr))
        return found

    def state(self) -> State:
        """See :meth:`Scorer.state`."""
        found = self.similarity
        assert found is not None
        return State(arrays_of(found), {"items": found.shape[0]})

    def load_state(self, state: State) -> Self:
        """See :meth:`Scorer.load_state`."""
        size = state.facts["items"]
        return self._learnt(matrix_of(state.arrays, (size, size)))
