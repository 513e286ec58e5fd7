"""The order and the repeats of users' events: sessions one behind the other, and what stands for several alike."""

from __future__ import annotations

import numpy as np

from diffgrm.foundation.event_settings import EventSettings


def folded(
    owners: np.ndarray, items: np.ndarray, types: np.ndarray | None, sessions: np.ndarray | None, settings: EventSettings
) -> np.ndarray:
    """Places of the events that stay, in their new order; ``owners`` does not fall, and its users stay in order.

    With sessions, those of a user stand one behind the other in order of their first events, and repeats are told inside
    a session only.

    Args:
        owners, items, types, sessions: [N] numbers of each event, a user's oldest first; None where there are none.

    >>> owners, items = np.array([0, 0, 0, 1]), np.array([5, 6, 5, 5])
    >>> folded(owners, items, None, None, EventSettings(repeats="last")).tolist()
    [1, 2, 3]
    >>> folded(owners, items, None, np.array([8, 9, 8, 8]), EventSettings()).tolist()
    [0, 2, 1, 3]
    """
    units, order = owners, np.arange(len(owners))
    if sessions is not None:
        units = _first_alike([owners, sessions])
        order = np.argsort(units, kind="stable")
    if settings.repeats == "keep":
        return order
    keys = [column[order] for column in (units, items, types) if column is not None]
    return order[_kept(keys, settings.repeats)]


def _first_alike(keys: list[np.ndarray]) -> np.ndarray:
    """[N] the first place of each combination of keys."""
    order = np.lexsort([np.arange(len(keys[0])), *keys])
    first = np.maximum.accumulate(np.where(_changes(keys, order), np.arange(len(order)), 0))
    found = np.empty(len(order), np.int64)
    found[order] = order[first]
    return found


def _kept(keys: list[np.ndarray], repeats: str) -> np.ndarray:
    """[N] bool, of events that are alike in all keys the ones that stay."""
    places = np.arange(len(keys[0]))
    if repeats == "consecutive":
        return _changes(keys, places)
    if repeats == "first":
        return _first_alike(keys) == places
    return _first_alike([key[::-1] for key in keys])[::-1] == places[::-1]


def _changes(keys: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    """[N] bool, whether what stands at a place in an order differs from what stands before it."""
    changed = np.ones(len(order), dtype=bool)
    if len(order):
        changed[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    return changed
