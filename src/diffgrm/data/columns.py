"""Columns of values as they come: their names told apart, their values of one kind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from diffgrm.foundation.plain_values import LONGEST_SHOWN

UNFIT = (TypeError, ValueError, OverflowError, NotImplementedError, pl.exceptions.PolarsError)  # of values and columns


def unique_names(names: Iterable[str]) -> list[str]:
    """Column names, repeated ones with a number behind.

    >>> unique_names(["a", "b", "a"])
    ['a', 'b', 'a_duplicated_0']
    """
    found: dict[str, None] = {}
    for name in names:
        new, number = name, 0
        while new in found:
            new, number = f"{name}_duplicated_{number}", number + 1
        found[new] = None
    return list(found)


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a table with all columns that any of them has; see :func:`column_of`."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([column_of(name, [row.get(name) for row in rows]) for name in names])


def column_of(name: str, values: list[Any]) -> pl.Series:
    """Values of any kinds as one column: of their own type, or as texts where they have several.

    Whole and other numbers are floats, in whatever order they stand, and texts where that would change one. So are times of
    several kinds (:func:`mixes_times`).

    >>> column_of("price", [1, 2.5]).to_list(), column_of("price", [2.5, 2**53 + 1]).to_list()
    ([1.0, 2.5], ['2.5', '9007199254740993'])
    """
    values = [None if _is_nothing(value) else value for value in values]
    kinds = {type(value) for value in values} - {type(None)}
    if bool not in kinds or len(kinds) == 1:  # polars would take True for 1
        try:
            found = pl.Series(name, values, _kind(values, kinds), strict=True)
        except UNFIT:
            pass
        else:
            if found.dtype != pl.Object and not mixes_times(found.dtype, values):
                return found
    return pl.Series(name, [None if value is None else _text(value) for value in values], pl.String)


def mixes_times(kind: pl.DataType, values: Iterable[Any]) -> bool:
    """Whether values of which a library made a column of times are of several kinds: dates, moments in a zone and in none.

    The library has cut the hours off, then, or taken moments in no zone for those of UTC.

    >>> mixes_times(pl.Date(), [date(2024, 1, 31), None, datetime(2024, 1, 31, 9)])
    True
    """
    times = (value for value in values if isinstance(value, date)) if kind.is_temporal() else ()  # date-times are dates too
    return len({(isinstance(time, datetime), getattr(time, "tzinfo", None) is None) for time in times}) > 1


def _kind(values: list[Any], kinds: set[type]) -> Any:
    """The type of a column of whole and other numbers; None where polars is to find it.

    Raises:
        ValueError: floats would change one of them.
    """
    whole = {kind for kind in kinds if issubclass(kind, int | np.integer)}
    if not whole or whole == kinds or not all(issubclass(kind, float | np.floating) for kind in kinds - whole):
        return None
    if changed := [value for value in values if type(value) in whole and int(float(value)) != int(value)]:
        raise ValueError(f"floats change {changed[0]}")
    return pl.Float64


def shown_cell(column: pl.Series, row: int) -> str:
    """A value of a column for messages, on one line: lists and structs as Python has them.

    >>> shown_cell(pl.Series([["a"]]), 0)
    "['a']"
    """
    text = repr(column[row : row + 1].to_list()[0])
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def _is_nothing(value: Any) -> bool:
    """Whether a value is NaN, or what pandas has for nothing."""
    return (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def _text(value: Any) -> str:
    found = value if isinstance(value, str) else _json(value) if isinstance(value, dict | list) else str(value)
    return found.encode(errors="replace").decode()  # lone surrogates


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
