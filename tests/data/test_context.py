"""What networks are told of times, events and users: numbers of buckets, of hours and of values, place by place."""

from __future__ import annotations

import datetime
import logging
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from diffgrm.data import mapped
from diffgrm.data.asking import request_of, seconds_of, with_moments, with_profiles
from diffgrm.data.collate import in_batches
from diffgrm.data.context import EDGES, Context, bucket, hour_of, input_sizes, weekday_of
from diffgrm.data.dataset import InteractionDataset, Ragged, leave_one_out, validation_only
from diffgrm.data.histories import HistoryEvent, read_histories
from diffgrm.data.ids import IdMap
from diffgrm.data.marks import Marks, RowFacts
from diffgrm.data.profiles import Profiles, read_profiles
from diffgrm.data.splits import temporal
from diffgrm.data.times import in_seconds
from diffgrm.evaluation.segments import with_segment
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError
from diffgrm.learning.batches import TrainingBatches

A_DAY = 86400
DAYS = pl.col("timestamp") // A_DAY * A_DAY
ALL = EventSettings(
    time_inputs=["gap", "recency", "hour", "weekday"],
    utc_offset=2,
    event_columns={"device": ["phone", "desktop"]},
    user_columns={"plan": ["free", "paid"], "land": ["be"]},
)
ITEMS = pl.DataFrame({"item_id": list("abcdef"), "text": list("abcdef")})
TABLE = pl.DataFrame(
    {
        "user_id": ["u", "u", "u", "u", "v", "v", "v", "w"],
        "item_id": list("abcadeff"),
        "timestamp": [0, 90, 4000, 5 * A_DAY, 10, 10, 7 * A_DAY, 11],
        "device": ["phone", "desktop", "fridge", None, "phone", "phone", "desktop", "phone"],
    }
)
USERS = pl.DataFrame({"user_id": ["v", "u", "x"], "plan": ["paid", "free", "free"], "land": [None, "be", "nl"]})


def dataset(table=TABLE, settings=ALL, users=USERS):
    return InteractionDataset.from_tables(table, ITEMS, events=settings, profiles=users)


def told(context, start, stop, settings=ALL):
    """The numbers of every input at every place of one stretch, each counted from 0."""
    begin = np.cumsum([0, *input_sizes(settings)[:-1]])
    return (context.at(np.array([start]), np.array([stop])) - begin).tolist()


# ---- numbers -----------------------------------------------------------------------------------------------------------


def test_buckets_are_two_for_every_doubling_by_enumeration():
    seconds = np.arange(5000)
    wanted = np.array([max(i for i, edge in enumerate(EDGES) if edge <= one) for one in seconds])
    assert (bucket(seconds) == wanted).all() and (np.diff(EDGES) > 0).all()
    for power in range(2, 32):  # 2^p - 1 seconds, where seconds and one more are a power of two, begin a bucket
        assert bucket(np.array([2**power - 1])) == bucket(np.array([2**power - 2])) + 1
        assert bucket(np.array([2 ** (power + 1) - 1])) - bucket(np.array([2**power - 1])) == 2
    assert bucket(np.array([10**18])) == len(EDGES) - 1  # whatever is longer is the last


def test_hours_and_weekdays_are_those_of_the_calendar():
    moments = np.random.default_rng(0).integers(-(10**9), 2 * 10**9, 500)
    for offset in (0, -3.5, 5.75):
        zone = datetime.timezone(datetime.timedelta(hours=offset))
        local = [datetime.datetime.fromtimestamp(int(one), zone) for one in moments]
        assert hour_of(moments, offset).tolist() == [one.hour for one in local]
        assert weekday_of(moments, offset).tolist() == [one.weekday() for one in local]


