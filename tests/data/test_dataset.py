from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgrm.data.dataset import (
    InteractionDataset,
    Ragged,
    leave_one_out,
    validation_only,
)
from diffgrm.data.splits import make_split, temporal
from diffgrm.foundation.schema import DataError
from diffgrm.foundation.sections import DataSettings

ROWS = {"a": "pqrst", "b": "qr", "c": "tsr", "d": "p"}


@pytest.fixture
def dataset() -> InteractionDataset:
    events = [(user, item, 10 * t) for user, row in ROWS.items() for t, item in enumerate(row)]
    table = pl.DataFrame(events, ["user_id", "item_id", "timestamp"], orient="row").sample(fraction=1, shuffle=True, seed=1)
    items = pl.DataFrame({"item_id": list("pqrstu"), "text": [f"item {x}" for x in "pqrstu"]})
    return InteractionDataset.from_tables(table, items)


def spelled(dataset, users, rows) -> dict[str, str]:
    return {user: "".join(dataset.items.ids(rows[i])) for i, user in enumerate(users)}


def test_leave_one_out_keeps_the_last_two_events_apart(dataset):
    split = leave_one_out(dataset)
    assert spelled(dataset, dataset.users.series, split.train) == {"a": "pqr", "b": "qr", "c": "t", "d": "p"}
    assert spelled(dataset, split.validation.user_ids, split.validation.histories) == {"a": "pqr", "c": "t"}
    assert spelled(dataset, split.validation.user_ids, split.validation.targets) == {"a": "s", "c": "s"}
    assert spelled(dataset, split.test.user_ids, split.test.histories) == {"a": "pqrs", "c": "ts"}
    assert spelled(dataset, split.test.user_ids, split.test.targets) == {"a": "t", "c": "r"}
    assert split.item_counts.tolist() == [2, 2, 2, 0, 1, 0]


def test_validation_only_keeps_nothing_for_test(dataset):
    split = validation_only(dataset)
    assert spelled(dataset, dataset.users.series, split.train) == {"a": "pqrs", "b": "q", "c": "ts", "d": "p"}
    assert len(split.test) == 0 and len(split.validation) == 3


def test_a_temporal_split_never_trains_on_what_comes_after_the_cut(dataset):
    split = temporal(dataset, 0.2, 0.2)  # the cuts fall at 20 and 30
    assert spelled(dataset, dataset.users.series, split.train) == {"a": "pq", "b": "qr", "c": "ts", "d": "p"}
    assert spelled(dataset, split.validation.user_ids, split.validation.histories) == {"a": "pq", "c": "ts"}
    assert spelled(dataset, split.validation.user_ids, split.validation.targets) == {"a": "r", "c": "r"}
    assert spelled(dataset, split.test.user_ids, split.test.histories) == {"a": "pqr"}
    assert spelled(dataset, split.test.user_ids, split.test.targets) == {"a": "st"}


def test_a_temporal_split_needs_times():
    events = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "a"]})
    dataset = InteractionDataset.from_tables(events, pl.DataFrame({"item_id": ["a"], "text": ["x"]}))
    with pytest.raises(DataError, match="a temporal split needs a 'timestamp' column"):
        temporal(dataset)
    with pytest.raises(DataError, match="leave nothing to train on"):
        temporal(InteractionDataset.from_tables(events.with_columns(timestamp=1), dataset.item_table), 0.5, 0.5)


def test_a_split_that_leaves_nothing_to_learn_is_refused():
    events = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "a"]})
    dataset = InteractionDataset.from_tables(events, pl.DataFrame({"item_id": ["a"], "text": ["x"]}))
    with pytest.raises(DataError) as error:
        make_split(dataset, DataSettings())
    assert "no user has two training events" in str(error.value)
    assert "no user is left for validation" in str(error.value)


def test_the_catalogue_keeps_the_spelling_of_the_item_table():
    items = pl.DataFrame({"item_id": [7, 8], "text": ["x", "y"]})
    written = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["8", "7"]})
    dataset = InteractionDataset.from_tables(written, items)
    assert dataset.items.ids(dataset.events[0]) == [8, 7]
    with pytest.raises(DataError, match="1 events are of 1 items that the item table does not have: '007'"):
        InteractionDataset.from_tables(written.with_columns(item_id=pl.Series(["8", "007"])), items)


def test_the_event_table_makes_the_same_dataset_again(dataset):
    again = InteractionDataset.from_tables(dataset.event_table(), dataset.item_table)
    rows = spelled(again, again.users.series, again.events)
    assert rows == ROWS


def test_a_sample_of_users_is_drawn_once_and_stays_aligned(dataset):
    test = leave_one_out(dataset).test
    one = test.sample(1, seed=3)
    assert len(one) == 1 and one.user_ids.to_list() == test.sample(1, seed=3).user_ids.to_list()
    place = test.user_ids.to_list().index(one.user_ids[0])
    assert (one.histories[0] == test.histories[place]).all()
    assert test.sample(None, 0) is test


rows_of_numbers = st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=8)


