from __future__ import annotations

import gzip

import pandas as pd
import polars as pl
import pytest

from diffgrm import InteractionDataset, read_table
from diffgrm.data.blocks import open_rows
from diffgrm.data.events import read_events
from diffgrm.data.ids import IdMap
from diffgrm.data.tables import read_interactions, read_items
from diffgrm.foundation.schema import DataError

EVENTS = pl.DataFrame({"user_id": ["u1", "u1", "u2"], "item_id": ["007", "b", "007"], "timestamp": [2, 1, 5]})
ITEMS = pl.DataFrame({"item_id": ["007", "b"], "text": ["first thing", "second thing"]})


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz"])
def test_every_format_reads_the_same_and_keeps_leading_zeros(tmp_path, suffix):
    path = tmp_path / f"events{suffix}"
    plain = tmp_path / f"events{suffix.removesuffix('.gz')}"
    {
        ".parquet": EVENTS.write_parquet,
        ".csv": EVENTS.write_csv,
        ".tsv": lambda p: EVENTS.write_csv(p, separator="\t"),
        ".jsonl": EVENTS.write_ndjson,
    }[suffix.removesuffix(".gz")](plain)
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_interactions(path)["item_id"].to_list() == ["b", "007", "007"]


@pytest.mark.parametrize("convert", [lambda f: f, lambda f: f.lazy(), lambda f: f.to_pandas(), lambda f: f.to_arrow()])
def test_frames_of_every_library_read_the_same(convert):
    assert read_table(convert(EVENTS)).equals(EVENTS)


def test_a_thing_that_is_no_table_is_refused():
    with pytest.raises(DataError, match="cannot read a table from dict"):
        read_table({"user_id": [1]})


def test_columns_can_be_renamed():
    theirs = EVENTS.rename({"user_id": "reviewerID", "item_id": "asin"})
    renamed = read_interactions(theirs, {"user_id": "reviewerID", "item_id": "asin"})
    assert renamed.columns == ["user_id", "item_id", "timestamp"]


def test_a_renaming_wins_over_a_column_of_that_name():
    table = EVENTS.with_columns(pl.lit("no").alias("asin")).rename({"asin": "other"})
    assert read_table(table, {"item_id": "other"})["item_id"].to_list() == ["no"] * 3


def test_a_misnamed_column_is_told_with_the_nearest_name_and_the_way_out():
    with pytest.raises(DataError) as error:
        read_interactions(EVENTS.rename({"user_id": "userid"}))
    assert "expected column 'user_id'; did you mean 'userid'?" in str(error.value)
    assert "columns={'user_id': 'YOUR_NAME'}" in str(error.value)


def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match="the interaction table is empty: expected at least one row"):
        read_interactions(EVENTS.head(0))


def test_columns_are_called_as_in_the_table():
    renamed = {"user_id": "visitor", "item_id": "item_id"}
    events = EVENTS.rename({"user_id": "visitor"}).with_columns(visitor=None)
    with pytest.raises(DataError, match=r"visitor \(user_id\) is null in"):
        read_interactions(events, renamed)
    with pytest.raises(DataError, match=r"visitor \(user_id\) is null in"):
        read_events(open_rows(events), IdMap(events["item_id"].unique()), renamed)
    with pytest.raises(DataError, match=r"sku \(item_id\) is null in 1 rows"):
        read_items(pl.DataFrame({"sku": ["a", None], "text": ["x", "y"]}), {"item_id": "sku"})


def test_null_ids_and_bad_timestamps_are_told_together_with_their_rows():
    bad = pl.DataFrame({"user_id": ["u", None], "item_id": [None, "b"], "timestamp": [1.0, float("nan")]})
    with pytest.raises(DataError) as error:
        read_interactions(bad)
    assert "user_id is null in 1 rows (rows 1)" in str(error.value)
    assert "item_id is null in 1 rows (rows 0)" in str(error.value)
    assert "timestamp is null or unreadable in 1 rows (rows 1)" in str(error.value)


def test_ids_of_another_type_are_refused():
    with pytest.raises(DataError, match="user_id has type Float64; expected text or whole numbers"):
        read_interactions(EVENTS.with_columns(pl.lit(1.5).alias("user_id")))


def test_duplicate_item_rows_are_refused():
    with pytest.raises(DataError, match=r"1 item ids have more than one row \(expected one each\): b"):
        read_items(pl.concat([ITEMS, ITEMS.tail(1)]))


@pytest.mark.parametrize("text", [None, "", "  ", "<br/>"])
def test_an_item_without_text_is_refused(text):
    with pytest.raises(DataError, match="1 items have no text: c; give them at least a title"):
        read_items(pl.concat([ITEMS, pl.DataFrame({"item_id": ["c"], "text": [text]}, schema=ITEMS.schema)]))