@pytest.mark.parametrize(
    ("column", "kind", "unit"),
    [
        ([1, 86401], pl.Int64(), "s"),
        ([1500, 86401999], pl.Int64(), "ms"),
        ([1.5, 86401.25], pl.Float64(), "s"),
        ([1_000_001, 86401 * 10**6], pl.Int64(), "us"),
        ([1_500, 86_401_000], pl.Datetime("ms"), "day"),
        ([1, 86401], pl.Int32(), "s"),
    ],
)
def test_times_of_every_kind_are_seconds(column, kind, unit):
    assert in_seconds(pl.Series(column).to_numpy(), kind, unit).tolist() == [1, 86401]
    assert in_seconds(np.array([0, 1], np.int32), pl.Date(), "s").tolist() == [0, A_DAY]
    assert in_seconds(np.array([0.5]), pl.Float64(), "day").tolist() == [A_DAY // 2]


# ---- places ------------------------------------------------------------------------------------------------------------


def by_hand(times, values, profile, moment, causal, first):
    """What is told of a history from its place ``first`` on, in plain Python."""
    rows = []
    for place in range(first, len(times)):
        now = times[place + 1] if causal and place + 1 < len(times) else moment
        gap = 0 if place == 0 else 1 + int(bucket(np.array([times[place] - times[place - 1]]))[0])
        row = [gap, int(bucket(np.array([now - times[place]]))[0])]
        for on_clock in (hour_of, weekday_of):
            row += [int(on_clock(np.array([one]), 2)[0]) for one in (times[place], now)]
        rows.append([*row, values[place], *profile])
    return rows


@pytest.mark.parametrize("causal", [False, True])
def test_every_place_is_told_what_is_known_when_it_is_asked(causal):
    data = dataset()
    context = Context.of(data.events, causal)
    times, values = TABLE["timestamp"].to_list(), [1, 2, 0, 0, 1, 1, 2, 1]
    for begin, end, profile in ((0, 4, [1, 1]), (4, 7, [2, 0]), (7, 8, [0, 0])):
        for stop in range(begin + 1, end + 1):
            for start in range(begin, stop):
                moment = times[stop] if stop < end else times[stop - 1]  # the event behind it, else the newest
                wanted = by_hand(times[begin:stop], values[begin:stop], profile, moment, causal, start - begin)
                assert told(context, start, stop) == wanted
    asked = replace(data.events, facts=replace(data.events.facts, moments=np.array([6 * A_DAY, 8 * A_DAY, 9])))
    for (begin, end, profile), moment in zip(((0, 4, [1, 1]), (4, 7, [2, 0])), (6 * A_DAY, 8 * A_DAY), strict=False):
        found = told(Context.of(asked, causal), begin, end)
        assert found == by_hand(times[begin:end], values[begin:end], profile, moment, causal, 0)


def test_batches_of_training_tell_the_moment_of_each_target_and_of_nothing_later():
    data = dataset()
    later = TABLE.with_columns(
        timestamp=pl.when(pl.int_range(pl.len()).is_in([3, 6])).then(20 * A_DAY).otherwise("timestamp"),
        device=pl.when(pl.int_range(pl.len()).is_in([3, 6])).then(pl.lit("phone")).otherwise("device"),
    )
    for shared in (False, True):
        batches = list(TrainingBatches(leave_one_out(data).train, 3, 8, 0, shared=shared))
        other = list(TrainingBatches(leave_one_out(dataset(later)).train, 3, 8, 0, shared=shared))
        for one, two in zip(batches, other, strict=True):  # test events of u and v, of which training knows nothing
            assert (one.histories.context == two.histories.context).all()
        for batch in batches:
            assert batch.histories.context.shape == (*batch.histories.valid.shape, 9)
            some = batch.rows(pl.Series([0]).to_torch())
            assert (some.histories.context == batch.histories.context[:1]).all()


def test_padding_and_the_rest_of_a_batch_change_nothing():
    data = dataset()
    for causal in (False, True):
        (rows, together), *_ = in_batches(data.events, 2, 9, causal)
        for number, row in enumerate(rows):
            ((_, alone),) = in_batches(data.events.rows(np.array([row])), 2, 9, causal)
            length = alone.valid.sum()
            assert (together.context[number, :length] == alone.context[0]).all() and length == min(
                data.events.lengths[row], 2
            )


def test_nothing_is_told_without_the_switches():
    plain = InteractionDataset.from_tables(TABLE, ITEMS)
    assert Context.of(plain.events, False) is None and plain.events.marks.arrays == [] and plain.events.facts.arrays == []
    shuffled = InteractionDataset.from_tables(TABLE.with_columns(pl.col("timestamp") * 3 + 5), ITEMS)
    assert leave_one_out(plain).fingerprint == leave_one_out(shuffled).fingerprint
    timed = [
        leave_one_out(dataset(table)).fingerprint for table in (TABLE, TABLE.with_columns(pl.col("timestamp") * 3 + 5))
    ]
    assert len(set(timed)) == 2
    users = USERS.with_columns(plan=pl.lit("paid"))
    assert leave_one_out(dataset(users=users)).fingerprint not in timed


# ---- splits ------------------------------------------------------------------------------------------------------------


def test_held_out_targets_are_asked_for_at_their_own_time():
    split = leave_one_out(dataset())
    assert split.test.histories.facts.moments.tolist() == [5 * A_DAY, 7 * A_DAY]
    assert split.validation.histories.facts.moments.tolist() == [4000, 10]
    assert split.test.sample(1, 0).histories.facts.moments.shape == (1,)
    assert validation_only(dataset()).validation.histories.facts.moments.tolist() == [5 * A_DAY, 7 * A_DAY]
    assert split.train.facts.moments is None


@pytest.mark.parametrize(("target", "moments"), [("all", [90, 3]), ("last", [4000]), ("successive", [90, 4000])])
def test_windows_of_time_are_asked_for_at_the_first_target(target, moments):
    rows = [("u", "a", 0), ("u", "b", 90), ("u", "c", 4000), ("v", "a", 1), ("v", "b", 2), ("v", "f", 9 * A_DAY)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    settings = EventSettings(time_inputs=["recency"])
    split = temporal(dataset(table, settings, None), validation_from="50", test_from="100000", target=target)
    found = split.validation
    wanted = [90] if target == "all" else moments
    assert found.histories.facts.moments.tolist() == wanted and len(found) == len(wanted)
    assert split.test.histories.facts.moments.tolist() == [9 * A_DAY]


# ---- tables ------------------------------------------------------------------------------------------------------------


def test_tables_larger_than_memory_give_the_same(tmp_path, monkeypatch):
    wanted = dataset(TABLE.with_columns(pl.col("timestamp") * 1000), ALL.model_copy(update={"time_unit": "ms"}))
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "BLOCK", 3)
    monkeypatch.setattr(mapped, "IN_MEMORY", 4)
    TABLE.with_columns(pl.col("timestamp") * 1000).write_parquet(tmp_path / "events.parquet")
    for _ in range(2):  # made, then from the cache
        found = dataset(tmp_path / "events.parquet", ALL.model_copy(update={"time_unit": "ms"}))
        assert found.events.marks.times.tolist() == wanted.events.marks.times.tolist() == TABLE["timestamp"].to_list()
        assert [column.tolist() for column in found.events.marks.values] == [[1, 2, 0, 0, 1, 1, 2, 1]]
        assert found.events.facts.columns.tolist() == [[1, 1], [2, 0], [0, 0]]
        stretch = np.array([1]), np.array([4])
        assert (Context.of(found.events, True).at(*stretch) == Context.of(wanted.events, True).at(*stretch)).all()
        assert found.event_table()["device"][:4].to_list() == ["phone", "desktop", None, None]


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        ({"time_inputs": ["hour"]}, {"timestamp": DAYS}, "the hour of all 8 events is 0: the timestamps are no clock"),
        ({"time_inputs": ["hour"]}, {"timestamp": pl.lit(datetime.date(2024, 1, 1))}, "have no time of day"),
        ({"time_inputs": ["weekday"]}, {"timestamp": pl.int_range(8)}, "the weekday of all 8 events is 3"),
        ({"time_inputs": ["gap"]}, {"timestamp": pl.int_range(8)}, "names gap, but all gaps between events"),
        (
            {"time_inputs": ["gap"]},
            {"timestamp": pl.col("timestamp") + 10**12},
            r"in s \(events.time_unit\), and some are of",
        ),
        (
            {"event_columns": {"device": ["tv"]}},
            {},
            r"no event has any of the values \['tv'\] in the column 'device', which has 'desktop', 'fridge', 'phone'",
        ),
        ({"event_columns": {"devise": ["tv"]}}, {}, "event_columns names the column 'devise'; did you mean 'device'"),
    ],
)
def test_inputs_that_tell_nothing_are_refused(settings, columns, message):
    with pytest.raises(DataError, match=message):
        dataset(TABLE.with_columns(**columns), EventSettings(**settings), None)


