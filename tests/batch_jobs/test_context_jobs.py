"""Batch jobs for models that are told times and columns of events and users: their lists are those of ``recommend``."""

from __future__ import annotations

import json

import polars as pl
import pytest

from diffgrm import InteractionDataset, PopularityRecommender, Recipe, load
from diffgrm.apps.batch_jobs import recommend_batch, recommending
from diffgrm.apps.batch_jobs.engine import Worker
from diffgrm.apps.batch_jobs.parquet import cut, planned
from diffgrm.apps.batch_jobs.user_events import BringTogether, EventTable, Parts, events_of_bucket, histories_of
from diffgrm.data.histories import read_histories
from diffgrm.data.ids import IdMap
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, DiffGRMError
from helpers.batch_jobs import check_same_lists, in_this_process, lists, write_parts
from helpers.commands import called
from helpers.worlds import EVERYTHING, ITEMS, TRAINING, fitted, world

LATE = "2030-01-05T21:00:00"
TABLE, PEOPLE = world("hour")
PLACES = pl.concat([ITEMS, pl.DataFrame({"item_id": ["nowhere"], "text": ["no thing"]})])
OTHERS = pl.DataFrame({"user_id": ["u3", "u5", "new"], "plan": ["paid", "free", "paid"]})
SHORT = TRAINING | {"epochs": 1}
WITH_NEW = pl.concat([TABLE, TABLE[:3].with_columns(user_id=pl.lit("new"), item_id=pl.Series(["i1", "nowhere", "i2"]))])


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(recommending, "engine", in_this_process)
    monkeypatch.setattr(recommending, "PIECE", 400)  # so that users' events lie in several pieces


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return fitted(EVERYTHING, training=SHORT)[0].save(tmp_path_factory.mktemp("models") / "told")


@pytest.fixture
def table(tmp_path):
    return write_parts(tmp_path / "events", WITH_NEW.sample(fraction=1, shuffle=True, seed=1), [3, 500, 100])


def ask(model, table, out, **settings):
    return recommend_batch(model, table, out, 8, batch_size=11, partitions=5, progress=False, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"at": LATE},
        {"profiles": OTHERS},
        {"at": 1_900_000_000, "profiles": {"u3": {"plan": "paid"}, "new": {"plan": None}}, "exclude_seen": False},
    ],
)
def test_lists_are_those_of_recommend(model, table, tmp_path, settings):
    done = ask(model, table, tmp_path / "out", **settings)
    wanted = load(model).recommend(table, 8, on_empty="skip", **settings)
    check_same_lists(lists(tmp_path / "out"), wanted)
    assert done["users"] == 151 and done["events_of_unknown_items"] == 1
    for name in ("at", "profiles"):
        assert (name in done) == (name in settings)
    assert done.get("at") in (None, f"{LATE}+00:00", "2030-03-17T17:46:40+00:00")
    if settings:
        assert not wanted.equals(load(model).recommend(table, 8, exclude_seen=settings.get("exclude_seen", True)))
    if "profiles" in settings:
        assert done["users_with_profile"] == len(settings["profiles"])


@pytest.mark.parametrize("times", ["datetimes", "milliseconds", "texts"])
def test_times_may_be_written_otherwise(times, tmp_path):
    moments = pl.from_epoch("timestamp", "s")
    written = {
        "datetimes": moments,
        "milliseconds": pl.col("timestamp") * 1000,
        "texts": moments.dt.strftime("%Y %j %H:%M:%S"),
    }
    unit, style = "ms" if times == "milliseconds" else "s", "%Y %j %H:%M:%S" if times == "texts" else None
    settings = EventSettings(**EVERYTHING, time_unit=unit)
    events = TABLE.with_columns(timestamp=written[times]).rename({"timestamp": "when"})
    items, parts = IdMap(pl.Series("item_id", [f"i{n}" for n in range(8)])), Parts(tmp_path / "own", tmp_path / "own")
    found, footers = EventTable.at(write_parts(tmp_path / "e", events, [300]), {"timestamp": "when"}, style, settings)
    pieces = planned(cut(footers.rows, 4))
    write = BringTogether(found, pieces, 1, False, parts).ready()
    for number in range(len(pieces)):
        write(number)
    ours = histories_of(events_of_bucket(parts, len(pieces), 0, True), items, found.settings, None)
    check_same_histories(ours, TABLE, items, EventSettings(**EVERYTHING))


def check_same_histories(ours, table, items, settings):
    users, theirs = read_histories(table, items, "skip", settings)
    assert ours.users.equals(users) and ours.rows.offsets.tolist() == theirs.offsets.tolist()
    for one, other in zip([ours.items, *ours.marks.arrays], [theirs.values, *theirs.marks.arrays], strict=True):
        assert one.dtype == other.dtype and one.tolist() == other.tolist()


