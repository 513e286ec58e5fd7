"""The split by time, against lists: who is asked what, with which history, and what training never sees."""

from __future__ import annotations

import datetime

import numpy as np
import polars as pl
import pytest

from diffgrm import Recipe
from diffgrm.data.dataset import InteractionDataset, Ragged
from diffgrm.data.splits import make_split, temporal
from diffgrm.foundation.schema import DataError, RecipeError
from diffgrm.foundation.sections import DataSettings

ITEMS = pl.DataFrame({"item_id": list("abcdefgh"), "text": [f"thing {x}" for x in "abcdefgh"]})
# u: a b | c | d d e; v: b | b | a; w (later than all training): f a b; x: nothing after the first cut. Cuts at 20 and 30.
ROWS = [
    *(("u", item, time) for item, time in zip("abcdde", (5, 10, 20, 30, 31, 40), strict=True)),
    *(("v", item, time) for item, time in zip("bba", (7, 25, 33), strict=True)),
    *(("w", item, time) for item, time in zip("fab", (32, 34, 36), strict=True)),
    *(("x", item, time) for item, time in zip("abc", (1, 2, 3), strict=True)),
]


def dataset(rows=ROWS, times=None):
    table = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    return InteractionDataset.from_tables(table if times is None else table.with_columns(timestamp=times), ITEMS)


def lists(data, part):
    """(user, history, targets) of every list, spelled."""
    spell = ["".join(data.items.ids(row[i])) for row in (part.histories, part.targets) for i in range(len(part))]
    return list(zip(part.user_ids, spell[: len(part)], spell[len(part) :], strict=True))


def cut(data, **more):
    return temporal(data, validation_from="20", test_from="30", **more)


def test_all_is_one_list_against_the_different_items_of_the_window():
    data = dataset()
    split = cut(data)
    assert lists(data, split.validation) == [("u", "ab", "c"), ("v", "b", "b")]
    assert lists(data, split.test) == [("u", "abc", "de"), ("v", "bb", "a")]  # w has no history before the cut
    facts = {"lists": 2, "users": 2, "targets": 3, "cold_targets": 2, "dropped_cold_events": 0}
    assert split.facts["test"] == {**facts, "cold_users": 0, "users_without_history": 1}
    assert split.facts["validation_from"] == "20" and split.facts["test_from"] == "30"


def test_last_is_the_last_event_after_the_cut_with_all_before_it():
    data = dataset()
    split = cut(data, target="last")
    assert lists(data, split.test) == [("u", "abcdd", "e"), ("v", "bb", "a"), ("w", "fa", "b")]
    assert split.facts["test"]["cold_users"] == 1 and split.facts["test"]["cold_targets"] == 1
    warm = cut(data, target="last", cold_targets="drop")
    assert lists(data, warm.test) == [("v", "bb", "a"), ("w", "fa", "b")]  # d and e, of u, are in no training row
    assert warm.facts["test"]["cold_targets"] == 0 and warm.facts["test"]["dropped_cold_events"] == 3


def test_successive_asks_for_every_event_with_what_came_before_it():
    data = dataset()
    split = cut(data, target="successive")
    wanted = [("u", "abc", "d"), ("u", "abcd", "d"), ("u", "abcdd", "e"), ("v", "bb", "a")]
    wanted += [("w", "f", "a"), ("w", "fa", "b")]
    assert lists(data, split.test) == wanted
    assert len(split.test) == 6 and split.test.n_users == 3 and split.test.keys.to_list() == list(range(6))
    assert split.facts["test"]["users_without_history"] == 0
    one = split.test.sample(1, seed=0)
    assert one.n_users == 1 and lists(data, one) == [row for row in wanted if row[0] == one.user_ids[0]]


