"""Whose place a new item takes: the items with events whose texts are nearest to its own.

Items without training events, and those that come later, have no neighbours by co-occurrence and no ID embedding. Both are
borrowed from the items whose texts are nearest.

Letters: I items, J items that were there at fit, N items that come or change, e width of text vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.sparse import arrays_of, matrix_of
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_index import near_rows

NEIGHBOURS = 5  # items of nearest text from which an item without events borrows
SIMILARITIES_AT_ONCE = 2**24  # of texts, which bound the memory
MOST_SIMILARITIES = 2**30  # beyond which texts are looked up, since their number grows with the square of the items
LOOKED_UP = 4  # times as many texts as are needed, which are looked up and then compared


@dataclass(frozen=True)
class TextNeighbours:
    """Which items have events, and from whom the others borrow.

    Attributes:
        weights: [I, J] that add up to 1: of an item with events, itself; of another, those of nearest text; all 0 where no
            text is near or none is known.
        has_events: [I] bool, in training.
    """

    weights: sp.csr_array
    has_events: np.ndarray

    @classmethod
    def fit(cls, events: Ragged, n_items: int, texts: np.ndarray | None) -> TextNeighbours:
        """Learn from the training events of every user.

        Args:
            texts: [J, e] vectors of the items' texts, of length 1; None: nothing is borrowed.
        """
        return cls.of(np.bincount(events.values, minlength=n_items) > 0, texts)

    @classmethod
    def of(cls, has_events: np.ndarray, texts: np.ndarray | None) -> TextNeighbours:
        """The same, of the items that have events [J] bool."""
        found = cls.alone(has_events)
        if texts is None or has_events.all():
            return found
        return found.changed(np.flatnonzero(~has_events), texts[~has_events], texts)

    @classmethod
    def alone(cls, has_events: np.ndarray) -> TextNeighbours:
        """Nobody borrows."""
        return cls(sp.csr_array(sp.diags_array(has_events.astype(np.float32))), has_events)

    @cached_property
    def borrowers(self) -> sp.csr_array:
        """[J, I] the weights from the side of those that are borrowed from, of items without events alone."""
        alone = sp.coo_array(self.weights)
        row, column = alone.coords
        borrows = ~self.has_events[row]
        weights = alone.data[borrows], (column[borrows], row[borrows])
        return sp.coo_array(weights, shape=(self.n_fitted, len(self.has_events))).tocsr()

    @property
    def n_fitted(self) -> int:
        """J, items that were there at fit."""
        return self.weights.shape[1]

    def changed(self, items: np.ndarray, vectors: np.ndarray, texts: np.ndarray) -> TextNeighbours:
        """With other neighbours for items at positions [N] that have no events; the others among them stay as they are.

        Args:
            vectors: [N, e] of their texts; texts: [J or more, e] of all items.
        """
        need = ~self.has_events[items]
        items, vectors = items[need], vectors[need]
        able = np.flatnonzero(self.has_events[: self.n_fitted])
        count = min(NEIGHBOURS, len(able))
        if not len(items):
            return self
        best, weight = _nearest(vectors, texts[able], count)
        weight /= np.maximum(weight.sum(1, keepdims=True), 1e-12)
        kept = self.weights.tocoo()
        old = ~np.isin(kept.coords[0], items)
        row = np.concatenate([kept.coords[0][old], np.repeat(items, count)])
        column = np.concatenate([kept.coords[1][old], able[best].ravel()])
        weight = np.concatenate([kept.data[old], weight.ravel()])
        return replace(self, weights=sp.coo_array((weight, (row, column)), shape=self.weights.shape).tocsr())

    def grown(self, vectors: np.ndarray, texts: np.ndarray | None) -> TextNeighbours:
        """With N more items, of texts ``vectors`` [N, e]; ``texts`` [I, e] of those that were there."""
        count, size = len(vectors), self.weights.shape[0]
        more = sp.csr_array((count, self.n_fitted), dtype=np.float32)
        weights = sp.csr_array(sp.vstack([self.weights, more]))
        found = TextNeighbours(weights, np.concatenate([self.has_events, np.zeros(count, dtype=bool)]))
        return found if texts is None else found.changed(np.arange(size, size + count), vectors, texts)

    def state(self) -> State:
        """All of it as arrays."""
        arrays = {"has_events": self.has_events.astype(np.uint8), **arrays_of(self.weights)}
        return State(arrays, {"items": self.n_fitted})

    @classmethod
    def of_state(cls, state: State) -> TextNeighbours:
        """What :meth:`state` gave.

        Raises:
            ModelFolderError: more items at fit than there are, or a damaged matrix.
        """
        has_events, fitted = state.arrays["has_events"].astype(bool), state.facts["items"]
        if has_events.ndim != 1 or type(fitted) is not int or not 1 <= fitted <= len(has_events):
            raise ModelFolderError(f"neighbours by text of {has_events.shape} items, of which {fitted} were there at fit")
        return cls(matrix_of(state.arrays, (len(has_events), fitted)), has_events)


def _nearest(vectors: np.ndarray, others: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the others [A, e] are nearest to vectors [N, e], and their cosines [N, count], at least 0, largest first.

    Beyond ``MOST_SIMILARITIES`` pairs, those that an index finds are compared; it may miss some of the nearest.
    """
    look_up = len(vectors) * len(others) > MOST_SIMILARITIES
    found = near_rows(vectors, others, LOOKED_UP * count) if look_up else None
    width = len(others) if found is None else found.shape[1] * vectors.shape[1]
    places = np.empty((len(vectors), count), dtype=np.int64)
    cosines = np.empty(places.shape, dtype=np.float32)
    step = max(1, SIMILARITIES_AT_ONCE // max(1, width))
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        if found is None:
            similarity = np.maximum(vectors[part] @ others.T, 0)
            places[part] = _largest(similarity, count)
            cosines[part] = np.take_along_axis(similarity, places[part], 1)
            continue
        some = np.sort(found[part], axis=1)  # of equal ones, the first
        similarity = np.maximum(np.einsum("ne,nce->nc", vectors[part], others[some]), 0)
        similarity[some < 0] = 0
        best = _largest(similarity, count)
        places[part] = np.maximum(np.take_along_axis(some, best, 1), 0)
        cosines[part] = np.take_along_axis(similarity, best, 1)
    return places, cosines


def _largest(similarity: np.ndarray, count: int) -> np.ndarray:
    """[N, count] columns of the largest numbers of each row, none of which is below 0; of equal ones, the first."""
    left, rows = similarity.copy(), np.arange(len(similarity))
    best = np.empty((len(similarity), count), dtype=np.int64)
    for place in range(count):  # a few passes cost much less than sorting
        best[:, place] = left.argmax(axis=1)
        left[rows, best[:, place]] = -1
    return best
