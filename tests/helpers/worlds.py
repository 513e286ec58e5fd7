"""Worlds in which times, events' columns or users' columns decide what comes next."""

from __future__ import annotations

import numpy as np
import polars as pl

from diffgrm import InteractionDataset, Recipe
from diffgrm.data.histories import HistoryEvent
from diffgrm.foundation.registry import resolve

ITEMS = pl.DataFrame({"item_id": [f"i{n}" for n in range(8)], "text": [f"thing number {n}" for n in range(8)]})
HALF = 4  # items of either kind
A_DAY = 86400
NETWORK = {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32, "max_len": 6, "dropout": 0.0}
TRAINING = {"batch_size": 64, "epochs": 6, "learning_rate": 0.02, "warmup_steps": 5, "patience": 6}
SWITCHES = {
    "gap": {"time_inputs": ["gap"]},
    "recency": {"time_inputs": ["recency"]},
    "hour": {"time_inputs": ["hour"]},
    "weekday": {"time_inputs": ["weekday"]},
    "event": {"event_columns": {"device": ["phone", "desktop"]}},
    "user": {"user_columns": {"plan": ["free", "paid"]}},
}
EVERYTHING = {
    "time_inputs": ["gap", "recency", "hour", "weekday"],
    **SWITCHES["event"],
    **SWITCHES["user"],
}


def world(by: str, users: int = 150, events: int = 7, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and users, in which one thing alone decides which half of the items the next one is of.

    Where it is the user, there are so few events that training meets no history by which a user could be told.
    """
    generator = np.random.default_rng(seed)
    rows, plans = [], generator.integers(0, 2, users)
    for user in range(users):
        now, last_gap, device = int(generator.integers(0, 50)) * 7 * A_DAY, 0, 0
        for number in range(4 if by == "user" else events):
            gap = int(generator.integers(0, 2))
            now += _seconds(by, gap, now, generator)
            decided = {"gap": last_gap, "event": device, "user": plans[user]}.get(by, gap)
            if by == "user" and number == 0:
                decided = generator.integers(0, 2)
            last_gap, device = gap, int(generator.integers(0, 2))
            item = int(generator.integers(0, HALF)) + HALF * int(decided)
            rows.append((f"u{user}", f"i{item}", now, ("phone", "desktop")[device]))
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "device"], orient="row")
    people = [(f"u{user}", ("free", "paid")[plan]) for user, plan in enumerate(plans)]
    return table, pl.DataFrame(people, schema=["user_id", "plan"], orient="row")


def _seconds(by: str, kind: int, now: int, generator: np.random.Generator) -> int:
    """A stretch of time of one of two kinds: short or long; or to the morning or evening of the next day, or to the second
    or fifth day of the next week."""
    if by not in ("hour", "weekday"):
        return int((generator.integers(1, 60), generator.integers(2, 9) * A_DAY)[kind])
    whole, starts = {"hour": (A_DAY, (9 * 3600, 21 * 3600)), "weekday": (7 * A_DAY, (A_DAY, 4 * A_DAY))}[by]
    return whole - now % whole + starts[kind] + int(generator.integers(0, 3000))


def fitted(events, by="hour", name="sasrec", fit=None, **sections):
    """A recommender that is told of its events as the settings say, and its dataset."""
    table, people = world(by, users=300 if by == "user" else 150)
    sections = {"model": NETWORK, "training": TRAINING} | sections if name == "sasrec" else sections
    recipe = Recipe(recommender=name, events=events, **sections)
    told = people if events.get("user_columns") else None
    dataset = InteractionDataset.from_tables(table, ITEMS, events=recipe.events, profiles=told)
    return resolve("recommender", name)(recipe).fit(dataset, progress=False, **(fit or {})), dataset


def history_of(dataset, user):
    """The events of a user, as a table and as a list."""
    table = dataset.event_table().filter(pl.col("user_id") == user)
    rows = table.select("item_id", "timestamp", "device").iter_rows()
    return table, [HistoryEvent(item, time=time, values={"device": device}) for item, time, device in rows]
