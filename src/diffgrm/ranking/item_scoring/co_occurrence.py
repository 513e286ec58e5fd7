"""What goes with a history by co-occurrence, as a second opinion beside a network's item scores (floor 3). No gradients.

Items with training events have the neighbours of :class:`diffgrm.ranking.neighbours.ItemKNN`. Those without, and those that
come later, borrow them from the items whose texts are nearest.

Letters: U users, I items, J items that were there at fit, e width of text vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.storage import State
from diffgrm.ranking.neighbours import ItemKNN, recency_weights

LENDERS = 5  # items of nearest text from which an item without events borrows
ROWS = 1024  # items whose nearest texts are sought at once


@dataclass(frozen=True)
class CoOccurrence:
    """Similarities of items with events, and from whom the others borrow.

    Attributes:
        similarity: [J, J] of each item (row) to its neighbours.
        lenders: [I, J] weights that add up to 1: of an item with events, itself; of another, those of nearest text; all 0
            where no text is near or none is known.
        own: [I] bool, whether an item has events.
    """

    similarity: sp.csr_array
    lenders: sp.csr_array
    own: np.ndarray

    @classmethod
    def fit(cls, train: Ragged, n_items: int, texts: np.ndarray | None) -> CoOccurrence:
        """Learn from the training events of every user.

        Args:
            texts: [J, e] vectors of the items' texts, of length 1; None: nothing is lent.
        """
        own = np.bincount(train.values, minlength=n_items) > 0
        lenders = sp.csr_array(sp.diags_array(own.astype(np.float32)))
        found = cls(ItemKNN().fit(train, n_items).astype(np.float32), lenders, own)
        return found if texts is None or own.all() else found.lent(np.flatnonzero(~own), texts[~own], texts)

    def lent(self, items: np.ndarray, vectors: np.ndarray, texts: np.ndarray) -> CoOccurrence:
        """With other lenders for items at positions [N] that have no events; the others among them stay as they are.

        Args:
            vectors: [N, e] of their texts; texts: [J or more, e] of all items.
        """
        need = ~self.own[items]
        items, vectors = items[need], vectors[need]
        able = np.flatnonzero(self.own[: self.similarity.shape[0]])
        count = min(LENDERS, len(able))
        rows, columns, weights = [], [], []
        for start in range(0, len(items), ROWS):
            likeness = np.maximum(vectors[start : start + ROWS] @ texts[able].T, 0)
            best = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
            weight = np.take_along_axis(likeness, best, 1)
            weight /= np.maximum(weight.sum(1, keepdims=True), 1e-12)
            rows.append(np.repeat(items[start : start + ROWS], count))
            columns.append(able[best].ravel())
            weights.append(weight.ravel())
        if not rows:
            return self
        kept = self.lenders.tocoo()
        old = ~np.isin(kept.coords[0], items)
        row = np.concatenate([kept.coords[0][old], *rows])
        column, weight = np.concatenate([kept.coords[1][old], *columns]), np.concatenate([kept.data[old], *weights])
        return replace(self, lenders=sp.coo_array((weight, (row, column)), shape=self.lenders.shape).tocsr())

    def grown(self, vectors: np.ndarray, texts: np.ndarray | None) -> CoOccurrence:
        """With N more items, of texts ``vectors`` [N, e]; ``texts`` [I, e] of those that were there."""
        count, size = len(vectors), self.lenders.shape[0]
        more = sp.csr_array((count, self.lenders.shape[1]), dtype=np.float32)
        lenders = sp.csr_array(sp.vstack([self.lenders, more]))
        found = replace(self, lenders=lenders, own=np.concatenate([self.own, np.zeros(count, dtype=bool)]))
        return found if texts is None else found.lent(np.arange(size, size + count), vectors, texts)

    def scores(self, histories: Ragged) -> np.ndarray:
        """[U, I] float32 from 0 to 1, the most similar item of each user having 1; all 0 where nothing is similar."""
        weights = recency_weights(histories, None, ItemKNN().decay, len(self.own)) @ self.lenders  # [U, J]
        beside = weights @ self.similarity
        found = np.zeros((len(histories), len(self.own)), dtype=np.float32)
        found[:, : self.similarity.shape[0]] = beside.toarray()
        borrowers = np.flatnonzero(~self.own)
        if len(borrowers):  # what goes with a lender, and the lender itself, as much as its best neighbour does
            strongest = self.similarity.max(axis=1).toarray().ravel()
            lent = beside + weights @ sp.diags_array(strongest)
            found[:, borrowers] = (lent @ self.lenders[borrowers].T).toarray()
        return found / np.maximum(found.max(axis=1, keepdims=True), 1e-9)

    def state(self) -> State:
        """All of it as arrays."""
        arrays = {"own": self.own.astype(np.uint8)}
        for name, matrix in (("similarity", self.similarity), ("lenders", self.lenders)):
            arrays |= {f"{name}.{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        return State(arrays, {"items": self.similarity.shape[0]})

    @classmethod
    def of_state(cls, state: State) -> CoOccurrence:
        """What :meth:`state` gave."""
        size, own = state.facts["items"], state.arrays["own"].astype(bool)

        def matrix(name: str, rows: int) -> sp.csr_array:
            parts = tuple(state.arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
            return sp.csr_array(parts, shape=(rows, size))

        return cls(matrix("similarity", size), matrix("lenders", len(own)), own)
