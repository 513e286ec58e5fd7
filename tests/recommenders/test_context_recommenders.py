"""Models that are told of times, events' columns and users': what they learn by it, and asked in every way."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm import InteractionDataset, Recipe, evaluate, leave_one_out
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
    """Events and users, in which one thing alone decides which half of the items the next one is of."""
    generator = np.random.default_rng(seed)
    rows, plans = [], generator.integers(0, 2, users)
    for user in range(users):
        events = 5 if by == "user" else events  # so few that training meets no history which tells the plan
        now, last_gap, device = int(generator.integers(0, 50)) * 7 * A_DAY, 0, 0
        for number in range(events):
            gap = int(generator.integers(0, 2))
            seconds = {0: int(generator.integers(1, 60)), 1: int(generator.integers(2, 9)) * A_DAY}[gap]
            if by in ("hour", "weekday"):  # a jump to the next day, or hour, of either kind
                whole = A_DAY if by == "hour" else 7 * A_DAY
                kinds = {"hour": (9 * 3600, 21 * 3600), "weekday": (A_DAY, 4 * A_DAY)}[by]
                seconds = whole - now % whole + kinds[gap] + int(generator.integers(0, 3000))
            now += seconds
            decided = {"gap": last_gap, "event": device, "user": plans[user]}.get(by, gap)
            if by == "user" and number < 2:
                decided = generator.integers(0, 2)
            device = int(generator.integers(0, 2))
            item = int(generator.integers(0, HALF)) + HALF * int(decided)
            rows.append((f"u{user}", f"i{item}", now, ("phone", "desktop")[device]))
            last_gap = gap
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "device"], orient="row")
    people = [(f"u{user}", ("free", "paid")[plan]) for user, plan in enumerate(plans)]
    return table, pl.DataFrame(people, schema=["user_id", "plan"], orient="row")


def fitted(events, by="gap", name="sasrec", fit=None, **sections):
    table, people = world(by)
    sections = {"model": NETWORK, "training": TRAINING} | sections if name == "sasrec" else sections
    recipe = Recipe(recommender=name, events=events, **sections)
    told = people if events.get("user_columns") else None
    dataset = InteractionDataset.from_tables(table, ITEMS, events=recipe.events, profiles=told)
    return resolve("recommender", name)(recipe).fit(dataset, progress=False, **(fit or {})), dataset


def found_in_half(recommender, dataset) -> float:
    """The share of test targets among the four best: all of them by who knows which half it is, half of them by chance."""
    split = leave_one_out(dataset)
    found = evaluate(recommender, split.test, dataset.items, split.item_counts, ks=(HALF,))
    return found.metrics[f"recall@{HALF}_unfiltered"]


@pytest.mark.parametrize("by", SWITCHES)
def test_what_decides_alone_is_learnt_with_the_switch_and_not_without(by):
    told, dataset = fitted(SWITCHES[by], by)
    assert found_in_half(told, dataset) > 0.9
    plain, dataset = fitted({}, by)
    assert found_in_half(plain, dataset) < 0.7