@given(rows_of_numbers, st.data())
def test_ragged_rows_behave_like_lists(rows, data):
    ragged = Ragged.from_lists(rows)
    assert [ragged[i].tolist() for i in range(len(ragged))] == rows
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))
    assert [r.tolist() for r in map(ragged.rows(np.array(chosen, dtype=int)).__getitem__, range(len(chosen)))] == [
        rows[i] for i in chosen
    ]
    count = np.array([data.draw(st.integers(0, len(row))) for row in rows])
    shorter = ragged.part(0, ragged.lengths - count)
    assert [shorter[i].tolist() for i in range(len(rows))] == [
        row[: len(row) - c] for row, c in zip(rows, count, strict=True)
    ]
    odd = ragged.filter(ragged.values % 2 == 1)
    assert [odd[i].tolist() for i in range(len(rows))] == [[v for v in row if v % 2] for row in rows]
    once = ragged.distinct()
    assert [once[i].tolist() for i in range(len(rows))] == [list(dict.fromkeys(row)) for row in rows]
    pairs = list(zip(ragged.values[:-1][ragged.follows()], ragged.values[1:][ragged.follows()], strict=True))
    assert pairs == [pair for row in rows for pair in pairwise(row)]
    width = max(map(len, rows))
    assert ragged.padded(-1).tolist() == [row + [-1] * (width - len(row)) for row in rows]


def test_an_item_met_twice_in_a_window_is_one_target():
    events = pl.DataFrame({"user_id": ["u"] * 10, "item_id": list("aaaaaabccb"), "timestamp": range(10)})
    items = pl.DataFrame({"item_id": list("abc"), "text": list("xyz")})
    split = temporal(InteractionDataset.from_tables(events, items), 0.1, 0.4)
    assert split.test.targets[0].tolist() == [1, 2]


# ---- what was trained on, as one text ---------------------------------------------------------------------------------


def world(rows=ROWS, texts="pqrstu", shuffled=1):
    events = [(user, item, 10 * t) for user, row in rows.items() for t, item in enumerate(row)]
    table = pl.DataFrame(events, ["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": list(texts), "text": [f"item {x}" for x in texts]})
    return InteractionDataset.from_tables(table.sample(fraction=1, shuffle=True, seed=shuffled), items)


def test_the_fingerprint_is_that_of_the_training_events_however_they_stand(dataset):
    wanted = leave_one_out(dataset).fingerprint
    assert len(wanted) == 64 and leave_one_out(world()).fingerprint == wanted
    for other in (
        world(shuffled=7),
        world({"zoe": "pqrst", "b": "qr", "a": "tsr", "9": "p"}),  # other names, so another order of users
        world(texts="utsrqp"),  # another order of items
        world({**ROWS, "a": "pqrut"}),  # other held-out events
        world({**ROWS, "c": "tpu"}),
    ):
        assert leave_one_out(other).fingerprint == wanted


def test_the_fingerprint_changes_with_what_is_trained_on(dataset):
    found = {
        "itself": leave_one_out(dataset),
        "another split": validation_only(dataset),
        "a cut in time": temporal(dataset, 0.2, 0.2),
        "another order": leave_one_out(world({**ROWS, "a": "qprst"})),
        "another item": leave_one_out(world({**ROWS, "a": "pqust"})),
        "an event of another user": leave_one_out(world({**ROWS, "b": "qrp", "d": "pr"})),
        "two users' events changed over": leave_one_out(world({**ROWS, "b": "qp", "d": "r"})),
        "one user less": leave_one_out(world({key: ROWS[key] for key in "abc"})),
        "the same user twice": leave_one_out(world({**ROWS, "e": "p"})),
        "one item more": leave_one_out(world(texts="pqrstuv")),
        "another spelling of an item": leave_one_out(world(texts="pqrstw")),
    }
    assert len({split.fingerprint for split in found.values()}) == len(found)


def test_the_fingerprint_of_ids_that_are_numbers_is_that_of_their_spelling():
    rows = pl.DataFrame({"user_id": ["u"] * 4 + ["v"] * 3, "item_id": [1, 10, 2, 3, 2, 1, 10]})
    items = pl.DataFrame({"item_id": [1, 2, 3, 10], "text": ["a", "b", "c", "d"]})
    as_text = [table.with_columns(pl.col("item_id").cast(pl.String)) for table in (rows, items)]
    found = {leave_one_out(InteractionDataset.from_tables(*tables)).fingerprint for tables in ((rows, items), as_text)}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["10", "b", "9", "a", "100", "ab"], ["9", "a", "b", "10", "ab", "100"]),
        (["item 10", "item 9", "Item 9", "\u00e9"], ["\u00e9", "Item 9", "item 9", "item 10"]),
        ([10, -2, 9, 100], [-2, 9, 10, 100]),
    ],
)
def test_items_are_numbered_in_order_of_their_ids_whatever_the_order_of_the_rows(given, wanted):
    items = pl.DataFrame({"item_id": given, "text": [f"text of {item}" for item in given]})
    events = pl.DataFrame({"user_id": ["u"] * len(given), "item_id": given})
    dataset = InteractionDataset.from_tables(events, items)
    assert dataset.items.series.to_list() == dataset.item_table["item_id"].to_list() == wanted
    assert dataset.item_table["text"].to_list() == [f"text of {item}" for item in wanted]
    assert items["item_id"].gather(dataset.given).to_list() == wanted
    assert dataset.items.ids(dataset.events[0]) == given  # events stand as they did
