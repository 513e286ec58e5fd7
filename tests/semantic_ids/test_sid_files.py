"""Files of semantic IDs: what is written is read again, published forms are read, and what cannot be used is told."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from diffgrm.foundation.schema import DataError
from diffgrm.semantic_ids import sid_files
from diffgrm.semantic_ids.sid_files import read_sids, write_sids

CODES = np.array([[3, 0, 65_535], [0, 0, 7], [3, 0, 65_535]], dtype=np.int32)
IDS = pl.Series("item_id", ["a", '7 "b"', "ö"])


@pytest.mark.parametrize("name", ["sids.parquet", "sids.json"])
@pytest.mark.parametrize("ids", [IDS, pl.Series("item_id", [5, 30, 7])])
def test_what_is_written_is_read_again(name, ids, tmp_path):
    write_sids(ids, CODES, tmp_path / name)
    table = read_sids(tmp_path / name)
    assert table.items.cast(pl.String).to_list() == ids.cast(pl.String).to_list()
    assert table.codes.dtype == np.int32 and np.array_equal(table.codes, CODES)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"letter": [[3, 0, 65_535], [0, 0, 7], [3, 0, 65_535]], "iba": [[1], [1], [1]]}, "letter"),
        ({"semantic_id": pl.Series(CODES, dtype=pl.Array(pl.Int64, 3))}, None),
        ({"digit_0": [3, 0, 3], "digit_1": [0, 0, 0], "digit_2": [65_535, 7, 65_535]}, None),
        (
            {"tokens": [["<a_3>", "<b_0>", "<c_65535>"], ["<a_0>", "<b_0>", "<c_7>"], ["<a_3>", "<b_0>", "<c_65535>"]]},
            "tokens",
        ),
    ],
)
def test_columns_of_every_kind_are_read(columns, column, tmp_path):
    pl.DataFrame({"item_id": IDS, **columns}).write_parquet(tmp_path / "x.parquet")
    table = read_sids(tmp_path / "x.parquet", column)
    assert table.items.to_list() == IDS.to_list() and np.array_equal(table.codes, CODES)


def test_ten_and_more_columns_of_digits_keep_their_order(tmp_path):
    pl.DataFrame({f"digit_{j}": [j] for j in range(12)} | {"item_id": ["a"]}).write_parquet(tmp_path / "x.parquet")
    assert read_sids(tmp_path / "x.parquet").codes.tolist() == [list(range(12))]


def test_items_without_a_value_have_no_semantic_id(tmp_path):
    pl.DataFrame({"item_id": ["a", "b"], "letter": [None, [1, 2]]}).write_parquet(tmp_path / "x.parquet")
    table = read_sids(tmp_path / "x.parquet", "letter")
    assert table.items.to_list() == ["b"] and table.codes.tolist() == [[1, 2]]


def test_json_of_numbers_and_of_tokens_is_read(tmp_path):
    (tmp_path / "n.json").write_text('{"0": [12, 7], "1": [3, 0]}')
    (tmp_path / "t.json").write_text('{"0": ["<a_12>", "<b_7>"], "1": ["<a_3>", "<b_0>"]}')
    for name in ("n.json", "t.json"):
        table = read_sids(tmp_path / name)
        assert table.items.to_list() == ["0", "1"] and table.codes.tolist() == [[12, 7], [3, 0]]


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.json").write_text('{"ö": [12, 7]}', encoding="utf-8-sig")
    table = read_sids(tmp_path / "x.json")
    assert table.items.to_list() == ["ö"] and table.codes.tolist() == [[12, 7]]


JSONS = [
    (r'{"a\ud800": [1], "b": [2]}', r"x.json: 'a\\ud800': half of a surrogate pair is no text; mend it"),
    (r'{"a": ["<a_1>"], "b": ["\udfff"]}', r"'\\udfff': half of a surrogate pair"),
    ("[1, 2]", r"expected one object \{item: digits\}, found a list"),
    ("{", "x.json is not JSON"),
    ("{}", "has no semantic ID of any item"),
    ('{"a": [1], "b": [2], "a": [3]}', "1 items stand there more than once: a; keep one of each"),
    ('{"a": [1, 2], "b": [1]}', r"have 1 to 2 digits, as of a \(2\) and b \(1\); expected as many for every item"),
    ('{"a": [], "b": []}', "semantic IDs have 0 digits; expected 1 to 64"),
    (json.dumps({"a": list(range(65))}), "semantic IDs have 65 digits; expected 1 to 64"),
    ('{"a": {"sid": [1]}}', r"1 items have no list of digits: a; expected \{item: \[12, 7, ...\]\}"),
    ('{"a": 3}', "1 items have no list of digits: a"),
    ('{"a": [1, -1], "b": [1, 2]}', "1 items have digits that are empty, below 0 or above 65535: a; digits count from 0"),
    ('{"a": [1, 65536], "b": [99999999999999999999, 2]}', "2 items have digits .* above 65535: a, b"),
    ('{"a": [1, 2.0]}', "its digits are float, int; expected whole numbers, or tokens such as '<a_12>'"),
    ('{"a": [true]}', "its digits are bool; expected whole numbers"),
    ('{"a": [null]}', "its digits are NoneType"),
    ('{"a": [{"b": 1}]}', "its digits are object; expected whole numbers"),
    ('{"a": ["<a_1>", "12"]}', "1 digits are no tokens: '12'; expected such as '<a_12>'"),
    (
        '{"a": ["<a_1>", "<b_2>"], "b": ["<a_1>", "<a_2>"]}',
        "digit 1 is written with the letters a, b; expected one for each",
    ),
    ('{"a": ["<a_70000>"]}', "1 items have digits .* above 65535: a"),
]


@pytest.mark.parametrize(("content", "text"), JSONS)
def test_json_that_cannot_be_used_is_refused(content, text, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=text):
        read_sids(tmp_path / "x.json")


PARQUETS = [
    ({"id": ["a"]}, None, r"has the columns \['id'\]; expected 'item_id', and a column of digits"),
    ({"item_id": ["a"], "letter": [[1]]}, "leter", "no column 'leter'; did you mean 'letter'"),
    ({"item_id": ["a"], "letter": [[1]]}, None, "no column 'semantic_id'; known: letter; name the one of the digits"),
    ({"item_id": ["a"], "letter": [1]}, "letter", "column 'letter' has type Int64; expected lists of digits"),
    ({"item_id": ["a"], "letter": [[1.5]]}, "letter", "its digits are of type Float64; expected whole numbers"),
    ({"item_id": ["a"], "letter": [[1, None]]}, "letter", "1 items have digits that are empty"),
    ({"item_id": ["a"], "letter": pl.Series([[2**63]], dtype=pl.List(pl.UInt64))}, "letter", "1 items have digits"),
    ({"item_id": ["a", "a"], "letter": [[1], [2]]}, "letter", "1 items stand there more than once: a"),
    ({"item_id": ["a", None], "letter": [[1], [2]]}, "letter", "1 rows have no item_id; leave them out"),
    ({"item_id": ["a"], "letter": pl.Series([None], dtype=pl.List(pl.Int64))}, "letter", "has no semantic ID of any item"),
    ({"item_id": ["a"], "digit_0": [1], "digit_1": [None]}, None, "1 items have digits that are empty"),
    (
        {"item_id": ["a"], "digit_0": [1], "digit_2": [3]},
        None,
        "has 2 columns of digits, but no digit_1; number them from 0 on",
    ),
    (
        {"item_id": ["a"], "digit_1": [1], "digit_2": [3]},
        None,
        "has 2 columns of digits, but no digit_0; number them from 0 on",
    ),
    ({"item_id": ["a"], "digit_0": [1], "digit_00": [3]}, None, "has the columns digit_0, digit_00 for one digit"),
    ({"item_id": ["a"], "digit_0": [1], "digit_100": [3]}, None, "has 2 columns of digits, but no digit_1"),
    ({"item_id": ["a"], "digit_0": [[1, 2]]}, None, r"column 'digit_0' has type List\(Int64\); expected a digit a row, or"),
]


@pytest.mark.parametrize(("columns", "column", "text"), PARQUETS)
def test_parquet_that_cannot_be_used_is_refused(columns, column, text, tmp_path):
    pl.DataFrame(columns).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=text):
        read_sids(tmp_path / "x.parquet", column)


def test_problems_of_a_file_are_told_at_once(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, 2], "b": [1], "a": [1, 2]}')
    with pytest.raises(DataError, match=r"(?s)x.json cannot be used:\n  - 1 items stand .*\n  - semantic IDs have 1 to 2"):
        read_sids(tmp_path / "x.json")


def test_files_of_other_kinds_and_sizes_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="there is no file of semantic IDs"):
        read_sids(tmp_path / "x.json")
    (tmp_path / "x.csv").write_text("item_id,digit_0\n")
    with pytest.raises(DataError, match=r"x.csv: semantic IDs are read from .parquet or .json"):
        read_sids(tmp_path / "x.csv")
    (tmp_path / "x.parquet").write_text("{}")
    with pytest.raises(DataError, match="is not a parquet file that can be read"):
        read_sids(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"cannot write x.csv: expected .parquet or .json"):
        write_sids(IDS, CODES, tmp_path / "x.csv")
    write_sids(IDS, CODES, tmp_path / "x.json")
    with pytest.raises(
        DataError, match="x.json has no columns, so there is no column 'letter' in it; leave the column out"
    ):
        read_sids(tmp_path / "x.json", "letter")
    write_sids(IDS, CODES, tmp_path / "x.parquet")
    monkeypatch.setattr(sid_files, "MOST_ITEMS", 2)
    with pytest.raises(DataError, match="says that it has 3 rows; expected at most 2"):
        read_sids(tmp_path / "x.parquet")
    monkeypatch.setattr(sid_files, "MOST_BYTES", 20)
    with pytest.raises(DataError, match=r"x.json has \d+ bytes; expected at most 20"):
        read_sids(tmp_path / "x.json")
