"""Histories as networks take them, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from diffgrm.data.dataset import Ragged


class Collated(NamedTuple):
    """Padded histories, each distinct item once, and where it stands.

    Attributes:
        items: [M] positions of the distinct items.
        item_index: [B, S] which of them stands where, oldest first, 0 where padded.
        valid: [B, S] bool, false where padded.
    """

    items: np.ndarray
    item_index: np.ndarray
    valid: np.ndarray


def collate(events: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Collated:
    """The stretches ``events[start:stop]``, padded to the longest."""
    column = np.arange(int((stop - start).max(initial=1)))
    valid = column < (stop - start)[:, None]
    items, index = np.unique(events[(start[:, None] + column)[valid]], return_inverse=True)
    item_index = np.zeros(valid.shape, dtype=np.int64)
    item_index[valid] = index
    return Collated(items, item_index, valid)


def in_batches(histories: Ragged, max_len: int, users_at_once: int) -> Iterator[tuple[np.ndarray, Collated]]:
    """Batches of users of similar history length: their row numbers, and the last ``max_len`` items of each."""
    stop = histories.offsets[1:]
    start = np.maximum(histories.offsets[:-1], stop - max_len)
    order = np.argsort(stop - start, kind="stable")
    for first in range(0, len(order), users_at_once):
        users = order[first : first + users_at_once]
        yield users, collate(histories.values, start[users], stop[users])
