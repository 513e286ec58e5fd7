"""What a column of an item table takes: what it holds as it is, and nothing else."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import polars as pl
import pytest

from diffgrm.data.conversions import as_kind, column_of_kind, misfit

NOON = dt.datetime(2024, 5, 1, 12)
DAY = dt.datetime(2024, 5, 1)
BERLIN = pl.Series([NOON]).dt.replace_time_zone("Europe/Berlin")
TEXTS, PRICE = pl.List(pl.String()), pl.Decimal(10, 2)
STRUCT = pl.Struct({"a": pl.Float64(), "b": pl.String()})


def series(values, kind=None):
    return pl.Series("column", values, kind)


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        (series([1, None], pl.Int32), pl.Int64(), [1, None]),
        (series([1.0, None, 3.0]), pl.Int64(), [1, None, 3]),  # pandas' whole numbers with gaps
        (series(["3", None, "-007"]), pl.Int64(), [3, None, -7]),
        (series([3]), pl.Float64(), [3.0]),
        (series([0.1]), pl.Float32(), [pytest.approx(0.1, abs=1e-8)]),
        (series(["1.50", "9007199254740992", "-2e3"]), pl.Float64(), [1.5, 2.0**53, -2000.0]),
        (series([float("nan"), float("inf")]), pl.Float32(), [pytest.approx(float("nan"), nan_ok=True), float("inf")]),
        (series(["true", None, "False"]), pl.Boolean(), [True, None, False]),
        (series([5, None]), pl.String(), ["5", None]),
        (series([1.5]), pl.String(), ["1.5"]),
        (series([DAY.date()]), pl.String(), ["2024-05-01"]),
        (series(["x"], pl.Categorical), pl.String(), ["x"]),
        (series([DAY]), pl.Date(), [DAY.date()]),
        (series([DAY.date()]), pl.Datetime("us"), [DAY]),
        (series(["1.50", "2"]), PRICE, [Decimal("1.50"), Decimal("2.00")]),
        (series([1.5]), PRICE, [Decimal("1.50")]),
        (series([Decimal("1.50")], PRICE), pl.Float64(), [1.5]),
        (series([[1.0], [2.0, None], None, []]), pl.List(pl.Int64()), [[1], [2, None], None, []]),
        (series([[], [None]]), TEXTS, [[], [None]]),
        (series([["x"]], pl.Array(pl.String, 1)), TEXTS, [["x"]]),
        (series([[1, 2], None]), pl.Array(pl.Float64(), 2), [[1.0, 2.0], None]),
        (series([{"a": 1}]), STRUCT, [{"a": 1.0, "b": None}]),
        (series([None, None]), STRUCT, [None, None]),
        (series([["b"], ["a", None]], pl.List(pl.Categorical)), TEXTS, [["b"], ["a", None]]),
        (series([["a"]]), pl.List(pl.Enum(["a", "b"])), [["a"]]),
        (series([[DAY]], pl.List(pl.Datetime("ns"))), pl.List(pl.Datetime("us")), [[DAY]]),
        (series([{"a": 1, "b": "x"}], pl.Struct({"a": pl.Int8, "b": pl.Categorical})), STRUCT, [{"a": 1.0, "b": "x"}]),
    ],
)
def test_what_a_type_holds_as_it_is_becomes_of_that_type(given, kind, expected):
    found = as_kind(given, kind)
    assert found.dtype == kind and found.to_list() == expected and found.name == "column"


@pytest.mark.parametrize(
    ("given", "kind", "shown"),
    [
        (series([1.0, 3.7]), pl.Int64(), "3.7 in row 1"),
        (series([1.0, float("nan")]), pl.Int64(), "nan in row 1"),
        (series([1.0, 2.0**53]), pl.Int64(), "9007199254740992.0 in row 1"),
        (series([2**64 - 1], pl.UInt64), pl.Int64(), "18446744073709551615 in row 0"),
        (series([300]), pl.UInt8(), "300 in row 0"),
        (series([None, True]), pl.Int64(), "True in row 1"),
        (series([True]), pl.Float64(), "True in row 0"),
        (series([True]), pl.String(), "True in row 0"),
        (series([1, 2**53 + 1]), pl.Float64(), "9007199254740993 in row 1"),
        (series(["1.5", "9007199254740993"]), pl.Float64(), "'9007199254740993' in row 1"),
        *((series(["1.5", text]), pl.Float64(), f"'{text}' in row 1") for text in ("nan", "inf", "-inf", "1e400", " 1.5")),
        (series([1e300]), pl.Float32(), "1e+300 in row 0"),
        (series(["1.555"]), PRICE, "'1.555' in row 0"),
        (series([1.555]), PRICE, "1.555 in row 0"),
        (series([Decimal("1.50")], PRICE), pl.Int64(), "Decimal('1.50') in row 0"),
        (series([0.0]), pl.Boolean(), "0.0 in row 0"),
        (series([1]), pl.Boolean(), "1 in row 0"),
        (series(["yes"]), pl.Boolean(), "'yes' in row 0"),
        (series([{"x": {"y": 1}}]), pl.String(), "{'x': {'y': 1}} in row 0"),
        (series([None, ["A"]]), pl.String(), "['A'] in row 1"),
        (series(["a"]), TEXTS, "'a' in row 0"),
        (series([["a"], ["b"]]).list.eval(pl.element().str.len_chars()), TEXTS, "[1] in row 0"),
        (series([[1.0], [2.5]]), pl.List(pl.Int64()), "[2.5] in row 1"),
        (series([[1, 2], [3]]), pl.Array(pl.Int64(), 2), "[3] in row 1"),
        (series([{"a": 1, "c": 2}]), STRUCT, "{'a': 1, 'c': 2} in row 0"),
        (series([{"a": 1, "b": "x"}, {"a": 2**53 + 1, "b": "x"}]), STRUCT, "{'a': 9007199254740993, 'b': 'x'} in row 1"),
        (series([b"a"]), pl.String(), "b'a' in row 0"),
        (series([["a"], ["c"]]), pl.List(pl.Enum(["a", "b"])), "['c'] in row 1"),
        (series([[DAY], [NOON]]), pl.List(pl.Date()), "[datetime.datetime(2024, 5, 1, 12, 0)] in row 1"),
        (series([5]), pl.Date(), "5 in row 0"),
        (series([DAY, NOON]), pl.Date(), "datetime.datetime(2024, 5, 1, 12, 0) in row 1"),
        (series([[["x" * 100]]]), pl.String(), f"[['{'x' * 54}... in row 0"),
    ],
)
def test_what_would_be_changed_is_refused_with_its_row(given, kind, shown):
    with pytest.raises(ValueError) as caught:
        as_kind(given, kind)
    told = f"column is {shown}; expected values of type {kind}, or leave the column out (it has type {given.dtype})"
    assert str(caught.value) == told


def test_a_moment_is_the_same_in_every_zone():
    found = as_kind(BERLIN.alias("at"), pl.Datetime("us", "UTC"))
    assert found.dtype == pl.Datetime("us", "UTC") and found.dt.epoch().equals(BERLIN.dt.epoch())


def test_times_of_a_zone_and_of_none_are_not_the_same():
    with pytest.raises(ValueError, match="expected values of type Datetime"):
        as_kind(BERLIN.alias("at"), pl.Datetime("us"))
    with pytest.raises(ValueError, match="expected values of type Datetime"):
        as_kind(series([NOON]), pl.Datetime("us", "UTC"))
    assert as_kind(BERLIN, pl.Datetime("ms", "Europe/Berlin")).dt.hour().to_list() == [12]


@pytest.mark.parametrize("number", range(0, 200, 7))
def test_the_first_unfit_row_is_found_wherever_it_stands(number):
    values = ["1"] * 200
    values[number] = "one"
    with pytest.raises(ValueError, match=f"in row {number};"):
        as_kind(series(values), pl.Int64())


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2**63 - 1, pl.Int64()),
        (255, pl.UInt8()),
        (1.5, pl.Float64()),
        (2**53, pl.Float64()),
        (0.1, pl.Float32()),
        (True, pl.Boolean()),
        ("", pl.String()),
        (1.25, PRICE),
        (99_999_999, PRICE),
        (["a", None], TEXTS),
        ([], TEXTS),
        ([1, 2], pl.Array(pl.Int64(), 2)),
        ({"a": 1, "b": None}, STRUCT),
    ],
)
def test_values_of_json_that_a_type_holds(value, kind):
    assert misfit(value, kind) is None and misfit(None, kind) is None
    found = column_of_kind("column", [value, None], kind)
    whole = {"a": 1.0, "b": None} if value == {"a": 1, "b": None} else value
    assert found.dtype == kind and found[1] is None
    assert found.to_list()[0] == (pytest.approx(whole) if kind == pl.Float32 else whole)


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (True, pl.Int64(), "is a truth value; expected a whole number that Int64 holds"),
        ("3", pl.Int64(), "is a text; expected a whole number that Int64 holds"),
        (3.0, pl.Int64(), "is a number with a point; expected a whole number that Int64 holds"),
        (256, pl.UInt8(), "is a whole number; expected a whole number that UInt8 holds"),
        (2**53 + 1, pl.Float64(), "is a whole number; expected a number that Float64 holds"),
        (1e300, pl.Float32(), "is a number with a point; expected a number that Float32 holds"),
        (True, pl.Float64(), "is a truth value; expected a number that Float64 holds"),
        ("inf", pl.Float64(), "is a text; expected a number that Float64 holds"),
        (0.0, pl.Boolean(), "is a number with a point; expected true or false"),
        ("true", pl.Boolean(), "is a text; expected true or false"),
        (5, pl.String(), "is a whole number; expected a text"),
        ({"a": 1}, pl.String(), "is an object; expected a text"),
        (["a"], pl.String(), "is a list; expected a text"),
        ("zzz", pl.Enum(["a", "b"]), "is a text; expected one of 'a', 'b'"),
        (["a", "zzz"], pl.List(pl.Enum(["a", "b"])), "holds a text; expected a list of 'a', 'b'"),
        ("a", TEXTS, "is a text; expected a list of texts"),
        (["a", 1], TEXTS, "holds a whole number; expected a list of texts"),
        ([["a"]], TEXTS, "holds a list; expected a list of texts"),
        ([1], pl.Array(pl.Int64(), 2), "is a list; expected a list of 2 whole numbers that Int64 holds"),
        ({"c": 1}, STRUCT, "is an object; expected an object with a: a number that Float64 holds, b: a text"),
        (1.255, PRICE, f"is a number with a point; expected a number that {PRICE} holds exactly"),
        (10**9, PRICE, f"is a whole number; expected a number that {PRICE} holds exactly"),
        ("2024-05-01", pl.Date(), "is a text; expected null, for JSON has no values of type Date"),
    ],
)
def test_values_of_json_that_a_type_does_not_hold(value, kind, told):
    assert misfit(value, kind) == told
