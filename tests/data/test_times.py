"""Times as users write them."""

from __future__ import annotations

import datetime
import itertools

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgrm import InteractionDataset
from diffgrm.data.columns import column_of
from diffgrm.data.frames import load_frame
from diffgrm.data.tables import read_interactions
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError


def events(times) -> pl.DataFrame:
    return pl.DataFrame({"user_id": "u", "item_id": [f"i{n}" for n in range(len(times))], "timestamp": times})


def order(times, time_format=None) -> list[int]:
    return [int(item[1:]) for item in read_interactions(events(times), time_format=time_format)["item_id"]]


@pytest.mark.parametrize(
    "times",
    [
        ["31/12/2019", "01/12/2019", "02/11/2019"],
        ["12/31/2019", "12/01/2019", "11/02/2019"],
        ["31.12.2019 9:05", "1.12.2019 10:00", "30.11.2019 23:59"],
        ["2019-12-31", "2019-12-01T10:00", "2019/11/02 9:05:58"],
        ["2019-12-31T00:30+02:00", "2019-12-30T22:00:00.5Z", "2019-12-30T16:00:00-0500"],
        ["1.5e3", "1499", "-2"],
        [" 30", "20 ", "3"],
    ],
)
def test_texts_that_read_one_way_give_the_order(times):
    assert order(times) == [2, 1, 0]


@pytest.mark.parametrize("mark", "/.-")
@pytest.mark.parametrize("clock", ["", " 9:05", " 09:05:58"])
def test_days_and_months_that_read_both_ways_are_refused(mark, clock):
    times = [f"01{mark}12{mark}2019{clock}", f"02{mark}03{mark}2019{clock}"]
    with pytest.raises(DataError, match=r"can be read as '%d.%m.%Y.*' and as '%m.%d.%Y.*': .*time_format= .*--time-format"):
        order(times)
    spelled = f"{mark}%Y{' %H:%M' if clock else ''}{':%S' if clock.count(':') == 2 else ''}"
    assert order(times, f"%d{mark}%m{spelled}") == [1, 0] and order(times, f"%m{mark}%d{spelled}") == [0, 1]


def test_both_readings_may_be_the_same():
    assert order(["02/02/2020", "01/01/2020"]) == [1, 0]


@pytest.mark.parametrize(
    ("times", "rows", "value", "time_format"),
    [
        (["11/13/2019 9:05:58 AM", "11/12/2019 9:05:58 PM"], "0, 1", "11/13/2019 9:05:58 AM", "%m/%d/%Y %I:%M:%S %p"),
        (["09 1, 2016", "08 30, 2016"], "0, 1", "09 1, 2016", "%m %d, %Y"),
    ],
)
def test_other_texts_name_row_and_value_and_take_a_format(times, rows, value, time_format):
    with pytest.raises(DataError) as error:
        order(times)
    assert f"unreadable in 2 rows (rows {rows}): {value!r}" in str(error.value)
    assert "time_format='%m/%d/%Y %I:%M:%S %p'" in str(error.value) and "--time-format" in str(error.value)
    assert order(times, time_format) == [1, 0]


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (["1", "2", "N/A"], "1 rows (rows 2): 'N/A'"),
        (["1,5", "2,5"], "2 rows (rows 0, 1): '1,5', '2,5'"),
        (["1", "", None, "  "], "3 rows (rows 1, 2, 3): '', None, '  '"),
        (["1", "inf", "nan"], "2 rows (rows 1, 2): 'inf', 'nan'"),
        ([1.0, float("inf"), float("-inf")], "2 rows (rows 1, 2): inf, -inf"),
        ([None, None], "2 rows (rows 0, 1): None"),
        (["2024-02-28", "2024-02-30"], "1 rows (rows 1): '2024-02-30'"),
        (["2024-01-01T10:00Z", "2024-01-01"], "1 rows (rows 1): '2024-01-01'"),
        (["13/12/2019", "yesterday"], "1 rows (rows 1): 'yesterday'"),
        (["31/12/19", "01/12/19"], "2 rows (rows 0, 1): '31/12/19'"),
    ],
)
def test_unreadable_times_name_row_and_value(times, told):
    with pytest.raises(DataError) as error:
        order(times)
    assert f"timestamp is null or unreadable in {told}" in str(error.value)


