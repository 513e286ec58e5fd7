"""What a result tells of its split, and what leave-one-out lets training see."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm.data.dataset import InteractionDataset, leave_one_out, validation_only
from diffgrm.data.splits import temporal
from diffgrm.evaluation.protocol import protocol, sentences
from diffgrm.foundation.event_settings import EventSettings

ITEMS = pl.DataFrame({"item_id": list("abcd"), "text": list("wxyz")})


def world(times):
    """Users with events at the given times."""
    rows = [(user, "abcd"[n % 4], time) for user, row in times.items() for n, time in enumerate(row)]
    return InteractionDataset.from_tables(pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row"), ITEMS)


def test_what_training_sees_of_the_future_is_counted():
    """Test events at 30 (u), 9 (v) and 50 (w); training at 1, 2 (u), 3 (v), 31 and 45 (w), 60 (x, who is not asked)."""
    split = leave_one_out(world({"u": [1, 2, 5, 30], "v": [3, 4, 9], "w": [31, 45, 46, 50], "x": [60]}))
    found = protocol(split)
    assert found["split"] == "leave_one_out"
    # later than 30: 31, 45, 60; than 9: the same; than 50: 60. Of six training events and three test events.
    assert found["future_seen"] == {"test_events": 1.0, "training_events": pytest.approx(7 / 18)}
    warning = sentences(found)[1]
    assert warning.startswith("Warning: leave-one-out lets a model see other users' future: 100.0% of the test events")
    assert "38.9% of the training events are later" in warning and "data.split=temporal" in warning


def test_shares_are_those_of_a_count_over_pairs():
    generator = np.random.default_rng(1)
    times = {f"u{n}": sorted(generator.integers(0, 99, generator.integers(1, 9)).tolist()) for n in range(30)}
    found = protocol(leave_one_out(world(times)))["future_seen"]
    tests = {user: row[-1] for user, row in times.items() if len(row) >= 3}
    train = [(user, time) for user, row in times.items() for time in (row[:-2] if user in tests else row)]
    later = [[time > moment for _, time in train] for moment in tests.values()]
    assert found["training_events"] == pytest.approx(np.mean(later))
    assert found["test_events"] == pytest.approx(np.mean(np.any(later, axis=1)))


def test_events_that_are_no_targets_are_no_test_events():
    times = {"u": [1, 7, 20, 33], "v": [501, 507, 520, 533]}
    rows = [(user, "abcd"[n], time, "buy") for user, row in times.items() for n, time in enumerate(row)]
    names = ["user_id", "item_id", "timestamp", "kind"]
    bought = EventSettings(event="kind", targets=["buy"], context=["view"])
    tables = [pl.DataFrame(table, names, orient="row") for table in (rows, [*rows, ("u", "a", 9000, "view")])]
    found = [protocol(leave_one_out(InteractionDataset.from_tables(table, ITEMS, events=bought))) for table in tables]
    assert found[0] == found[1] and found[0]["future_seen"]["test_events"] == 0.5


def test_an_order_is_no_clock_and_other_splits_need_no_warning():
    order = world({"u": [0, 1, 2, 3], "v": [0, 1, 2], "w": [5, 6, 7, 8]})
    assert protocol(leave_one_out(order)) == {"split": "leave_one_out"}
    untimed = InteractionDataset.from_tables(order.event_table().drop("timestamp"), ITEMS)
    assert protocol(leave_one_out(untimed)) == {"split": "leave_one_out"}
    clock = world({"u": [0, 5, 9, 30], "v": [1, 2, 40]})
    assert protocol(validation_only(clock)) == {"split": "validation_only"}
    split = temporal(clock, 0.2, 0.3)
    assert protocol(split) == {"split": "temporal", **split.facts}
    assert not any("Warning" in line for line in sentences(protocol(split)))


def test_an_order_of_which_rows_were_left_out_is_no_clock_either():
    rows = [(user, "abcd"[n % 4], n, 5 - n % 3) for user in "uvwxy" for n in range(8)]
    table = pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "stars"], orient="row")
    liked = EventSettings(rating="stars", min_rating=4)
    assert "future_seen" not in protocol(leave_one_out(InteractionDataset.from_tables(table, ITEMS, events=liked)))
    days = table.with_columns(pl.col("timestamp") * 9 + pl.col("user_id").rank("dense").cast(pl.Int64))
    assert "future_seen" in protocol(leave_one_out(InteractionDataset.from_tables(days, ITEMS, events=liked)))


def test_test_events_after_all_training_are_no_leak():
    found = protocol(leave_one_out(world({"u": [0, 2, 50, 60], "v": [1, 5, 50, 70]})))
    assert found["future_seen"] == {"test_events": 0.0, "training_events": 0.0}
    assert len(sentences(found)) == 1
