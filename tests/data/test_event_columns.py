"""Which rows of a table are events, by type, rating, repeats and session; what is told of those that are none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.data import mapped
from diffgrm.data.blocks import open_rows
from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.events import read_events
from diffgrm.data.histories import HistoryEvent, read_histories
from diffgrm.data.ids import IdMap
from diffgrm.data.reading import ReadingReport
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import DataError, RecipeError

ITEMS = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": ["one", "two", "three", "four"]})
TABLE = pl.DataFrame(
    {
        "user_id": ["u", "u", "v", "u", "v", "u", "v", "w"],
        "item_id": ["a", "b", "a", "b", "c", "b", "c", "d"],
        "timestamp": [1, 2, 3, 4, 5, 6, 7, 8],
        "action": ["view", "view", "buy", "buy", "scroll", "buy", "view", None],
        "stars": [5.0, 3.0, None, 4.0, 5.0, 2.0, 4.0, 5.0],
    }
)


def read(table=TABLE, **chosen) -> InteractionDataset:
    return InteractionDataset.from_tables(table, ITEMS, events=EventSettings(**chosen))


def by_user(dataset: InteractionDataset) -> dict[str, str]:
    """What each user met, a letter an event."""
    rows = dataset.events
    return {user: "".join(dataset.items.ids(rows[number])) for number, user in enumerate(dataset.users.series)}


def test_without_settings_all_rows_are_events_and_the_report_says_so():
    dataset = read()
    assert by_user(dataset) == {"u": "abbb", "v": "acc", "w": "d"}
    assert str(dataset.report) == "8 rows read, 8 kept as events; none dropped"
    assert dataset.events.marks.arrays == []


def test_types_in_neither_list_are_dropped_and_counted():
    dataset = read(event="action", targets=["buy"], context=["view"])
    assert by_user(dataset) == {"u": "abbb", "v": "ac"}
    assert dataset.events.marks.types.tolist() == [1, 1, 0, 0, 0, 1]
    assert str(dataset.report) == (
        "8 rows read, 6 kept as events (buy 3, view 3); dropped: 1 of type null (in neither events.targets nor "
        "events.context); 1 of type scroll (in neither events.targets nor events.context)"
    )
    table = dataset.event_table()
    assert table.columns == ["user_id", "item_id", "action", "timestamp"]
    assert table["action"].to_list() == ["view", "view", "buy", "buy", "buy", "view"]


@pytest.mark.parametrize("stars", ["stars", "words"])
def test_ratings_choose_rows(stars):
    table = TABLE.with_columns(words=pl.col("stars").cast(pl.String))
    dataset = read(table, rating=stars, min_rating=4)
    assert by_user(dataset) == {"u": "ab", "v": "cc", "w": "d"}
    assert dataset.report.dropped == {
        f"without a {stars} (events.rating)": 1,
        f"{stars} below 4.0 (events.min_rating)": 2,
    }


@pytest.mark.parametrize(
    ("repeats", "items", "types"),
    [("keep", "abbb", "1100"), ("first", "abb", "110"), ("last", "abb", "110"), ("consecutive", "abb", "110")],
)
def test_repeats_of_an_item_by_one_type_are_folded(repeats, items, types):
    dataset = read(event="action", targets=["buy"], context=["view"], repeats=repeats)
    assert by_user(dataset)["u"] == items
    assert "".join(map(str, dataset.events.marks.types[: len(items)])) == types
    times = {"keep": [1, 2, 4, 6], "last": [1, 2, 6]}.get(repeats, [1, 2, 4])
    assert dataset.timestamps[: len(items)].tolist() == times
    assert dataset.report.dropped.get(f"repeated (events.repeats={repeats})", 0) == (repeats != "keep")


def test_weights_are_read_beside_their_events():
    dataset = read(TABLE.with_columns(n=pl.Series(range(1, 9))), weight="n", repeats="last")
    assert by_user(dataset) == {"u": "ab", "v": "ac", "w": "d"}
    assert dataset.events.marks.weights.tolist() == [1, 6, 3, 7, 8]


SESSIONS = pl.DataFrame(
    {
        "user_id": ["u", "u", "u", "u", "v", "u"],
        "item_id": ["a", "b", "c", "b", "d", "b"],
        "timestamp": [1, 2, 3, 4, 5, 6],
        "visit": [10, 20, 10, 20, 30, 20],
    }
)


def test_a_session_is_a_history_of_its_own():
    dataset = read(SESSIONS, session="visit")
    found = {user: "".join(dataset.items.ids(dataset.events[row])) for row, user in enumerate(dataset.users.series)}
    assert found == {10: "ac", 20: "bbb", 30: "d"}
    assert by_user(read(SESSIONS.drop("user_id"), session="visit")) == found  # whose they are need not be known


def test_sessions_of_a_user_stand_one_behind_the_other():
    assert by_user(read(SESSIONS, session="visit", history="user")) == {"u": "acbbb", "v": "d"}
    folded = read(SESSIONS.with_columns(item_id=pl.lit("a")), session="visit", history="user", repeats="first")
    assert by_user(folded) == {"u": "aa", "v": "a"}  # repeats are told inside a session


def test_sessions_of_several_users_are_refused():
    with pytest.raises(DataError, match=r"1 sessions of 'visit' \(events.session\) are of several users: 10; make them"):
        read(SESSIONS.with_columns(visit=pl.Series([10, 20, 10, 20, 10, 20])), session="visit")


@pytest.mark.parametrize("users", [["u", None, "u", "u", "v", None], [1.0, None, 1.0, float("nan"), 2.0, None]])
def test_rows_of_a_session_without_a_user_are_of_no_other_user(users):
    dataset = read(SESSIONS.with_columns(user_id=pl.Series(users, strict=False)), session="visit")
    assert dict(zip(dataset.users.series, dataset.events.lengths.tolist(), strict=True)) == {10: 2, 20: 3, 30: 1}


@pytest.mark.parametrize(
    ("table", "chosen", "message"),
    [
        (TABLE, {"event": "actoin", "targets": ["buy"]}, "events.event names the column 'actoin'; did you mean 'action'?"),
        (
            TABLE,
            {"event": "action", "targets": ["bye"], "context": ["view"]},
            "nothing to learn by events.targets: no event is of type 'bye'; did you mean 'buy'",
        ),
        (TABLE, {"rating": "action", "min_rating": 1}, "action is no finite number in 7 rows .*: 'view', 'buy', 'scroll'"),
        (
            TABLE,
            {"weight": "stars"},
            r"stars \(events.weight\) is null, not above 0, or too large in 1 rows \(rows 2\)",
        ),
        (
            TABLE.with_columns(stars=pl.col("stars") - 3),
            {"weight": "stars", "event": "action", "targets": ["view"]},
            r"not above 0, or too large in 1 rows \(rows 1\): 0.0; give every event a positive weight",
        ),
        (TABLE, {"event": "action", "targets": ["buyy"]}, r"no row .* is an event: .*; .* 'buyy'; did you mean 'buy'\?$"),
        (
            TABLE.with_columns(stars=pl.Series([1.0, float("nan"), *[2.0] * (TABLE.height - 2)])),
            {"weight": "stars"},
            r"or too large in 1 rows \(rows 1\): nan; give every event",
        ),
        (TABLE, {"rating": "stars", "min_rating": 9}, "no row of the interaction table is an event: 8 rows read, 0 kept"),
        (TABLE, {"session": "action"}, r"action \(events.session\) is null in 1 rows \(rows 7\); drop or fill them"),
        (
            TABLE.with_columns(action=pl.concat_list("action")),
            {"event": "action", "targets": ["buy"]},
            r"events.event names the column 'action' of type List\(String\); expected one text, number or truth",
        ),
        (
            TABLE.with_columns(action=pl.col("timestamp").cast(pl.Duration("ms"))),
            {"event": "action", "targets": ["buy"]},
            r"'action' of type Duration\(.*\); expected one text, number or truth value a row: make texts or numbers of",
        ),
        (
            TABLE.with_columns(action=pl.struct("action")),
            {"event_columns": {"action": ["buy"]}},
            r"events.event_columns names the column 'action' of type Struct\(.*\); expected one text",
        ),
        (
            TABLE.with_columns(action=pl.col("action").fill_null(" ")),
            {"session": "action", "history": "user"},
            r"action \(events.session\) is empty in 1 rows \(rows 7\); drop or fill them",
        ),
        (TABLE.with_columns(action=pl.col("action").fill_null("")), {"session": "action"}, "is empty in 1 rows"),
        (
            TABLE,
            {"event": "action", "targets": ["buy"], "context": ["view"], "rating": "stars", "min_rating": 4.5},
            r"by events.targets: no event is of type 'buy': all 3 were dropped for their rating \(events.min_rating\)",
        ),
        (TABLE, {"weight": "zzz"}, r"has columns \[.*\], but:\n  - events.weight names the column 'zzz'$"),
        (TABLE, {"session": "action", "history": "user"}, r"action \(events.session\) is null in 1 rows \(rows 7\); drop"),
    ],
)
def test_unusable_columns_are_told(table, chosen, message):
    with pytest.raises(DataError, match=message):
        read(table, **chosen)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("column", "odd", "chosen"),
    [
        ("w", "n/a", {"weight": "w"}),
        ("w", "n/a", {"rating": "w", "min_rating": 0.5}),
        ("user_id", None, {}),
        ("item_id", " ", {}),
        ("timestamp", None, {}),
        ("visit", "x", {"session": "visit"}),
        ("visit", None, {"session": "visit", "history": "user"}),
    ],
)
def test_rows_of_other_types_may_hold_anything(column, odd, chosen, text):
    table = TABLE.with_columns(pl.Series("w", ["1"] * 8), visit=pl.lit("s of ") + pl.col("user_id"))
    table = table.with_columns(timestamp=pl.col("timestamp").cast(pl.String)) if text else table
    dropped = ~pl.col("action").is_in(["buy", "view"]).fill_null(False)
    strange = table.with_columns(pl.when(dropped).then(pl.lit(odd)).otherwise(column).alias(column))
    settings = {"event": "action", "targets": ["buy"], "context": ["view"], **chosen}
    assert by_user(read(strange, **settings)) == by_user(read(table.filter(~dropped), **settings))
    if column == "user_id":
        broken = strange.with_columns(user_id=pl.when(pl.col("item_id") == "a").then(None).otherwise("user_id"))
        with pytest.raises(DataError, match=r"user_id is null in 2 rows \(rows 0, 2\)"):
            read(broken, **settings)
        with pytest.raises(DataError, match=r"user_id is null in 1 rows \(rows 6\)"):
            read(
                strange.with_columns(
                    user_id=pl.when(pl.col("timestamp") == pl.lit(7).cast(table["timestamp"].dtype))
                    .then(None)
                    .otherwise("user_id")
                ),
                **settings,
            )


def test_types_that_no_event_has_are_told(caplog):
    read(event="action", targets=["buy"], context=["scrol"])
    assert "no event is of type 'scrol'; did you mean 'scroll'?" in caplog.text


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"event": "action"}, "events.targets is empty: name the types of events.event to learn, for example"),
        ({"targets": ["buy"]}, r"events.targets = \('buy',\) does nothing without events.event"),
        ({"event": "x", "targets": ["a"], "context": ["a"]}, "events.targets and events.context name 'a' twice"),
        ({"event": "x", "targets": ["a"], "seen": ["b"]}, "events.seen names 'b', which is neither"),
        ({"rating": "stars"}, "events.rating = stars does nothing without events.min_rating; say from which rating on"),
        ({"min_rating": 4}, "events.min_rating = 4.0 does nothing without events.rating; name the column"),
        ({"history": "user"}, "events.history = user does nothing without events.session"),
        ({"weigth": "n"}, "there is no setting 'events.weigth'; did you mean 'weight'"),
    ],
)
def test_settings_that_contradict_or_do_nothing_are_refused(chosen, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(events=chosen)


def test_settings_travel_in_recipes():
    recipe = Recipe(recommender="popularity").override(["events.event=action", "events.targets=[1, buy]"])
    assert recipe.events.types == ("1", "buy")
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_histories_are_read_by_the_same_settings(caplog):
    chosen = EventSettings(event="action", targets=["buy"], context=["view"], rating="stars", min_rating=4, weight="stars")
    ids = IdMap(ITEMS["item_id"])
    users, rows = read_histories(TABLE, ids, "error", chosen)
    assert users.to_list() == ["u", "v"] and [rows[0].tolist(), rows[1].tolist()] == [[0, 1], [2]]
    assert rows.marks.types.tolist() == [1, 0, 1] and rows.marks.weights is None
    assert "Of the histories, 8 rows read, 3 kept as events" in caplog.text
    _, rows = read_histories(TABLE.drop("stars"), ids, "error", chosen)  # as many as were chosen before
    assert rows.values.tolist() == [0, 1, 1, 1, 0, 2]
    with pytest.raises(DataError, match="events.event names the column 'action'"):
        read_histories(TABLE.drop("action"), ids, "error", chosen)
    _, rows = read_histories([["a", "b"], ["c"]], ids, "error", chosen)
    assert rows.marks.types.tolist() == [0, 0, 0]


# ---- tables that are larger than memory ------------------------------------------------------------------------------

CHOICES = [
    {},
    {"event": "action", "targets": ["buy"], "context": ["view"]},
    {"rating": "stars", "min_rating": 3, "weight": "n"},
    {"repeats": "last", "weight": "n"},
    {"session": "visit", "history": "user", "repeats": "first", "event": "action", "targets": ["view"]},
    {"session": "visit", "repeats": "consecutive"},
]


def by_lists(table: pl.DataFrame, chosen: EventSettings) -> dict[str, list[tuple]]:
    """The events of every user as (item, type, weight), read a row at a time."""
    rows: dict = {}
    for row in table.sort("timestamp", maintain_order=True).iter_rows(named=True):
        if chosen.event and row["action"] not in chosen.types:
            continue
        if chosen.rating and (row["stars"] is None or row["stars"] < chosen.min_rating):
            continue
        unit = row["visit"] if chosen.session and chosen.history == "session" else row["user_id"]
        kind = row["action"] if chosen.event else None
        event = (row["visit"] if chosen.session else None, row["item_id"], kind, row["n"] if chosen.weight else None)
        rows.setdefault(unit, []).append(event)
    found = {}
    for unit, events in rows.items():
        if chosen.session:
            order = list(dict.fromkeys(session for session, *_ in events))
            events = sorted(events, key=lambda event: order.index(event[0]))
        alike = [event[:3] for event in events]
        places = range(len(events))
        kept = {
            "keep": list(places),
            "first": [at for at in places if alike[at] not in alike[:at]],
            "last": [at for at in places if alike[at] not in alike[at + 1 :]],
            "consecutive": [at for at in places if at == 0 or alike[at] != alike[at - 1]],
        }[chosen.repeats]
        found[unit] = [events[at][1:] for at in kept]
    return found


@st.composite
def tables(draw) -> pl.DataFrame:
    size = draw(st.integers(1, 30))

    def column(values):
        return draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))

    table = pl.DataFrame(
        {
            "user_id": column(["u", "v", "w"]),
            "item_id": column(["a", "b", "c"]),
            "timestamp": column([1, 2, 3, 4]),
            "action": column(["buy", "view", "scroll", None]),
            "stars": pl.Series(column([2.0, 3.0, None]), dtype=pl.Float64),
            "n": pl.Series(column([1, 2, 3]), dtype=pl.Int64),
            "visit": column(["1", "2"]),
        }
    )
    return table.with_columns(visit=pl.concat_str("user_id", "visit"))


@settings(deadline=None, max_examples=30)
@given(tables(), st.sampled_from(CHOICES), st.integers(1, 7), st.integers(0, 9))
def test_blocks_files_and_the_cache_give_what_a_row_at_a_time_does(table, chosen, block, in_memory):
    chosen, ids = EventSettings(**chosen), IdMap(ITEMS["item_id"])
    wanted = by_lists(table, chosen)
    with tempfile.TemporaryDirectory() as folder, mock.patch.multiple(mapped, BLOCK=block, IN_MEMORY=in_memory):
        for number, part in enumerate(table.iter_slices(7)):
            part.write_parquet(Path(folder) / f"{number}.parquet")
        for _ in range(2):  # from the table, then from the cache
            if not wanted:
                with pytest.raises(DataError, match="no row of the interaction table is an event"):
                    read_events(open_rows(folder), ids, settings=chosen)
                continue
            read = read_events(open_rows(folder), ids, settings=chosen)
            rows, types, weights = read.rows, read.marks.types, read.marks.weights
            found = {}
            for row, unit in enumerate(read.users):
                where = slice(rows.offsets[row], rows.offsets[row + 1])
                kinds = [None] * len(rows[row]) if types is None else [chosen.types[kind] for kind in types[where]]
                counts = [None] * len(rows[row]) if weights is None else weights[where].tolist()
                found[unit] = list(zip(ids.ids(rows[row]), kinds, counts, strict=True))
            assert found == wanted
            assert read.report.kept == len(rows.values) == sum(map(len, wanted.values()))
            assert read.report.rows == table.height
            assert ReadingReport.from_dict(read.report.to_dict()) == read.report
            assert np.array_equal(rows.rows(np.arange(len(rows))).values, rows.values)


def test_lists_may_tell_the_types_of_their_events():
    chosen, ids = EventSettings(event="action", targets=["buy"], context=["view"]), IdMap(ITEMS["item_id"])
    _, rows = read_histories([["a", HistoryEvent("b", "view"), HistoryEvent("c", "buy")]], ids, "error", chosen)
    assert rows.values.tolist() == [0, 1, 2] and rows.marks.types.tolist() == [0, 1, 0]
    with pytest.raises(
        DataError, match=r"^1 events .* tell a type, such as 'view', and the model knows no types .*leave type out$"
    ):
        read_histories([["a", HistoryEvent("b", "view")]], ids, "error")
    with pytest.raises(DataError, match="of the type 'veiw', which the model does not know; did you mean 'view'"):
        read_histories([[HistoryEvent("b", "veiw")]], ids, "error", chosen)