KINDS = {"event": "kind", "targets": ["buy"], "context": ["view"]}
VISITS = TABLE.with_columns(
    kind=pl.Series(["buy", "view", "scroll", "buy", "view"] * 210),
    stars=pl.Series([5.0, None, 2.0, 4.0, 3.0, 1.0, 5.0] * 150),
    visit=pl.col("user_id") + pl.Series(["a", "b", "a"] * 350),
    item_id=pl.when(pl.int_range(pl.len()) % 11 == 0).then(pl.lit("nowhere")).otherwise("item_id"),
)


@pytest.mark.parametrize(
    "events",
    [
        KINDS,
        KINDS | {"repeats": "last", "event_columns": {"device": ["phone"]}},
        {"rating": "stars", "min_rating": 3, "weight": "stars"},
        {"repeats": "first", "time_inputs": ["gap"]},
        {"repeats": "consecutive"},
        {"session": "visit"},
        {"session": "visit", "history": "user"},
        {"session": "visit", "history": "user", "repeats": "first", **KINDS},
    ],
    ids=lambda events: " ".join(events),
)
def test_events_are_chosen_folded_and_put_in_order_as_in_one_reading(events, tmp_path):
    items, parts = IdMap(pl.Series("item_id", [f"i{n}" for n in range(8)])), Parts(tmp_path / "own", tmp_path / "own")
    settings, files = Recipe(events=events).events, write_parts(tmp_path / "e", VISITS, [300, 10, 400])
    found, footers = EventTable.at(files, {}, None, settings)
    pieces = planned(cut(footers.rows, 4))
    write = BringTogether(found, pieces, 1, False, parts).ready()
    for number in range(len(pieces)):
        write(number)
    mine = events_of_bucket(parts, len(pieces), 0, True, found.settings)
    known = mine.filter(pl.col("item_id") != "nowhere")
    check_same_histories(histories_of(known, items, found.settings, None), VISITS, items, settings)


def test_jobs_choose_events_as_recommend_does_and_tell_what_they_drop(tmp_path, caplog):
    events = KINDS | {"repeats": "last", "seen": ["buy"]}
    table = VISITS.filter(pl.col("item_id") != "nowhere")
    recipe = Recipe(recommender="popularity", events=events)
    model = PopularityRecommender(recipe).fit(
        InteractionDataset.from_tables(table, ITEMS, events=recipe.events), progress=False
    )
    folder = model.save(tmp_path / "model")
    files = write_parts(tmp_path / "events", table, [300])
    with caplog.at_level("WARNING"):
        done = ask(folder, files, tmp_path / "out")
    wanted = load(folder).recommend(table, 8)
    check_same_lists(lists(tmp_path / "out"), wanted)
    viewed, bought = (table.filter(pl.col("kind") == kind) for kind in ("view", "buy"))
    by = ["user_id", "item_id"]
    assert wanted.join(viewed, by, "semi").height and not wanted.join(bought, by, "semi").height
    scrolled = table["kind"].to_list().count("scroll")
    folded = table.filter(pl.col("kind") != "scroll").unique(["user_id", "item_id", "kind"]).height
    assert done["dropped"] == {
        "of type scroll (in neither events.targets nor events.context)": scrolled,
        "repeated (events.repeats=last)": table.height - scrolled - folded,
    }
    assert done["events"] == folded
    assert f"Of the histories, {table.height:,} rows read, {folded} kept as events; dropped: " in caplog.text