@pytest.mark.parametrize("times", [[True, False], [datetime.time(3), datetime.time(4)], [[1], [2]]])
def test_what_has_no_order_in_time_is_refused(times):
    with pytest.raises(DataError, match="timestamp has type .*; expected numbers, dates or date-times"):
        order(times)


def test_a_format_is_for_texts_and_whole_numbers():
    assert order([20240131, 20231231], "%Y%m%d") == [1, 0]
    with pytest.raises(DataError, match="no timestamp reads as time_format='%d.%m.%Y': the first is '2024-01-01'"):
        order(["2024-01-01"], "%d.%m.%Y")
    with pytest.raises(DataError, match="1 rows .rows 1.: 'soon'"):
        order(["01.02.2024", "soon"], "%d.%m.%Y")
    with pytest.raises(DataError, match="2 rows .rows 0, 1.: '01.02.24'|no timestamp reads as"):
        order(["01.02.24", "01.02.98"], "%d.%m.%Y")
    assert order(["01.02.24", "01.02.98"], "%d.%m.%y") == [1, 0]
    with pytest.raises(DataError, match="but timestamp has type Float64 already; leave it out"):
        order([1.5], "%Y")
    with pytest.raises(DataError, match="but there is no column 'timestamp'"):
        read_interactions(events([1]).drop("timestamp"), time_format="%Y")


def test_the_format_reaches_datasets():
    items = pl.DataFrame({"item_id": ["i0", "i1"], "text": ["x", "y"]})
    dataset = InteractionDataset.from_tables(events(["01/12/2019", "02/03/2019"]), items, time_format="%d/%m/%Y")
    assert dataset.items.ids(dataset.events[0]) == ["i1", "i0"]


@pytest.mark.parametrize("offset", ["+99:99", "+24:00", "-01:60"])
def test_offsets_that_no_clock_has_are_unreadable(offset):
    with pytest.raises(DataError, match="timestamp is null or unreadable in 1 rows"):
        order([f"2024-01-01 10:00:00{offset}", "2024-01-01 10:00:00+23:59"])


moments = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2099, 12, 31))


@given(st.lists(moments, min_size=1, max_size=9), st.sampled_from(["%Y-%m-%dT%H:%M:%S.%f", "%Y/%m/%d %H:%M:%S.%fZ"]))
def test_iso_times_give_their_own_order(times, written):
    assert order([time.strftime(written) for time in times]) == sorted(range(len(times)), key=times.__getitem__)


@given(st.lists(st.dates(datetime.date(1970, 1, 1), datetime.date(2099, 12, 31)), min_size=1, max_size=9))
def test_dates_are_read_as_written_or_refused(dates):
    try:
        found = order([date.strftime("%m/%d/%Y") for date in dates])
    except DataError as error:
        assert "can be read as" in str(error)
    else:
        assert found == sorted(range(len(dates)), key=dates.__getitem__)


@given(st.lists(st.floats() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9))
def test_numbers_give_their_order_or_are_refused(times):
    texts = [repr(time) for time in times]
    if all(abs(time) < float("inf") for time in times):
        as_read = times if all(isinstance(time, int) for time in times) else list(map(float, times))
        assert order(texts) == sorted(range(len(times)), key=as_read.__getitem__)
    else:
        with pytest.raises(DataError, match="timestamp is null or unreadable"):
            order(texts)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_is_read_or_refused_in_our_own_words(times):
    try:
        order([time.encode(errors="replace").decode() for time in times])
    except DataError as error:
        assert "timestamp" in str(error)


def in_chunks(*columns: list[str]) -> pl.DataFrame:
    """Events whose columns lie in several pieces."""
    rows = pl.concat([pl.Series("timestamp", times) for times in columns])
    return events(rows).with_columns(
        rows, action=pl.Series(["view"] * len(columns[0]) + ["buy"] * (len(rows) - len(columns[0])))
    )


