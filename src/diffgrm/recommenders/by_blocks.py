"""Recommendations for more users than an answer in memory has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import polars as pl

from diffgrm.data.coding import Events
from diffgrm.ranking.rules import read_rules
from diffgrm.recommenders.answers import check_number
from diffgrm.recommenders.base import Recommender

USERS_AT_ONCE = 2**16


def recommend_blocks(
    recommender: Recommender,
    histories: Any = None,
    k: int = 10,
    *,
    users: Any = None,
    exclude_seen: bool = True,
    only: Any = None,
    without: Any = None,
    rules: Any = None,
    on_empty: Literal["error", "skip"] = "error",
    at: Any = None,
    profiles: Any = None,
    progress: Callable[[int], None] | None = None,
    users_at_once: int = USERS_AT_ONCE,
) -> Iterator[pl.DataFrame]:
    """The rows of ``recommend``, a table for each block of users, an empty one where nobody is left.

    Other arguments and errors are as of :meth:`diffgrm.recommenders.base.Recommender.recommend`.

    Args:
        users_at_once: users of a block.
    """
    check_number(users_at_once, "users_at_once")
    rules = read_rules(rules)
    candidates = recommender.candidates(k, only, without, recommender.item_rules(rules))
    allowed = None if candidates is None else recommender.items.gather(np.flatnonzero(candidates))
    user_ids, positions = recommender.read_histories(histories, users, on_empty, at, profiles)
    for start in range(0, max(len(user_ids), 1), users_at_once):
        block = positions.rows(np.arange(start, min(start + users_at_once, len(user_ids))))
        theirs = Events.known(recommender.items, user_ids[start : start + users_at_once], block)
        yield recommender.recommend(theirs, k, exclude_seen=exclude_seen, only=allowed, rules=rules, progress=progress)
