"""What lists are worth besides being right: how unlikely their items are, and how unlike each other.

Letters: L lists, k their length, I items, f features of texts. Lists hold item positions, -1 in unused places.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def self_information(item_counts: np.ndarray) -> np.ndarray:
    """[I] bits that one event of each item tells: -log2 of its share of the training events (Zhou et al., 2010).

    Items without events count as if they had one, which is our reading.

    >>> self_information(np.array([2, 1, 1, 0])).tolist()
    [1.0, 2.0, 2.0, 2.0]
    """
    return -np.log2(np.maximum(item_counts, 1) / max(item_counts.sum(), 1))


def novelty(lists: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Novelty [L]: mean self-information of a list's items; 0 of an empty one.

    >>> novelty(np.array([[0, 1], [2, -1]]), np.array([1.0, 2.0, 4.0])).tolist()
    [1.5, 4.0]
    """
    used = lists >= 0
    told = np.where(used, information[np.maximum(lists, 0)], 0.0)
    found: np.ndarray = told.sum(1) / np.maximum(used.sum(1), 1)
    return found


def diversity(lists: np.ndarray, vectors: sp.csr_array) -> np.ndarray:
    """Intra-list diversity [L]: 1 - cosine, mean over a list's pairs (Ziegler et al., 2005); NaN of fewer than two items.

    >>> diversity(np.array([[0, 1], [0, 2], [1, -1]]), sp.csr_array(np.array([[1.0, 0], [0, 1], [1, 0]]))).tolist()
    [1.0, 0.0, nan]

    Args:
        vectors: [I, f] rows of length 1, or 0 of items that are like none.
    """
    row, column = np.nonzero(lists >= 0)
    held = lists[row, column]
    count = np.bincount(row, minlength=len(lists))
    members = sp.coo_array((np.ones(len(row)), (row, held)), shape=(len(lists), vectors.shape[0])).tocsr()
    sums = members @ vectors  # of squared length: what all pairs' cosines add up to, and every item's with itself
    alone = np.bincount(row, weights=np.asarray(vectors.multiply(vectors).sum(1)).ravel()[held], minlength=len(lists))
    pairs = np.asarray(sums.multiply(sums).sum(1)).ravel() - alone
    return np.where(count > 1, 1 - pairs / np.maximum(count * (count - 1), 1), np.nan)
