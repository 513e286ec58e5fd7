"""The transition-graph heuristic TGH: what comes soon after the last one or two items, by text. Nothing is trained.

Letters: U users, I items, e width of text vectors, S different items that are gone out from.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from diffgrm.data.dataset import Ragged
from diffgrm.data.marks import Weights

Budget = Annotated[int, Field(ge=1, le=2**16)]


class TransitionGraph:
    """Rings of a graph whose edges lead from each item to those that came next after it in training (arXiv 2605.07125).

    Ring r of an item holds what r steps lead to and no fewer. A ring is in order of the cosine of texts to the item that
    the steps start from; in ring 1, ``edge_weight`` times log(1 + how often the step was taken), over that of the item's
    most frequent step, is added. Each ring has some places of a list of ten: TGH-2, the default, takes two rings of the
    last item and two of the one before; TGH-1 is ``last_rings=[7, 2, 1]`` and ``previous_rings=[]``.

    Our reading: nearer rings come first, and among equal ones the last item's; longer lists go through the rings again for
    their next items; an item that repeats takes no step; what lies in no ring follows by the text of the last item, where
    the authors draw at random.
    """

    def __init__(
        self,
        last_rings: Annotated[
            tuple[Budget, ...], Field(min_length=1, max_length=4), "places of a round for ring 1, 2... of the last item"
        ] = (5, 1),
        previous_rings: Annotated[
            tuple[Budget, ...], Field(max_length=4), "the same of the item before it; []: only the last item is looked at"
        ] = (3, 1),
        edge_weight: Annotated[float, Field(ge=0), "what frequent steps count for in ring 1, beside texts"] = 0.5,
    ) -> None:
        self.last_rings, self.previous_rings, self.edge_weight = last_rings, previous_rings, edge_weight

    def fit(self, train: Ragged, n_items: int) -> sp.csr_array:
        """[I, I] how often each item (column) came next after each (row), by any user, as a target; a repeat is no step.

        Where events have weights, a step counts for that of the event it leads to.
        """
        weights = Weights.of(train.marks)
        kind: type = np.int64 if weights is None else np.float32
        counts = sp.csr_array((n_items, n_items), dtype=kind)
        for _, block in train.blocks():
            moved = np.flatnonzero(block.follows() & (block.values[:-1] != block.values[1:]))
            if (is_target := block.marks.is_target) is not None:
                moved = moved[is_target[moved + 1]]
            worth: np.ndarray = np.ones(len(moved), dtype=kind)
            if weights is not None and block.marks.weights is not None:
                worth = (block.marks.weights[moved + 1] / weights.mean).astype(kind)
            steps = (worth, (block.values[moved], block.values[moved + 1]))
            counts = counts + sp.coo_array(steps, shape=(n_items, n_items)).tocsr()
        return counts

    def scores(self, histories: Ragged, counts: sp.csr_array, vectors: np.ndarray) -> np.ndarray:
        """[U, I] 1 / place in the list that the rings make; below 0 for items in none.

        Args:
            histories: not empty.
            counts: [I, I] of :meth:`fit`.
            vectors: [I, e] of the items' texts, of length 1.
        """
        last = histories.values[histories.offsets[1:] - 1]
        place = self._places(last, self.last_rings, self._starts()[0], counts, vectors)
        longer = np.flatnonzero(histories.lengths > 1)
        if self.previous_rings and len(longer):
            previous = histories.values[histories.offsets[1:][longer] - 2]
            others = self._places(previous, self.previous_rings, self._starts()[1], counts, vectors)
            place[longer] = np.minimum(place[longer], others)
        beyond = (vectors[last] @ vectors.T - 2).astype(np.float32)
        return np.where(np.isfinite(place), 1 / (1 + place), beyond)

    def _starts(self) -> tuple[list[int], list[int]]:
        """In each round, the first place of every ring of the last item, and of the one before."""
        found: tuple[list[int], list[int]] = ([], [])
        place = 0
        for ring in range(max(len(self.last_rings), len(self.previous_rings))):
            for starts, rings in zip(found, (self.last_rings, self.previous_rings), strict=True):
                if ring < len(rings):
                    starts.append(place)
                    place += rings[ring]
        return found

    def _places(
        self, items: np.ndarray, budgets: tuple[int, ...], starts: list[int], counts: sp.csr_array, vectors: np.ndarray
    ) -> np.ndarray:
        """[U, I] place, from 0, that the rings of an item each give to every other one; infinite outside of them."""
        sources, row_of_user = np.unique(items, return_inverse=True)
        row, column, ring = _rings(sources, len(budgets), counts)
        score = (vectors[sources] @ vectors.T)[row, column]
        first = ring == 0
        score[first] += self.edge_weight * _frequency(sources, counts)[row[first], column[first]]
        order = np.lexsort((column, -score, ring, row))
        group = (row * len(budgets) + ring)[order]
        within = np.arange(len(group)) - np.searchsorted(group, group)
        budget, start = np.array(budgets)[ring[order]], np.array(starts)[ring[order]]
        place = np.full((len(sources), counts.shape[0]), np.inf, dtype=np.float32)
        whole = sum(self.last_rings) + sum(self.previous_rings)
        place[row[order], column[order]] = within // budget * whole + start + within % budget
        found: np.ndarray = place[row_of_user]
        return found


def _rings(sources: np.ndarray, depth: int, counts: sp.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row in ``sources``, item and ring, from 0, of everything that up to ``depth`` steps lead to."""
    steps = sp.csr_array((np.ones(counts.nnz, np.float32), counts.indices, counts.indptr), shape=counts.shape)
    ring = np.full((len(sources), counts.shape[0]), depth, dtype=np.int8)
    reached = steps[sources]
    for number in range(depth):
        row, column = reached.nonzero()
        ring[row, column] = np.minimum(ring[row, column], number)
        if number + 1 < depth:
            reached = reached @ steps
            reached.data[:] = 1  # however many ways
    ring[np.arange(len(sources)), sources] = depth
    row, column = np.nonzero(ring < depth)
    return row, column, ring[row, column].astype(np.int64)


def _frequency(sources: np.ndarray, counts: sp.csr_array) -> np.ndarray:
    """[S, I] log(1 + how often a step was taken), over the greatest of its source."""
    found = np.log1p(counts[sources].toarray().astype(np.float32))
    most = found.max(1, keepdims=True, initial=0)
    scaled: np.ndarray = found / np.where(most > 0, most, 1)
    return scaled