def kept(table: pl.DataFrame) -> list[str]:
    """The bought items, in order of time."""
    items = table.select("item_id", text=pl.lit("x"))
    chosen = EventSettings(event="action", targets=["buy"])
    dataset = InteractionDataset.from_tables(table, items, events=chosen)
    return dataset.items.ids(dataset.events[0])


@pytest.mark.parametrize("parts", [[["2024-01-01"] * 2, ["2024-01-03", "2024-01-02"]], [["1"], ["3"], [], ["2"]]])
def test_pieces_of_which_nothing_is_left_are_passed_over(parts):
    table = in_chunks(*parts)
    assert table["timestamp"].n_chunks() > 1
    wanted = table["item_id"].to_list()[:-3:-1]
    assert kept(table) == wanted
    left = table.filter(pl.col("action") == "buy")
    assert read_interactions(left)["item_id"].to_list() == wanted


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        (["25/01/2024", "someday"], ["i3", "i2"]),
        (["01/25/2024", None], ["i2", "i3"]),
        (["25/01/2024", "01/25/2024"], None),
        (["someday", "01.25.2024"], None),
        (["02/03/2024", "05/05/2024"], None),
    ],
)
def test_rows_that_are_no_events_tell_whether_days_come_first(kind, others, wanted):
    table = in_chunks(others, ["01/12/2024", "02/03/2024"]).with_columns(pl.col("timestamp").cast(kind))
    if wanted is not None:
        assert kept(table) == wanted
    else:
        with pytest.raises(DataError, match="can be read as '%d/%m/%Y' and as '%m/%d/%Y': the first is '01/12/2024'"):
            kept(table)


def moments_of_kinds():
    naive = datetime.datetime(2025, 1, 1, 10)
    aware = naive.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45)))
    return {"date": naive.date(), "naive": naive, "aware": aware}


@pytest.mark.parametrize("kinds", list(itertools.permutations(["date", "naive", "aware"], 2)), ids="-".join)
@pytest.mark.parametrize("gap", [None, pd.NaT])
def test_columns_of_objects_do_not_mix_kinds_of_times(kinds, gap):
    values = [moments_of_kinds()[kind] for kind in kinds]
    frame = pd.DataFrame({"t": pd.Series([gap, *values], dtype=object)})
    texts = [None, *map(str, values)]
    assert column_of("t", [gap, *values]).to_list() == load_frame(frame)["t"].to_list() == texts
    frame = events([0, 1]).to_pandas().assign(timestamp=pd.Series(values, dtype=object))
    if "aware" not in kinds:
        assert read_interactions(frame)["timestamp"].to_list() == [
            datetime.datetime(2025, 1, 1, hour) for hour in sorted(10 * (kind == "naive") for kind in kinds)
        ]
        return
    with pytest.raises(DataError, match="unreadable in 1 rows .*an offset in all rows or in none"):
        read_interactions(frame)


@pytest.mark.parametrize(
    ("directive", "text", "mend"),
    [
        ("%Z", "EDT", "names of zones tell no offset; write offsets and %z"),
        ("%S.%f", "07.5", r"write %\.f in place of \.%f"),
        ("%S.%-f", "07.5", r"write %\.f in place of \.%f"),
    ],
)
def test_directives_that_would_be_passed_over_are_refused(directive, text, mend):
    with pytest.raises(DataError, match=rf"time_format='%F %H:%M {directive}' has .*{mend}"):
        read_interactions(events([f"2025-11-02 01:30 {text}"]), time_format=f"%F %H:%M {directive}")


def test_what_messages_tell_to_write_in_their_place_is_read():
    zoned = ["2025-11-02 01:30 -0400", "2025-11-02 01:10 -0500"]
    assert order(zoned[::-1], "%F %H:%M %z") == [1, 0] and order(["1 EST %Z", "0 EST %Z"], "%s EST %%Z") == [1, 0]
    for texts, form in ((["07.5", "07.25"], "%S%.f"), (["07.500000", "07.250000"], "%S.%6f")):
        found = read_interactions(events([f"2025-11-02 01:30:{text}" for text in texts]), time_format=f"%F %H:%M:{form}")
        assert [time.microsecond for time in found["timestamp"]] == [250_000, 500_000]
