"""Evaluation asks with the very histories of a split, also where reading them as a table would change them."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import InteractionDataset, Recipe, evaluate, leave_one_out
from diffgrm.data.histories import ReadHistories, read_histories
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import resolve

ITEMS = pl.DataFrame({"item_id": list("abcdef"), "text": list("abcdef")})
EVENTS = pl.DataFrame(
    {
        "user_id": ["u"] * 7 + ["v"] * 6,
        "item_id": list("abacabd") + list("ddeafb"),
        "timestamp": [*range(7), *range(6)],
        "visit": ["1", "1", "1", "2", "2", "3", "3", "4", "5", "5", "6", "6", "6"],
        "stars": [5, 2, 3, 4, 5, 2, 3, 3, 3, 5, 4, 2, 4],
    }
)
SETTINGS = {
    "repeats inside sessions": EventSettings(session="visit", history="user", repeats="last"),
    "neighbours inside sessions": EventSettings(session="visit", history="user", repeats="consecutive"),
    "ratings that nobody named": EventSettings(rating="stars", min_rating=2, event_columns={"stars": [4, 5]}),
    "weights that are told too": EventSettings(weight="stars", event_columns={"stars": [4, 5]}),
    "one by one": EventSettings(session="visit"),
}


class Asked:
    """A recommender that keeps what it is asked with."""

    takes_read_histories = True

    def __init__(self, settings):
        self.settings, self.found = settings, []

    def recommend(self, histories, k, *, exclude_seen, **_):
        assert isinstance(histories, ReadHistories)
        users, rows = read_histories(histories, self.items, "error", self.settings)
        self.found.append(rows)
        return pl.DataFrame({"user_id": users, "item_id": ["a"] * len(users), "rank": [1] * len(users)})


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_histories_are_asked_with_as_the_split_has_them(settings):
    data = InteractionDataset.from_tables(EVENTS, ITEMS, events=settings)
    split, asked = leave_one_out(data), Asked(settings)
    asked.items = data.items
    evaluate(asked, split.test, data.items, split.item_counts)
    for rows in asked.found:
        assert rows.values.tolist() == split.test.histories.values.tolist()
        assert rows.offsets.tolist() == split.test.histories.offsets.tolist()
        told = zip(rows.marks.values, split.test.histories.marks.values, strict=True)
        assert all(mine.tolist() == theirs.tolist() for mine, theirs in told)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_events_as_a_table_are_read_again_to_the_same(settings):
    data = InteractionDataset.from_tables(EVENTS, ITEMS, events=settings)
    table = data.event_table()
    assert table.columns[:2] == ["user_id", "item_id"] and len(table) == len(data.events.values)


def test_a_table_without_its_sessions_is_not_folded_across_them():
    settings = SETTINGS["repeats inside sessions"]
    data = InteractionDataset.from_tables(EVENTS, ITEMS, events=settings)
    recommender = resolve("recommender", "item_knn")(Recipe(recommender="item_knn", events=settings.said)).fit(data)
    users, rows = recommender.read_histories(data.event_table().select("user_id", "item_id"))
    assert users.to_list() == data.users.series.to_list() and rows.values.tolist() == data.events.values.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"event": "kind", "targets": ["buy"], "event_columns": {"kind": ["buy"]}}, "which networks know already"),
        ({"event_columns": {"item_id": ["a"]}}, "names 'item_id', which is no column of categories"),
        ({"user_columns": {"user_id": ["u"]}}, "names 'user_id', which is no column of categories"),
    ],
)
def test_columns_that_are_something_else_are_no_categories(settings, message):
    with pytest.raises(ValueError, match=message):
        EventSettings(**settings)
