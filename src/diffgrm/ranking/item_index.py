"""Approximate search for the items of largest inner product with a user's vector, by faiss.

Below some 10^5 items a product with all of them is quick and exact. Above, an index looks at a small part of them: a graph
of near items (HNSW, arXiv 1603.09320) or, in a few bytes an item, lists of quantised vectors (IVF-PQ; Jégou et al., 2011).

Letters: I items, B users, f width, C items that are found.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Literal

import faiss as stubbed
import numpy as np

from diffgrm.foundation.fingerprints import fingerprints
from diffgrm.foundation.top_k import best_places

faiss: Any = stubbed  # whose stubs know neither keyword arguments nor arrays
IndexKind = Literal["hnsw", "ivf_pq"]

GRAPH_NEIGHBOURS, GRAPH_EFFORT = 32, 40  # of HNSW: M, and efConstruction
PIECE = 4  # numbers of a vector that share a byte in IVF-PQ
PROBED = 8  # one in so many lists of IVF-PQ is looked at
REFINED = 3  # times as many items as are asked for, which IVF-PQ gives, since it knows its vectors roughly
ROUNDS, POINTS = 10, 64  # of K-means in IVF-PQ, and points for each of its centres
NEAR_LISTS = 8  # lists that are looked at for the nearest of other rows
LOOKING = 2**16  # rows that look at lists together, which bounds the memory
MOST_CHANGED = 0.01  # share of the items that may come or change before the index is built anew


class ItemIndex:
    """Items by inner product, found without looking at all of them.

    Items that come or change later are looked at one by one (:meth:`changed`), so that a catalogue that grows does not wait
    for a new index. Searches leave the index as it is and may run in several threads.

    Args:
        vectors: [I, f] float32 of all items.
    """

    def __init__(self, kind: IndexKind, vectors: np.ndarray) -> None:
        self.kind, self.n_items = kind, len(vectors)
        self._prints, self._width = fingerprints(vectors), vectors.shape[1]
        self._index, self._seek = _hnsw(vectors) if kind == "hnsw" else _ivf_pq(vectors)
        self._later = np.empty(0, dtype=np.int64)  # positions of items that came or changed since
        self._later_vectors = vectors[:0]

    def changed(self, vectors: np.ndarray) -> ItemIndex | None:
        """The index for other vectors [I', f] of which few differ from those that it was built of; None: too many do."""
        built = len(self._prints)
        if vectors.shape[1] != self._width or len(vectors) < built:
            return None
        differs = np.flatnonzero(fingerprints(vectors[:built]) != self._prints)
        later = np.concatenate([differs, np.arange(built, len(vectors))])
        if len(later) > MOST_CHANGED * built:
            return None
        found = ItemIndex.__new__(ItemIndex)
        vars(found).update(vars(self))
        found.n_items, found._later, found._later_vectors = len(vectors), later, vectors[later]
        return found

    def search(self, users: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Positions [B, C] of items whose inner product with users' vectors [B, f] is large, C at least ``count``, in no
        order; -1 where the search found fewer.

        Args:
            allowed: [I] bool, items that may be found; None is all.
        """
        kept, later = None, self._later
        built = len(self._prints)
        if allowed is not None or (later < built).any():
            kept = np.ones(built, dtype=bool) if allowed is None else allowed[:built].copy()
            kept[later[later < built]] = False
        users = np.ascontiguousarray(users, dtype=np.float32)
        found = self._seek(self._index, users, count, kept)
        if not len(later):
            return found
        scores = users @ self._later_vectors.T
        if allowed is not None:
            scores[:, ~allowed[later]] = -np.inf
        best = best_places(scores, count)
        more = np.where(np.take_along_axis(scores, best, 1) > -np.inf, later[best], -1)
        return np.concatenate([found, more], axis=1)


class KeptIndex:
    """The last index that was built, for whoever asks next: variants of a recommender, and it with other items.

    It may be asked in several threads, of which one builds and the others wait. Copies begin with none.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._index: ItemIndex | None = None

    def of(self, kind: IndexKind, vectors: np.ndarray) -> ItemIndex:
        """An index of vectors [I, f]: the kept one where few of them differ, else a new one."""
        with self._lock:
            kept = self._index
            found = kept.changed(vectors) if kept is not None and kept.kind == kind else None
            if found is None:
                found = self._index = ItemIndex(kind, vectors)
            return found

    def __reduce__(self) -> tuple[type[KeptIndex], tuple[()]]:
        return KeptIndex, ()


def near_rows(vectors: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """Places [N, C] of the other rows [A, f] whose inner products with vectors [N, f] are large, best first; -1 after the
    last that was found. All rows are of length 1.

    The others lie in about as many lists as the square root of A, of which the ``NEAR_LISTS`` nearest are looked at; so the
    work grows with N times that root. It is done list by list, for all that look at one together.
    """
    n_lists, count = int(2 ** max(0, round(np.log2(max(1, len(others))) / 2))), min(count, len(others))
    others, vectors = (np.ascontiguousarray(rows, dtype=np.float32) for rows in (others, vectors))
    lists = faiss.IndexFlatIP(others.shape[1])
    index = faiss.IndexIVFFlat(lists, others.shape[1], n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = ROUNDS, POINTS, 1
    index.cp.spherical = True
    index.train(others)
    list_of = lists.search(others, 1)[1][:, 0]
    order = np.argsort(list_of, kind="stable")
    members = np.split(order, np.searchsorted(list_of[order], np.arange(1, n_lists)))
    blocks = range(0, len(vectors), LOOKING)
    found = [_near_rows(vectors[start : start + LOOKING], others, lists, members, count) for start in blocks]
    return np.concatenate([np.empty((0, count), dtype=np.int64), *found])


def _near_rows(vectors: np.ndarray, others: np.ndarray, lists: Any, members: list[np.ndarray], count: int) -> np.ndarray:
    """[N, count] as :func:`near_rows`, by the places of the others in each list."""
    probed = lists.search(vectors, min(NEAR_LISTS, len(members)))[1]
    places: np.ndarray = np.full((*probed.shape, count), -1, dtype=np.int64)
    cosines: np.ndarray = np.full(places.shape, -np.inf, dtype=np.float32)
    looks = np.argsort(probed, axis=None, kind="stable")  # by list
    ends = np.searchsorted(probed.ravel()[looks], np.arange(len(members) + 1))
    for number, rows in enumerate(members):
        row, slot = np.divmod(looks[ends[number] : ends[number + 1]], probed.shape[1])
        if not len(row) or not len(rows):
            continue
        kept = min(count, len(rows))
        cosine, best = faiss.knn(vectors[row], others[rows], kept, metric=faiss.METRIC_INNER_PRODUCT)
        places[row, slot, :kept], cosines[row, slot, :kept] = rows[best], cosine
    places, cosines = places.reshape(len(places), -1), cosines.reshape(len(places), -1)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(places, best, 1)


def _hnsw(vectors: np.ndarray) -> tuple[Any, Any]:
    index = faiss.IndexHNSWFlat(vectors.shape[1], GRAPH_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = GRAPH_EFFORT
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index, _seek_hnsw


def _seek_hnsw(index: Any, users: np.ndarray, count: int, kept: np.ndarray | None) -> np.ndarray:
    count = min(count, index.ntotal)
    return index.search(users, count, params=faiss.SearchParametersHNSW(efSearch=count, sel=_selector(kept)))[1]


def _ivf_pq(vectors: np.ndarray) -> tuple[Any, Any]:
    """Lists that are about as many as the square root of the items, of which one in ``PROBED`` is looked at."""
    width = -(-vectors.shape[1] // PIECE) * PIECE
    n_lists = int(2 ** max(0, round(np.log2(len(vectors)) / 2)))
    bits = int(min(8, np.log2(len(vectors))))
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, n_lists, width // PIECE, bits, faiss.METRIC_INNER_PRODUCT)
    for clustering in (index.cp, index.pq.cp):
        clustering.niter, clustering.max_points_per_centroid, clustering.min_points_per_centroid = ROUNDS, POINTS, 1
    padded = _widened(vectors, width)
    index.train(padded)
    index.add(padded)
    return index, _seek_ivf_pq


def _seek_ivf_pq(index: Any, users: np.ndarray, count: int, kept: np.ndarray | None) -> np.ndarray:
    probed = max(1, index.nlist // PROBED)
    parameters = faiss.SearchParametersIVF(nprobe=probed, sel=_selector(kept))
    return index.search(_widened(users, index.d), min(REFINED * count, index.ntotal), params=parameters)[1]


def _selector(kept: np.ndarray | None) -> Any:
    return None if kept is None else faiss.IDSelectorBitmap(np.packbits(kept, bitorder="little"))


def _widened(vectors: np.ndarray, width: int) -> np.ndarray:
    """Vectors with zeros behind them, which change no inner product; the same where they are as wide already."""
    if width > vectors.shape[1]:
        vectors = np.pad(vectors, ((0, 0), (0, width - vectors.shape[1])))
    return np.ascontiguousarray(vectors, dtype=np.float32)