def test_html_is_taken_out_of_texts():
    table = read_items(pl.DataFrame({"item_id": ["a"], "text": ["<p>Salt &amp;\n pepper</p> if a < b"]}))
    assert table["text"][0] == "Salt & pepper if a < b"


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "events.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"events\.parquet could not be read"):
        read_interactions(tmp_path / "events.parquet")
    (tmp_path / "events.xyz").write_text("")
    with pytest.raises(DataError, match="unknown format; known: .parquet"):
        read_interactions(tmp_path / "events.xyz")
    with pytest.raises(DataError, match="there is no interaction table file"):
        read_interactions(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    "times",
    [
        [2_000_000_000, 1_000_000_000, 1_500_000_000],
        [2e12, 1e12, 1.5e12],
        ["2024-03-01", "2024-01-01", "2024-02-01"],
        ["2024-03-01T10:00:00", "2024-03-01T09:00:00", "2024-03-01T09:30:00"],
        pd.to_datetime(["2024-03-01", "2024-01-01", "2024-02-01"]),
    ],
)
def test_any_clock_gives_the_order(times):
    table = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["late", "early", "middle"], "timestamp": times})
    assert read_interactions(table)["item_id"].to_list() == ["early", "middle", "late"]


def test_without_timestamps_and_in_ties_rows_keep_their_order():
    table = pl.DataFrame({"user_id": ["u"] * 4, "item_id": list("dbca")})
    assert read_interactions(table)["item_id"].to_list() == list("dbca")
    assert read_interactions(table.with_columns(timestamp=pl.lit(3)))["item_id"].to_list() == list("dbca")


def test_events_of_unknown_items_are_refused():
    with pytest.raises(DataError, match="1 events are of 1 items that the item table does not have: 'b'; add them"):
        InteractionDataset.from_tables(EVENTS, ITEMS.head(1))


def test_ids_that_differ_by_a_space_are_shown_so():
    with pytest.raises(DataError, match="that the item table does not have: ' b'; add them"):
        InteractionDataset.from_tables(EVENTS.with_columns(item_id=pl.lit(" b")), ITEMS)


@pytest.mark.parametrize("name", ["user_id", "timestamp"])
def test_an_index_of_pandas_is_no_column_and_is_told(name):
    frame = EVENTS.to_pandas().set_index(name)
    said = rf"the interaction table has '{name}' as its index, and indices are not read; make a column .* \.reset_index\(\)"
    with pytest.raises(DataError, match=said):
        InteractionDataset.from_tables(frame, ITEMS)
    assert InteractionDataset.from_tables(frame.reset_index(), ITEMS).n_users == 2
    assert InteractionDataset.from_tables(EVENTS.to_pandas().rename_axis("row"), ITEMS).n_users == 2


def test_headers_in_another_case_are_found():
    with pytest.raises(DataError, match=r"expected column 'user_id'; did you mean 'USER_ID'\?"):
        InteractionDataset.from_tables(EVENTS.rename(str.upper), ITEMS)


def test_numbers_meet_text_ids():
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [10, 11]})
    items = pl.DataFrame({"item_id": ["10", "11"], "text": ["a", "b"]})
    dataset = InteractionDataset.from_tables(events, items)
    assert dataset.items.positions([11, "10", 12]).tolist() == [1, 0, -1]
    assert InteractionDataset.from_tables(events, items.cast({"item_id": pl.Int64})).items.ids([0]) == [10]


def test_a_renaming_reaches_the_table_that_has_the_column():
    dataset = InteractionDataset.from_tables(
        EVENTS, ITEMS.rename({"item_id": "asin", "text": "name"}), {"item_id": "asin", "text": "name"}
    )
    assert dataset.n_items == 2
    with pytest.raises(DataError, match="in the interaction table and the item table:\n  - 'asni'; did you mean 'asin'"):
        InteractionDataset.from_tables(EVENTS, ITEMS.rename({"item_id": "asin"}), {"item_id": "asni"})
    with pytest.raises(DataError, match="cannot rename to 'rating': the columns of .* are user_id"):
        InteractionDataset.from_tables(EVENTS, ITEMS, {"rating": "x"})


def test_columns_can_be_swapped():
    swapped = read_interactions(EVENTS, {"user_id": "item_id", "item_id": "user_id"})
    assert swapped["user_id"].to_list() == ["b", "007", "007"]


def test_huge_unsigned_ids_become_text():
    table = EVENTS.with_columns(pl.Series("user_id", [2**64 - 1, 2**64 - 1, 3], dtype=pl.UInt64))
    assert read_interactions(table)["user_id"].to_list() == ["18446744073709551615"] * 2 + ["3"]


def test_texts_may_come_in_lists_and_not_as_bytes():
    lists = pl.DataFrame({"item_id": ["a"], "text": [["Beauty", None, "Bath"]]})
    assert read_items(lists)["text"].to_list() == ["Beauty Bath"]
    with pytest.raises(DataError, match="text has type Binary; expected text"):
        read_items(pl.DataFrame({"item_id": ["a"], "text": [b"x"]}))


def test_a_damaged_gzip_is_named(tmp_path):
    good = gzip.compress(b'{"user_id": "u", "item_id": "a"}\n' * 100)
    (tmp_path / "e.jsonl.gz").write_bytes(good[:20] + bytes(b ^ 85 for b in good[20:]))
    with pytest.raises(DataError, match="could not be read"):
        read_interactions(tmp_path / "e.jsonl.gz")