def test_times_that_are_not_there_cannot_be_told():
    with pytest.raises(DataError, match=r"but the interaction table has no column 'timestamp'; name yours with columns="):
        dataset(TABLE.drop("timestamp"), EventSettings(time_inputs=["gap"]), None)


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (None, "events.user_columns names 'plan', 'land': give the table of users too, with profiles="),
        (USERS.drop("plan"), "expected column 'plan'"),
        (pl.concat([USERS, USERS]), "users stand more than once in the table of users"),
        (USERS.with_columns(user_id=pl.lit("z") + pl.col("user_id")), "knows none of the users of the events"),
        (
            USERS.rename({"user_id": "USER_ID"}),
            r"column 'user_id'; did you mean 'USER_ID'\?\nName one of these columns, or",
        ),
        (USERS.rename({"plan": "plans"}), r"column 'plan'; did you mean 'plans'\?\n.*; --column is not for it"),
        (
            USERS.with_columns(user_id=pl.when(pl.col("user_id") != "v").then("user_id")),
            r"(?s)the table of users has problems:.*user_id is null in 1 rows \(rows \d\); drop or fill them",
        ),
        (USERS.with_columns(user_id=pl.lit(1.5)), r"user_id has type Float64; .* \(row 0 holds 1\.5; cast it first\)"),
        (
            USERS.with_columns(plan=pl.concat_list("plan")),
            r"'plan' is of type List\(String\); expected one text, number or",
        ),
        (USERS.with_columns(plan=pl.struct("land")), r"'plan' is of type Struct\(\{'land': String\}\); expected one text"),
        (USERS.with_columns(plan=pl.lit("gold")), r"values \['free', 'paid'\] in the column 'plan', which has 'gold'"),
    ],
)
def test_tables_of_users_that_cannot_be_used_are_refused(users, message):
    with pytest.raises(DataError, match=message):
        dataset(users=users)


