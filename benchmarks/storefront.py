"""Tables of a generated storefront of any size, written a block of users at a time.

Items lie in clusters, about as many as the square root of the items. Their texts name a brand, four of their cluster's
twelve words, and five of 20,000 words at large (Zipf). A user is interested in three clusters, of which some are met more
often than others, and meets eight items on average after the first two: the next in the cluster after the one before in two
of five cases, else one of a cluster of interest by popularity (Zipf). So texts, co-occurrence and the order of events all
tell something, a few items are met by many users, and some by nobody.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

WORDS, BRANDS, OWN_WORDS = 20_000, 2_000, 12
INTERESTS, FEWEST, MEAN, MOST = 3, 2, 10, 60  # clusters of a user; events
FOLLOWS = 0.4  # chance that an event is the next item of the cluster
USERS_AT_ONCE = 2**17


def write_storefront(folder: Path, items: int, seed: int = 0) -> None:
    """Write ``items.parquet`` and ``events``, a folder of parts: as many users as items, ten events a user."""
    draw = np.random.default_rng(seed)
    clusters = max(8, round(items**0.5))
    _items(items, clusters, draw).write_parquet(folder / "items.parquet")
    (folder / "events").mkdir(parents=True)
    for part, first in enumerate(range(0, items, USERS_AT_ONCE)):
        users = np.arange(first, min(first + USERS_AT_ONCE, items))
        _events(users, items, clusters, draw).write_parquet(folder / "events" / f"part-{part:05}.parquet")


def _items(items: int, clusters: int, draw: np.random.Generator) -> pl.DataFrame:
    own = draw.integers(0, WORDS, (clusters, OWN_WORDS))[np.arange(items) % clusters]
    chosen = np.take_along_axis(own, draw.integers(0, OWN_WORDS, (items, 4)), 1)
    at_large = (WORDS ** draw.random((items, 5))).astype(np.int64)
    words = pl.DataFrame(np.concatenate([chosen, at_large], 1)).select(pl.format("w{}", pl.all()).name.keep())
    brand = pl.Series(draw.integers(0, BRANDS, items)).cast(pl.String)
    text = pl.concat_str(pl.lit("brand") + brand, *words, separator=" ")
    return pl.select(item_id=pl.format("item {}", pl.int_range(items)), text=text)


def _events(users: np.ndarray, items: int, clusters: int, draw: np.random.Generator) -> pl.DataFrame:
    """Events of some users, in order of user and time; the clusters of interest are met by the root of a uniform number."""
    interests = (clusters * draw.random((len(users), INTERESTS)) ** 2).astype(np.int64)
    length = np.minimum(FEWEST + draw.geometric(1 / (MEAN - FEWEST), len(users)), MOST)
    item, parts = np.zeros(len(users), dtype=np.int64), []
    for step in range(int(length.max())):
        here = np.flatnonzero(length > step)
        size = (items - 1 - (cluster := interests[here, draw.integers(0, INTERESTS, len(here))])) // clusters + 1
        fresh = cluster + clusters * ((size + 1) ** draw.random(len(here)) - 1).astype(np.int64)
        after = item[here] + clusters
        follows = (draw.random(len(here)) < FOLLOWS) & (after < items) & (step > 0)
        item[here] = np.where(follows, after, np.minimum(fresh, items - 1))
        parts.append((here, np.full(len(here), step), item[here]))
    row, step, item = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((step, row))
    row, step, item = row[order], step[order], item[order]
    begun = draw.integers(1_600_000_000, 1_700_000_000, len(users))
    table = pl.DataFrame({"user": users[row], "item": item, "timestamp": begun[row] + 3600 * step})
    ids = {"user_id": pl.format("user {}", "user"), "item_id": pl.format("item {}", "item")}
    return table.select(**ids, timestamp="timestamp")