def test_tables_without_an_event_and_sessions_of_several_users_are_refused(tmp_path):
    typed = PopularityRecommender(Recipe(recommender="popularity", events=KINDS))
    typed.fit(InteractionDataset.from_tables(VISITS, PLACES, events=typed.recipe.events), progress=False)
    files = write_parts(tmp_path / "events", VISITS.filter(pl.col("kind") == "scroll"), [30])
    with pytest.raises(
        DataError, match="no row of the interaction table is an event: 210 rows read, 0 kept .*dropped: 210"
    ):
        ask(typed.save(tmp_path / "typed"), files, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    several = VISITS.with_columns(visit=pl.lit("one")).sort("user_id")  # its users lie in different pieces
    by_visit = PopularityRecommender(Recipe(recommender="popularity", events={"session": "visit"}))
    by_visit.fit(InteractionDataset.from_tables(VISITS, PLACES, events=by_visit.recipe.events), progress=False)
    files = write_parts(tmp_path / "visits", several.filter(pl.col("user_id").is_in(["u1", "u2"])), [7])
    with pytest.raises(DiffGRMError, match="1 sessions of 'visit' .* are of several users: one"):
        ask(by_visit.save(tmp_path / "by_visit"), files, tmp_path / "sessions")


def test_a_job_goes_on_with_the_same_moment_and_not_with_another(model, table, tmp_path, monkeypatch):
    out, whole = tmp_path / "out", Worker.do

    def ends(self, number):
        if number == 3 and "Ranking" in str(self._do):
            raise KeyboardInterrupt
        return whole(self, number)

    monkeypatch.setattr(Worker, "do", ends)
    monkeypatch.setattr("diffgrm.data.asking.time.time", lambda: 1_900_000_000.5)
    with pytest.raises(KeyboardInterrupt):
        ask(model, table, out, at="now", profiles=OTHERS)
    monkeypatch.setattr(Worker, "do", whole)
    monkeypatch.setattr("diffgrm.data.asking.time.time", lambda: 1_900_043_210.5)
    for change, told in (
        ({}, r"(?s)at was \"now\", is null.*profiles was .*, is null"),
        ({"at": LATE, "profiles": OTHERS}, 'at was "now", is "2030-01-05T21:00:00'),
        ({"at": "now", "profiles": OTHERS[:2]}, r"another job; [^\n]*:\n  - profiles was \"\w+\", is \"\w+\"$"),
    ):
        with pytest.raises(DataError, match=told):
            ask(model, table, out, **change)
    done = ask(model, table, out, at="now", profiles=OTHERS[::-1])  # the order of the table says nothing
    assert done["at"] == "2030-03-17T17:46:40+00:00" == json.loads((out / "_manifest.json").read_text())["at"]
    wanted = load(model).recommend(table, 8, on_empty="skip", at=1_900_000_000, profiles=OTHERS)
    check_same_lists(lists(out), wanted)


def test_what_a_job_cannot_ask_is_told(model, table, tmp_path):
    def complaint(kind=DataError, table=table, model=model, **settings):
        with pytest.raises(kind) as error:
            ask(model, table, tmp_path / "out", **settings)
        return str(error.value)

    assert "at= is a mapping of 1 users; expected one time for all" in complaint(at={"u1": LATE})
    assert "at is 'tomorrow'; expected a date-time" in complaint(at="tomorrow")
    assert "the table of users has columns" in complaint(profiles=OTHERS.rename({"plan": "level"}))
    bare = write_parts(tmp_path / "bare", TABLE.drop("device"), [100])
    assert "events.event_columns names the column 'device'" in complaint(table=bare)
    timeless = write_parts(tmp_path / "timeless", TABLE.drop("timestamp"), [100])
    assert "but the interaction table has no column 'timestamp'" in complaint(table=timeless)
    unlike = write_parts(tmp_path / "unlike", TABLE[:50], [50])
    TABLE[50:].with_columns(device=pl.lit(7)).write_parquet(unlike / "9.parquet")
    assert "device: String in" in complaint(table=unlike)
    plain = fitted({}, training=SHORT)[0].save(tmp_path / "plain")
    assert "of which the model is told nothing" in complaint(model=plain, at=LATE)
    assert "the model is told of no columns of users" in complaint(model=plain, profiles=OTHERS)
    assert not (tmp_path / "out").exists()
    assert "at= lies before the newest event of" in complaint(DiffGRMError, at="1970-01-02")
    nobody = pl.DataFrame({"user_id": ["somebody"], "plan": ["free"]})
    with pytest.raises(DataError, match="profiles are of users without a history"):
        ask(model, table, tmp_path / "none", profiles=nobody)
    assert not (tmp_path / "none" / "_manifest.json").exists()


def test_the_command_asks_with_a_moment_and_profiles(model, table, tmp_path, monkeypatch, capsys):
    OTHERS.write_csv(tmp_path / "users.csv")
    command = ["recommend-batch", model, "--interactions", table, "--out", tmp_path / "out", "--k", 8, "--quiet"]
    code, _, err = called(monkeypatch, capsys, *command, "--at", LATE, "--profiles", tmp_path / "users.csv")
    assert code == 0, err
    check_same_lists(lists(tmp_path / "out"), load(model).recommend(table, 8, at=LATE, profiles=OTHERS))


def test_values_that_nobody_named_are_told_as_recommend_tells_them(model, tmp_path, caplog):
    column = next(iter(EVERYTHING["event_columns"]))
    other = TABLE.with_columns(pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("abacus")).otherwise(column).alias(column))
    ask(model, write_parts(tmp_path / "events", other, [500]), tmp_path / "out")
    told = [line for line in caplog.messages if "abacus" in line]
    assert told == [f"values of {column} that events.event_columns does not name count as one: abacus"]
    caplog.clear()
    none = other.with_columns(pl.lit("abacus").alias(column))
    ask(model, write_parts(tmp_path / "none", none, [500]), tmp_path / "none out")
    load(model).recommend(none, 8)
    told = [line for line in caplog.messages if "abacus" in line]
    assert len(told) == 2 and told[0] == told[1] and "no event has any of the values" in told[0]


def test_times_of_no_year_are_refused_as_recommend_refuses_them(model, tmp_path):
    wrong = write_parts(tmp_path / "events", TABLE.with_columns(pl.col("timestamp") * 10**6), [500])
    with pytest.raises(DataError, match="some are of no year from 1 to 9999; name their unit"):
        load(model).recommend(pl.read_parquet(wrong), 8)
    with pytest.raises(DataError, match="some are of no year from 1 to 9999; name their unit"):
        ask(model, wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()
