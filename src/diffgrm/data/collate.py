"""Histories as networks take them, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from diffgrm.data.context import Context
from diffgrm.data.ragged import Ragged


class Collated(NamedTuple):
    """Padded histories, each distinct item once, and where it stands.

    Attributes:
        items: [M] positions of the distinct items.
        item_index: [B, S] which of them stands where, oldest first, 0 where padded.
        valid: [B, S] bool, false where padded.
        types: [M] numbers of their event types: an item that was met in two ways is there twice; None: events have none.
        context: [B, S, C] what is told of each place besides (:class:`diffgrm.data.context.Context`), 0 where padded; None:
            nothing.
    """

    items: np.ndarray
    item_index: np.ndarray
    valid: np.ndarray
    types: np.ndarray | None = None
    context: np.ndarray | None = None


def collate(
    events: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    types: np.ndarray | None = None,
    context: Context | None = None,
) -> Collated:
    """The stretches ``events[start:stop]``, padded to the longest.

    Args:
        types: of all events, where they are told.
        context: of the histories that they are stretches of, where it is told.
    """
    column = np.arange(int((stop - start).max(initial=1)))
    valid = column < (stop - start)[:, None]
    place, kinds = (start[:, None] + column)[valid], None
    if types is None:
        items, index = np.unique(events[place], return_inverse=True)
    else:
        count = int(types[place].max(initial=0)) + 1
        pairs, index = np.unique(events[place] * count + types[place], return_inverse=True)
        items, kinds = pairs // count, pairs % count
    item_index = np.zeros(valid.shape, dtype=np.int64)
    item_index[valid] = index
    told = None if context is None else context.at(start, stop)
    places = None if told is None else np.zeros((*valid.shape, told.shape[1]), np.int64)
    if places is not None:
        places[valid] = told
    return Collated(items, item_index, valid, kinds, places)


def in_batches(
    histories: Ragged, max_len: int, users_at_once: int, causal: bool = False
) -> Iterator[tuple[np.ndarray, Collated]]:
    """Batches of users of similar history length: their row numbers, and the last ``max_len`` items of each.

    Args:
        causal: whether the network that is told of times is; see :class:`diffgrm.data.context.Context`.
    """
    context = Context.of(histories, causal)
    stop = histories.offsets[1:]
    start = np.maximum(histories.offsets[:-1], stop - max_len)
    order = np.argsort(stop - start, kind="stable")
    for first in range(0, len(order), users_at_once):
        users = order[first : first + users_at_once]
        yield users, collate(histories.values, start[users], stop[users], histories.marks.inputs, context)
