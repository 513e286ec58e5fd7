"""Ids match by their own spelling, and lists of ids come in many forms."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgrm.data import ids as ids_module
from diffgrm.data.ids import IdMap, id_list
from diffgrm.data.tables import read_interactions
from diffgrm.foundation.schema import DataError

NUMBERS, TEXTS = IdMap(pl.Series([7, 8])), IdMap(pl.Series(["7", "007", "b"]))
TIMES = [datetime.datetime(1970, 1, 1), pd.Timestamp(7)]
NO_IDS = [7.9, 7.0, True, None, float("nan"), *TIMES, np.float64(7), [7], {7: 7}, b"7"]


@pytest.mark.parametrize("value", ["007", "+7", " 7", "7.0", "7e0", "\u0667", "\ud800", "-7", 10**30, *NO_IDS], ids=repr)
def test_what_is_nearly_an_id_is_not_taken_for_it(value):
    assert NUMBERS.positions([value, 8]).tolist() == [-1, 1]


@pytest.mark.parametrize("value", [7, "7", np.int32(7), np.uint8(7), np.str_("7")], ids=repr)
def test_an_id_is_known_as_number_and_as_text(value):
    assert NUMBERS.positions([value]).tolist() == [0] and TEXTS.positions([value]).tolist() == [0]


def test_text_ids_keep_their_zeros():
    assert TEXTS.positions(["007", 7, "b", *NO_IDS]).tolist() == [1, 0, 2] + [-1] * len(NO_IDS)


@pytest.mark.parametrize("column", [pl.Series, pd.Series, np.array, pa.array])
def test_columns_of_every_library_match_by_spelling(column):
    assert NUMBERS.positions(column([8, 7, 9])).tolist() == [1, 0, -1]
    assert NUMBERS.positions(column(["8", "07"])).tolist() == [1, -1]
    assert NUMBERS.positions(column([True, False])).tolist() == [-1, -1]


def test_a_column_of_whole_floats_is_one_of_whole_numbers_and_no_other_is():
    assert NUMBERS.positions(pd.Series([7, None, 8])).tolist() == [0, -1, 1]
    assert TEXTS.positions(np.array([7.0])).tolist() == [0]
    assert NUMBERS.positions(np.array([7.0, 8.5])).tolist() == [-1, -1]


@pytest.mark.parametrize(("kind", "most"), [(np.float32, 2**24), (np.float64, 2**53)])
def test_floats_that_do_not_tell_whole_numbers_apart_are_no_ids(kind, most):
    known = IdMap(pl.Series([most - 1, most]))
    assert known.positions(np.array([most - 1], kind)).tolist() == [0]
    assert known.positions(np.array([most - 1, most + 1], kind)).tolist() == [
        -1,
        -1,
    ]  # the second is most, as floats have it
    users = pl.DataFrame({"user_id": pl.Series(np.array([most - 1, most + 1], kind)), "item_id": ["a", "a"]})
    said = rf"user_id has type Float\d\d; expected text or whole numbers \(row 1 holds {float(most)}; cast it first\)"
    with pytest.raises(DataError, match=said):
        read_interactions(users)
    assert read_interactions(users[:1])["user_id"].to_list() == [most - 1]


def test_what_pandas_has_for_nothing_is_no_id():
    assert NUMBERS.positions(pd.array([7, None], dtype="Int64")).tolist() == [0, -1]
    assert TEXTS.positions(pd.Series(["b", pd.NA, pd.NaT, 7], dtype=object)).tolist() == [2, -1, -1, 0]


def test_few_of_many_and_many_are_found():
    many = IdMap(pl.Series(range(1000)))
    assert many.positions(["7", 7, 7.5, True, "007", None]).tolist() == [7, 7, -1, -1, -1, -1]
    asked = np.random.default_rng(0).integers(-500, 1500, 5000)
    assert many.positions(asked).tolist() == [value if 0 <= value < 1000 else -1 for value in asked.tolist()]
    assert IdMap(pl.Series([], dtype=pl.String)).positions(["a", "b"]).tolist() == [-1, -1]


@pytest.mark.parametrize("texts", [False, True])
def test_ids_whose_hashes_are_equal_are_told_apart(monkeypatch, texts):
    monkeypatch.setattr(ids_module, "_hashes", lambda ids: ids.cast(pl.Int64).fill_null(3).to_numpy().astype(np.uint64) % 4)
    known = IdMap(pl.Series(range(0, 60, 2)).cast(pl.String if texts else pl.Int64))
    asked = [*range(61), None]
    wanted = [value // 2 if value % 2 == 0 and value < 60 else -1 for value in asked[:-1]]
    assert known.positions(asked).tolist() == [*wanted, -1]


ids = st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"))


@given(st.lists(ids, unique_by=str, min_size=1), st.data())
def test_text_catalogues_find_every_id_by_its_spelling_alone(spellings, data):
    known = IdMap(pl.Series([str(value) for value in spellings], dtype=pl.String))
    assert known.positions(spellings).tolist() == list(range(len(spellings)))
    other = data.draw(ids.filter(lambda value: str(value) not in set(map(str, spellings))))
    assert known.positions([other]).tolist() == [-1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1), st.text())
def test_number_catalogues_know_only_the_usual_spelling(numbers, text):
    known = IdMap(pl.Series(numbers, dtype=pl.Int64))
    wanted = list(range(len(numbers)))
    assert known.positions(numbers).tolist() == wanted == known.positions(list(map(str, numbers))).tolist()
    found = known.positions([text.encode(errors="replace").decode()])[0]
    assert found == (numbers.index(int(text)) if text in map(str, numbers) else -1)


# ---- lists of ids ---------------------------------------------------------------------------------------------------


def table(folder: Path) -> Path:
    pl.DataFrame({"item_id": ["1", "2"]}).write_csv(folder / "only[1].csv")
    return folder / "only[1].csv"


@pytest.mark.parametrize(
    "form",
    [
        ["1", "2"],
        ("1", "2"),
        {"1": 0, "2": 0}.keys(),
        iter(["1", "2"]),
        np.array(["1", "2"]),
        pl.Series(["1", "2"]),
        pd.Series(["1", "2"]),
        pa.array(["1", "2"]),
        pl.DataFrame({"item_id": ["1", "2"]}),
        pl.LazyFrame({"item_id": ["1", "2"]}),
        pd.DataFrame({"item_id": ["1", "2"]}),
        pa.table({"item_id": ["1", "2"]}),
        table,
    ],
)
def test_every_form_of_a_list_is_taken(form, tmp_path):
    assert id_list(form(tmp_path) if form is table else form, "item_id", "only") == ["1", "2"]


def test_a_set_and_numbers_and_one_id_are_taken_and_a_text_is_always_an_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path)
    assert id_list({3}, "item_id", "only") == [3]
    assert id_list(np.array([3.0, 4.0]), "item_id", "only") == [3, 4]
    assert id_list("item 17", "item_id", "only") == ["item 17"] and id_list(7, "item_id", "only") == [7]
    assert id_list("only[1].csv", "item_id", "only") == ["only[1].csv"]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"a": 1}, r"'only' is \{'a': 1\}; expected one id, a list, set, array or series of ids, a table with the column"),
        (7.5, "'only' is 7.5; expected one id"),
        (True, "'only' is True; expected one id"),
        (b"7", "'only' is b'7'; expected one id"),
        ([["a"], "b"], r"'only' holds 1 values that are not ids: \['a'\] \(place 0\); ids are texts or whole numbers"),
        (["a", None, 7.0], r"2 values that are not ids: None \(place 1\), 7.0 \(place 2\)"),
        (pd.Series([1, None]), r"1 values that are not ids: None \(place 1\)"),
        (np.array([[1]]), r"1 values that are not ids: array\(\[1\]\)"),
        (pl.DataFrame({"item": ["a"]}), "'only' is a table with the columns .*expected 'item_id'; did you mean 'item'"),
        (Path("nowhere.csv"), "there is no 'only' file nowhere.csv"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(form, message):
    with pytest.raises(DataError, match=message):
        id_list(form, "item_id", "only")