@pytest.mark.parametrize("target", ["all", "last", "successive"])
@pytest.mark.parametrize("cold", ["keep", "drop"])
@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_world_is_split_as_its_lists_are(target, cold, seed):
    generator = np.random.default_rng(seed)
    rows = [(f"u{generator.integers(9)}", "abcdefgh"[generator.integers(8)], int(t)) for t in generator.integers(0, 40, 60)]
    data = dataset(rows)
    split = temporal(data, 0.2, 0.3, target=target, cold_targets=cold)
    ordered = sorted(time for *_, time in rows)
    first, second = (ordered[round(60 * (1 - share))] for share in (0.5, 0.3))
    by_user = {user: [] for user in data.users.series}
    for user, item, time in sorted(rows, key=lambda row: row[2]):  # stable, as reading is
        by_user[user].append((item, time))
    train = {user: [item for item, time in row if time < first] for user, row in by_user.items()}
    assert {user: data.items.ids(split.train[i]) for i, user in enumerate(by_user)} == train
    warm = {item for row in train.values() for item in row}
    for part, low, high in ((split.validation, first, second), (split.test, second, np.inf)):
        wanted = []
        for user, row in by_user.items():
            met = [item for item, _ in row]
            window = [i for i, (_, time) in enumerate(row) if low <= time < high]
            before = sum(time < low for _, time in row)
            asked = [i for i in window if (before if target == "all" else i) and (cold == "keep" or met[i] in warm)]
            if target == "all" and asked:
                wanted.append((user, "".join(met[:before]), "".join(dict.fromkeys(met[i] for i in asked))))
            elif target != "all":
                wanted += [(user, "".join(met[:i]), met[i]) for i in (asked[-1:] if target == "last" else asked)]
        assert lists(data, part) == wanted


@pytest.mark.parametrize("target", ["all", "last", "successive"])
def test_what_comes_after_the_cut_changes_nothing_that_is_learnt(target):
    """Other events after the first cut: the same training events, popularity and fingerprint."""
    settings = DataSettings(split="temporal", validation_from=20, test_from=30, target=target)
    split = make_split(dataset(), settings)
    later = [(user, "h" if time >= 20 else item, time) for user, item, time in ROWS]
    other = make_split(dataset(later), settings)
    assert split.fingerprint == other.fingerprint
    assert split.item_counts.tolist() == other.item_counts.tolist() == [2, 3, 1, 0, 0, 0, 0, 0]
    assert split.train.values.tolist() == other.train.values.tolist()


def test_cuts_may_be_dates_where_the_times_are():
    days = pl.Series([datetime.date(2024, 1, 1) + datetime.timedelta(days=row[2]) for row in ROWS])
    wanted = lists(dataset(), cut(dataset()).test)
    settings = {"validation_from": datetime.date(2024, 1, 21), "test_from": "2024-01-31"}
    for times in (days, days.cast(pl.Datetime), days.cast(pl.Datetime).dt.replace_time_zone("UTC")):
        data = dataset(times=times)
        split = make_split(data, DataSettings(split="temporal", **settings))
        assert lists(data, split.test) == wanted and split.facts["test_from"].startswith("2024-01-31")
    with pytest.raises(DataError, match="timestamps are Date and go from 2024-01-02 to 2024-02-10: expected one in ISO"):
        temporal(dataset(times=days), test_from="30")


def test_a_cut_without_an_offset_is_on_the_clock_of_the_timestamps():
    days = pl.Series([datetime.datetime(2024, 1, 1) + datetime.timedelta(days=row[2]) for row in ROWS])
    data = dataset(times=days.dt.replace_time_zone("Asia/Tokyo"))
    there = datetime.timezone(datetime.timedelta(hours=9))
    cuts = "2024-01-31", "2024-01-31T00:00:00", "2024-01-31 00:00:00+09:00", "2024-01-30T15:00:00Z"
    for text in (*cuts, datetime.date(2024, 1, 31), datetime.datetime(2024, 1, 31, tzinfo=there)):
        assert temporal(data, test_from=text).facts["test_from"].startswith("2024-01-31 00:00:00"), text


@pytest.mark.parametrize("step", [1.0, 0.1, 1 / 3])
def test_cuts_that_facts_tell_cut_at_the_same_place_again(step):
    data = dataset(times=pl.Series([1_701_040_000 + step * row[2] for row in ROWS]))
    split = temporal(data, 0.2, 0.2)
    facts = {name: split.facts[name] for name in ("validation_from", "test_from")}
    again = temporal(data, **facts)
    assert again.facts == split.facts and lists(data, again.test) == lists(data, split.test)
    assert float(facts["test_from"]) in data.timestamps
    if step == 1:
        assert facts["test_from"].startswith("17010400") and facts["test_from"].isdigit()
    spans = dataset(times=pl.Series([row[2] for row in ROWS]).cast(pl.Duration("ms")))
    split = temporal(spans)
    assert temporal(spans, test_from=split.facts["test_from"]).facts["test_from"] == split.facts["test_from"]


