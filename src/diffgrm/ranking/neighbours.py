"""Neighbourhood models: what goes with the items of a history, by co-occurrence or by text. No gradients."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from diffgrm.data.dataset import Ragged
from diffgrm.data.marks import Weights
from diffgrm.foundation.sparse import largest_of_rows

PAIRS_AT_ONCE = 2**24  # of items that users met together, which are compared at once
NeighbourCount = Annotated[int, Field(ge=1), "most similar items kept for each item"]
Shrink = Annotated[float, Field(ge=0), "added to the product of norms, so that few users mean little"]
Last = Annotated[int | None, Field(ge=1), "most recent history items that count; null: all"]
Decay = Annotated[float, Field(gt=0, le=1), "weight of a history item over that of the next newer one"]


def recency_weights(histories: Ragged, last: int | None, decay: float, n_items: int) -> sp.csr_array:
    """[U, I] weight of each item in each user's history: ``decay`` to the number of items after it, 0 beyond ``last``.

    >>> recency_weights(Ragged.from_lists([[0, 2, 1]]), 2, 0.5, 3).toarray().tolist()
    [[0.0, 1.0, 0.5]]
    """
    age = histories.row_index_from_end()
    weight = np.where(age < (last or np.inf), float(decay) ** age, 0.0)
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    return sp.coo_array((weight, (user, histories.values)), shape=(len(histories), n_items)).tocsr()


def _met(rows: Ragged, weights: Weights | None, n_items: int) -> sp.csr_array:
    """[U, I] what each user counts for at each item that they met.

    Args:
        weights: over all training events, of which these are some; None: every user counts 1.
    """
    user = np.repeat(np.arange(len(rows), dtype=np.int32), rows.lengths)  # 32 bits: pairs of items are many
    item = rows.values.astype(np.int32)
    if weights is None:
        met = sp.coo_array((np.ones(len(user)), (user, item)), shape=(len(rows), n_items)).tocsr()
        met.data[:] = 1.0  # however often
        return met
    assert rows.marks.weights is not None
    value = rows.marks.weights / weights.mean
    order = np.lexsort((value, item, user))
    user, item, value = user[order], item[order], value[order]
    last = np.append((user[1:] != user[:-1]) | (item[1:] != item[:-1]), [True] * (len(user) > 0))
    return sp.coo_array((value[last], (user[last], item[last])), shape=(len(rows), n_items)).tocsr()


def _starts(row: np.ndarray, rows: int) -> np.ndarray:
    """[rows + 1] where the numbers of each row begin, by the row of each, in order."""
    return np.searchsorted(row, np.arange(rows + 1))


class ItemKNN:
    """Cosine of co-occurrence: items that the same users met (Sarwar et al., 2001), recent history counting more."""

    def __init__(
        self,
        neighbours: NeighbourCount = 100,
        shrink: Shrink = 20.0,
        last: Last = None,
        decay: Decay = 0.8,
    ) -> None:
        self.neighbours, self.shrink, self.last, self.decay = neighbours, shrink, last, decay

    def fit(self, train: Ragged, n_items: int) -> sp.csr_array:
        """[I, I] similarity of each item (row) to its neighbours.

        Users count 1 for an item, however often they met it; with weights, what their weightiest event of it counts for.
        Where events have types, the row is what was met by any of them and the neighbour what was a target.

        Args:
            train: training events of every user, and their marks.
        """
        weights = Weights.of(train.marks)
        sums, users, learnt_from = [sp.csr_array((n_items, n_items))], np.zeros(n_items), np.zeros(n_items)
        for _, block in train.blocks():
            met, is_target = _met(block, weights, n_items), block.marks.is_target
            learnt = met if is_target is None else _met(block.filter(is_target), weights, n_items)
            sums.append((met.T @ learnt).tocsr())
            users += np.asarray(met.power(2).sum(0)).ravel()
            learnt_from += np.asarray(learnt.power(2).sum(0)).ravel()
            while len(sums) > 1 and 2 * sums[-1].nnz >= sums[-2].nnz:  # so that no pair is added up more than a few times
                sums[-2:] = [sums[-2] + sums[-1]]
        together, norms = sum(reversed(sums[:-1]), sums[-1]), (np.sqrt(users), np.sqrt(learnt_from))
        together.sort_indices()
        cuts = np.flatnonzero(np.diff(together.indptr[1:] // PAIRS_AT_ONCE)) + 1
        blocks = np.split(np.arange(n_items), cuts)
        return sp.csr_array(sp.vstack([self._nearest(items, together[items], *norms) for items in blocks]))

    def _nearest(
        self, items: np.ndarray, together: sp.csr_array, norm: np.ndarray, norm_learnt: np.ndarray
    ) -> sp.csr_array:
        """[N, I] similarity of some items [N] to their nearest, by how many users met both [N, I] and norms [I].

        Of neighbours that are equally near, those that come first are kept.
        """
        row, column = np.repeat(np.arange(len(items)), np.diff(together.indptr)), together.indices
        value = together.data / (norm[items[row]] * norm_learnt[column] + self.shrink)
        other = items[row] != column
        row, column, value = row[other], column[other], value[other]
        best = largest_of_rows(value, _starts(row, len(items)), self.neighbours)
        return sp.csr_array(
            (value[best], column[best], _starts(row[best], len(items)).astype(column.dtype)), shape=together.shape
        )

    def scores(self, histories: Ragged, similarity: sp.csr_array) -> np.ndarray:
        """[U, I] sum over the history of weight times similarity."""
        weights = recency_weights(histories, self.last, self.decay, similarity.shape[0])
        return (weights @ similarity).toarray().astype(np.float32)


class TextKNN:
    """Cosine of item vectors to the recent history's."""

    def __init__(
        self,
        last: Last = 3,
        decay: Decay = 0.7,
    ) -> None:
        self.last, self.decay = last, decay

    def scores(self, histories: Ragged, vectors: np.ndarray) -> np.ndarray:
        """[U, I] weighted mean of cosines; ``vectors`` [I, e] are L2-normalised."""
        weights = recency_weights(histories, self.last, self.decay, len(vectors))
        return ((weights @ vectors) @ vectors.T / weights.sum(1)[:, None]).astype(np.float32)
