"""The k best of many scores, which depend on the scores alone."""

from __future__ import annotations

import numpy as np


def best_places(scores: np.ndarray, k: int) -> np.ndarray:
    """Where the k greatest of each row stand, greatest first, equal ones in order of place.

    So the first places are the same whatever k is, and of those that tie for the last place the first ones come in.

    >>> best_places(np.array([[0.0, 2.0, 0.0, 0.0, 3.0]]), 3).tolist()
    [[4, 1, 0]]

    Args:
        scores: [B, M], without NaN.
        k: at least 1.

    Returns:
        [B, min(k, M)].
    """
    if k >= scores.shape[1]:
        return _greatest_first(scores)
    places = np.argpartition(scores, -k, axis=1)[:, -k:]
    found = np.take_along_axis(scores, places, 1)
    last = found.min(axis=1)
    tied = scores == last[:, None]
    more = np.count_nonzero(tied, axis=1) > np.count_nonzero(found == last[:, None], axis=1)  # that tie than came in
    for row in np.flatnonzero(more):
        above = places[row, found[row] > last[row]]
        places[row, len(above) :] = np.flatnonzero(tied[row])[: k - len(above)]
        places[row, : len(above)] = above
    places.sort(axis=1)
    return np.take_along_axis(places, _greatest_first(np.take_along_axis(scores, places, 1)), 1)


def _greatest_first(scores: np.ndarray) -> np.ndarray:
    """The order of each row, equal scores as they stand.

    A sort that keeps the order of equal numbers takes some four times as long: only rows that have any get one.
    """
    order = np.argsort(-scores, axis=1)
    ordered = np.take_along_axis(scores, order, 1)
    ties = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    order[ties] = np.argsort(-scores[ties], axis=1, kind="stable")
    return order