def test_cuts_beyond_what_the_times_can_hold_are_told():
    narrow = dataset(times=pl.Series([row[2] for row in ROWS], dtype=pl.Int32))
    with pytest.raises(DataError, match="first cut in time, 1399939204000, is later than the second, 30"):
        temporal(narrow, validation_from="1399939204000", test_from="30")
    fine = dataset(times=pl.Series([row[2] for row in ROWS]).cast(pl.Datetime("ns")))
    with pytest.raises(DataError, match="test_from is '2500-01-01'; timestamps are Datetime.* and go from 1970"):
        temporal(fine, test_from="2500-01-01")


def test_a_cut_between_whole_numbers_is_told_as_it_is():
    facts = temporal(dataset(), validation_from="10.5", test_from="29.5").facts
    assert (facts["validation_from"], facts["test_from"]) == ("10.5", "29.5")


@pytest.mark.parametrize("cut", ["2024-01-31T12:00:00", "2024-01-31 00:00", "2024-01-31+02:00", "2024-01-31Z"])
def test_days_are_cut_by_days(cut):
    days = pl.Series([datetime.date(2024, 1, 1) + datetime.timedelta(days=row[2]) for row in ROWS])
    with pytest.raises(
        DataError, match=r"test_from is '2024-.*timestamps are days, .*: expected a day, 2024-01-31, or the"
    ):
        temporal(dataset(times=days), test_from=cut)
    if "T" in cut:
        assert temporal(dataset(times=days.cast(pl.Datetime)), test_from=cut).facts["test_from"] == "2024-01-31 12:00:00"


def test_what_cannot_be_cut_says_why():
    data = dataset()
    with pytest.raises(DataError, match="'2014-05-13'; expected a number, as the timestamps are, which go from 1 to 40"):
        temporal(data, test_from="2014-05-13")
    with pytest.raises(DataError, match="test_from is '99', and 0 of 15 events are from then on"):
        temporal(data, test_from="99")
    with pytest.raises(DataError, match="the first cut in time, 35, is later than the second, 30"):
        temporal(data, validation_from="35", test_from="30")
    with pytest.raises(DataError, match=r"(?s)target is 'lats'; expected all or .*cold_targets is 'warm'"):
        temporal(data, target="lats", cold_targets="warm")
    for early in (5e-1, "1", "-3"):
        with pytest.raises(DataError, match=f"first cut in time, validation_from={early!r}: timestamps go from 1 to 40"):
            temporal(data, validation_from=early)
    for wrong in (float("nan"), "inf", [5], 10**400):
        with pytest.raises(DataError, match="validation_from is .*; expected a number, .*, which go from 1 to 40"):
            temporal(data, validation_from=wrong)
    for share in (float("nan"), 1, -0.5, "0.1", None, True):
        with pytest.raises(
            DataError, match=r"(?s)validation_share is .*test_share is .*; expected a number above 0, below 1"
        ):
            temporal(data, share, share)
    with pytest.raises(DataError, match=r"so:\n  - test_share is 0.0; expected a number above 0, below 1$"):
        temporal(data, 0.0, 0.0)
    assert len(temporal(data, 0.0, 0.2).validation) == 0
    alike = dataset(times=pl.Series([7] * len(ROWS)))
    with pytest.raises(DataError, match=r"first cut in time, 7 \(validation_share\): timestamps go from 7 to 7"):
        temporal(alike)
    with pytest.raises(DataError, match=r"validation_share 0\.5 \+ test_share 0\.6 leave nothing to train on"):
        temporal(data, 0.5, test_from="20")


def test_settings_of_the_cut_do_nothing_without_one():
    with pytest.raises(RecipeError) as error:
        Recipe(data={"target": "last", "test_from": 3}).refuse_idle()
    assert "data.target = last does nothing with data.split = leave_one_out" in str(error.value)
    assert "data.test_from = 3 does nothing with data.split = leave_one_out" in str(error.value)
    with pytest.raises(RecipeError, match=r"test_share = 0\.2 does nothing with data\.test_from = 2014-05-13; .* to null"):
        Recipe(data={"split": "temporal", "test_share": 0.2, "test_from": "2014-05-13"}).refuse_idle()
    made = Recipe(data={"split": "temporal"}).override(["data.test_from=2014-05-13", "data.validation_from=1390000000"])
    assert (made.data.test_from, made.data.validation_from) == ("2014-05-13", "1390000000")
    assert Recipe.from_dict(made.to_dict()).data == made.data


def test_rows_of_a_user_are_told_apart_only_where_there_are_several():
    part = cut(dataset()).test
    assert part.keys is part.user_ids
    assert isinstance(part.histories, Ragged)