@pytest.mark.parametrize("kind", [pl.Int32, pl.Float64, pl.String])
def test_users_that_are_numbers_are_found_whatever_their_table_has_them_as(kind):
    settings = EventSettings(user_columns={"plan": ["free", "paid"]})
    table = TABLE.with_columns(user_id=pl.col("user_id").replace_strict({"u": 7, "v": 8, "w": 9}))
    users = pl.DataFrame({"user_id": pl.Series([8, 7]).cast(kind), "plan": ["paid", "free"]})
    data = dataset(table, settings, users)
    assert dict(zip(data.users.series, data.events.facts.columns[:, 0].tolist(), strict=True)) == {7: 1, 8: 2, 9: 0}
    events = pl.DataFrame({"user_id": [7, 8, 9]})
    assert with_segment(events, users, "plan")["segment:plan"].to_list() == ["free", "paid", "(unknown)"]
    assert with_segment(events.cast(pl.Float64), users, "plan")["segment:plan"].to_list() == ["free", "paid", "(unknown)"]


def test_ids_of_users_say_nothing_of_them():
    with pytest.raises(DataError, match="'user_id' tells users apart; name a column that tells something of them"):
        with_segment(TABLE, USERS, "user_id")


@pytest.mark.parametrize("share", [0.00001, 1e20, 0.1, np.float32(0.1)])
def test_floats_are_spelled_alike_in_tables_recipes_and_requests(share):
    settings = EventSettings(user_columns={"share": [float(share), 1]} if isinstance(share, float) else {"share": ["0.1"]})
    assert read_profiles(pl.DataFrame({"user_id": ["u"], "share": pl.Series([share])}), settings).numbers.tolist() == [[1]]
    assert read_profiles({"u": {"share": share}}, settings).numbers.tolist() == [[1]]


@pytest.mark.parametrize(("older", "newer"), [(["u", "7"], [7, 8]), ([7, 9], ["u", "7"]), ([7, 9], [7, 8]), (["u"], [])])
def test_newer_profiles_join_older_ones_whatever_their_ids_are(older, newer):
    old, new = (Profiles(IdMap(pl.Series(ids)), np.full((len(ids), 1), n, np.int16)) for ids, n in ((older, 1), (newer, 2)))
    both = old.with_newer(new)
    wanted = dict.fromkeys(map(str, older), 1) | dict.fromkeys(map(str, newer), 2)
    assert dict(zip(both.users.series.cast(pl.String), both.numbers[:, 0].tolist(), strict=True)) == wanted
    assert both.of(pl.Series(older)).tolist() == [[wanted[str(user)]] for user in older]


def test_tables_of_users_that_nobody_asked_for_are_refused_and_missing_users_told(caplog):
    with pytest.raises(DataError, match="but events.user_columns names no column of them"):
        dataset(settings=EventSettings())
    with caplog.at_level(logging.WARNING):
        dataset()
    assert "1 of 3 users are not in the table of users" in caplog.text
    assert "values of land that events.user_columns does not name count as one: nl" in caplog.text
    assert "values of device that events.event_columns does not name count as one: fridge" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_unit": "ms"}, "events.time_unit = ms does nothing without events.time_inputs"),
        ({"utc_offset": 1, "time_inputs": ["gap"]}, "events.utc_offset = 1 does nothing without hour or weekday"),
        ({"time_inputs": ["gap", "gap"]}, "names 'gap' twice"),
        ({"time_inputs": ["gap"], "session": "s", "history": "user"}, "needs histories in order of time"),
        ({"user_columns": {"plan": ["a", "a"]}}, "events.user_columns names the value 'a' of 'plan' twice"),
        ({"user_columns": {"plan": []}}, "at least 1 item"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EventSettings(**settings)


# ---- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stars", [[4, 5, None, 1, 5, 5, 4, 4], [4.0, 5.0, None, 1.0, 5.0, 5.0, 4.0, 4.0]])
@pytest.mark.parametrize("named", [[4, 5], ["4", "5"], [4.0, 5.0]])
def test_numbers_are_categories_by_their_value_also_where_a_gap_made_them_decimal(stars, named):
    settings = EventSettings(event_columns={"stars": named, "gift": [True]}, user_columns={"tier": named})
    table = TABLE.with_columns(pl.Series("stars", stars), gift=pl.col("device") == "phone")
    users = USERS.with_columns(tier=pl.Series([4.0, None, 5.0]))
    data = dataset(table, settings, users)
    assert [one.tolist() for one in data.events.marks.values] == [[1, 2, 0, 0, 2, 2, 1, 1], [1, 0, 0, 0, 1, 1, 0, 1]]
    assert data.events.facts.columns.tolist() == [[0], [1], [0]]
    given = [HistoryEvent("a", values={"stars": 5.0, "gift": True}), HistoryEvent("b", values={"stars": 4, "gift": False})]
    _, rows = read_histories([given], data.items, "error", settings)
    assert [one.tolist() for one in rows.marks.values] == [[2, 1], [1, 0]]
    assert read_profiles({"u": {"tier": 5.0}, "v": {"tier": 4}}, settings).numbers.tolist() == [[2], [1]]


def test_what_a_model_is_asked_with_is_looked_at_as_what_it_learnt_from(caplog):
    settings = EventSettings(
        time_inputs=["gap"], event_columns={"device": ["phone", "desktop"]}, user_columns={"plan": ["paid"]}
    )
    ids = IdMap(ITEMS["item_id"])
    with caplog.at_level(logging.WARNING):
        read_histories(TABLE.with_columns(device=pl.lit("Phone")), ids, "error", settings)
        read_profiles(USERS.with_columns(plan=pl.lit("PAID")), settings)
    none = "no {} has any of the values ['{}'] in the column '{}', which has '{}'"
    assert none.format("event", "phone', 'desktop", "device", "Phone") in caplog.text
    assert none.format("user", "paid", "plan", "PAID") in caplog.text
    with pytest.raises(DataError, match=r"histories cannot be read so:\n  - timestamps are read in s .* of no year"):
        read_histories(TABLE.with_columns(pl.col("timestamp") + 10**15), ids, "error", settings)


def test_types_are_named_by_their_value_too():
    settings = EventSettings(event="kind", targets=[2], context=[1.0])
    table = TABLE.with_columns(kind=pl.Series([1.0, 2.0, None, 2.0, 2.0, 1.0, 2.0, 7.0]))
    data = dataset(table, settings, None)
    assert data.events.marks.types.tolist() == [1, 0, 0, 0, 1, 0] and "7" in str(data.report)
    given = [[HistoryEvent("a", 1.0), HistoryEvent("b", 2)]]
    assert read_histories(given, data.items, "error", settings)[1].marks.types.tolist() == [1, 0]


IDS = IdMap(pl.Series(list("abcdef")))
TIMED = EventSettings(time_inputs=["recency"], event_columns={"device": ["phone", "desktop"]})


def test_lists_tell_times_and_values_of_their_events():
    first = HistoryEvent("a", time=5, values={"device": "desktop"})
    given = [[first, HistoryEvent("nowhere", time=6), HistoryEvent("b", time=9)]]
    _, rows = read_histories(given, IDS, "error", TIMED)
    assert rows.marks.times.tolist() == [5, 9] and [one.tolist() for one in rows.marks.values] == [[2, 0]]
    with pytest.raises(DataError, match=r"2 of 2 events of the histories have none: a, b; give a table with 'timestamp'"):
        read_histories(["a", "b"], IDS, "error", TIMED)
    with pytest.raises(DataError, match="holds 'b' behind 'a', but its time is earlier; give histories oldest first"):
        read_histories([HistoryEvent("a", time=5), HistoryEvent("b", time=4)], IDS, "error", TIMED)
    with pytest.raises(DataError, match="the time of 'a' is 'soon'; expected a date-time"):
        read_histories([HistoryEvent("a", time="soon")], IDS, "error", TIMED)
    with pytest.raises(DataError, match="has a value of 'devise', of which the model knows nothing; did you mean 'device'"):
        read_histories([HistoryEvent("a", time=1, values={"devise": "tv"})], IDS, "error", TIMED)
    for value in (["phone"], {"phone": 1}, ("phone",), b"phone", np.array(["phone"])):
        with pytest.raises(DataError, match=r"an event in the column 'device' is .*phone.*; expected one text, number or"):
            read_histories([HistoryEvent("a", time=1, values={"device": value})], IDS, "error", TIMED)
    for settings in (TIMED, EventSettings()):
        with pytest.raises(
            DataError, match="the values of 'a' are 'phone'; expected a mapping from columns to values, such"
        ):
            read_histories([HistoryEvent("a", time=1, values="phone")], IDS, "error", settings)


def test_models_that_are_told_of_nothing_take_times_in_order_and_nothing_else():
    noon, evening = datetime.datetime(2024, 5, 1, 12), "2024-05-01T19:10"
    for times in (
        [None, 5, 7],
        [1714600000000, None, 1714600000001],
        [noon, evening, None],
        [0.5, 0.5, 10**400 // 10**100],
    ):
        _, rows = read_histories([list(map(HistoryEvent, "abc", [None] * 3, times))], IDS, "error")
        assert rows.values.tolist() == [0, 1, 2] and not rows.marks.arrays
    _, rows = read_histories([[HistoryEvent("a", time=9)], [], [HistoryEvent("b", time=5)]], IDS, "skip")
    assert rows.values.tolist() == [0, 1]  # of users, each in its own order
    with pytest.raises(DataError, match="holds 'c' behind 'a', but its time is earlier; give histories oldest first"):
        read_histories([HistoryEvent("a", time=evening), "b", HistoryEvent("c", time=noon)], IDS, "error")
    for wrong in ("soon", float("nan"), True, 10**400):
        with pytest.raises(DataError, match="the time of 'b' is .*; expected a date-time"):
            read_histories(["a", HistoryEvent("b", time=wrong)], IDS, "error")
    events = [HistoryEvent("a", "view", values={"device": "tv"}), HistoryEvent("b")]
    with pytest.raises(
        DataError, match=r"1 events .* tell a type, such as 'view', .*; leave type out; 1 events .* tell values"
    ):
        read_histories(events, IDS, "error")
    with pytest.raises(DataError, match=r"such as that of 'device', .* \(events.event_columns\); leave values out$"):
        read_histories([*events[1:], HistoryEvent("a", values={"device": "tv"})], IDS, "error")


def test_moments_are_read_in_every_form():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    written = "1970-01-02", "1970-01-02T02:00:00+02:00", datetime.date(1970, 1, 2)
    moments = datetime.datetime(1970, 1, 2), datetime.datetime(1970, 1, 2, 2, tzinfo=zone)
    for value in (A_DAY, float(A_DAY), np.int64(A_DAY), *written, *moments):
        assert seconds_of(value, "s", "at") == A_DAY
    assert seconds_of(A_DAY * 1000 + 999, "ms", "at") == A_DAY and seconds_of(1, "day", "at") == A_DAY
    assert seconds_of("now", "s", "at") == pytest.approx(datetime.datetime.now(datetime.UTC).timestamp(), abs=100)
    for value in ("soon", "12", None, True, float("nan"), 10**30, 10**400, [1]):
        with pytest.raises(DataError, match="expected a date-time .UTC where it names no offset., a number"):
            seconds_of(value, "s", "at")


def test_a_request_says_when_it_asks_and_cannot_ask_before_what_it_tells():
    users, rows = read_histories({"u": [HistoryEvent("a", time=5)], "v": [HistoryEvent("b", time=9)]}, IDS, "error", TIMED)
    assert with_moments(users, rows, None).facts.moments is None
    assert with_moments(users, rows, 10).facts.moments.tolist() == [10, 10]
    assert with_moments(users, rows, {"v": 30, "z": 40}).facts.moments.tolist() == [5, 30]  # z may have been skipped
    with pytest.raises(DataError, match="of 1 histories: of the user 'v' it is 1970-01-01 00:00:07, and the newest"):
        with_moments(users, rows, 7)
    with pytest.raises(DataError, match="at= is of users without a history: 'z'"):
        with_moments(users, rows, {"z": 30})
    for at in (30, {"z": 30}):  # nobody is left
        assert with_moments(users[:0], rows.rows(np.arange(0)), at).facts.moments.tolist() == []
    plain = Ragged.from_lists([[1]])
    with pytest.raises(DataError, match="of which the model is told nothing"):
        with_moments(users[:1], plain, 7)


def test_a_request_may_say_more_of_users_than_is_stored():
    settings = EventSettings(user_columns={"plan": ["free", "paid"]})
    rows = replace(Ragged.from_lists([[1], [2], [3]]), marks=Marks(settings))
    users, stored = pl.Series(["u", "v", "w"]), read_profiles({"u": {"plan": "free"}, "v": {"plan": "paid"}}, settings)
    numbers = [[1], [2], [0]]
    assert with_profiles(users, rows, None, stored, named=True).facts.columns.tolist() == numbers
    assert with_profiles(users, rows, None, stored, named=False).facts.columns.tolist() == [[0]] * 3
    given = {"v": {"plan": "free"}, "w": {"plan": "gold"}}
    assert with_profiles(users, rows, given, stored, named=True).facts.columns.tolist() == [[1], [1], [0]]
    with pytest.raises(DataError, match="profiles name the column 'plam', of which .* did you mean 'plan'"):
        with_profiles(users, rows, {"v": {"plam": "free"}}, stored, named=True)
    with pytest.raises(DataError, match=r"'plan' of the user 'v' in profiles is \['free'\]; expected one text, number or"):
        with_profiles(users, rows, {"v": {"plan": ["free"]}}, stored, named=True)
    with pytest.raises(DataError, match=r"user ids must be all text or all whole numbers, found \['int', 'str'\]"):
        with_profiles(users, rows, {7: {"plan": "free"}, "v": {}}, stored, named=True)
    with pytest.raises(DataError, match="profiles are of users without a history: 'z'"):
        with_profiles(users, rows, {"z": {"plan": "free"}}, stored, named=True)
    none = users[:0], rows.rows(np.arange(0))
    assert with_profiles(*none, {"z": {"plan": "free"}}, stored, named=True).facts.columns.shape == (0, 1)
    with pytest.raises(DataError, match="not so for v"):
        with_profiles(users, rows, {"v": "free"}, stored, named=True)
    with pytest.raises(DataError, match="the model is told of no columns of users"):
        with_profiles(users, Ragged.from_lists([[1], [2], [3]]), given, None, named=True)


def test_what_evaluation_asks_is_read_back_the_same():
    data = dataset()
    users = leave_one_out(data).test
    asked = request_of(users.keys, users.histories)
    ids, rows = read_histories({"u": [HistoryEvent("a", time=0)], "v": [HistoryEvent("d", time=1)]}, IDS, "error", ALL)
    rows = with_moments(ids, rows, asked["at"])
    rows = with_profiles(ids, rows, asked["profiles"], read_profiles(USERS, ALL), True)
    assert rows.facts.moments.tolist() == users.histories.facts.moments.tolist()
    assert rows.facts.columns.tolist() == users.histories.facts.columns.tolist()
    assert request_of(pl.Series(["u"]), Ragged.from_lists([[1]])) == {}


def test_facts_follow_their_rows():
    facts = RowFacts(np.array([7, 8, 9]), np.array([[1], [2], [3]], np.int16))
    rows = replace(Ragged.from_lists([[1], [2, 3], [4]]), facts=facts)
    chosen = rows.rows(np.array([2, 0]))
    assert chosen.facts.moments.tolist() == [9, 7] and chosen.facts.columns.tolist() == [[3], [1]]
    assert rows.part(0, rows.lengths - [0, 1, 0]).facts is facts and rows.by_blocks(lambda block: block).facts is facts
    assert rows.filter(rows.values > 1).facts is facts and rows.bare().facts.arrays == []
    assert np.concatenate([block.facts.moments for _, block in rows.blocks()]).tolist() == [7, 8, 9]
