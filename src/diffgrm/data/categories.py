"""Columns of categories: how their values are spelled, and their numbers among those that a recipe names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from diffgrm.foundation.event_settings import spelled_value
from diffgrm.foundation.schema import DataError, first_few

logger = logging.getLogger(__name__)


def no_category(kind: pl.DataType) -> str | None:
    """What is wrong with a column of a type as one of categories, from ``of type`` on; None: nothing."""
    if not (kind.is_nested() or kind in (pl.Binary, pl.Object, pl.Duration)):
        return None
    way = "make texts or numbers of them"
    if kind.is_nested():
        way = (
            "take one of each list (polars' .list.first()) or a field of each struct, or join them to one text (.list.join)"
        )
    return f"of type {kind}; expected one text, number or truth value a row: {way}"


def told_value(value: Any, where: str) -> str | None:
    """A value that somebody tells in a request, as :func:`spelled_values` has it.

    Args:
        where: begins the message: whose value it is, and of which column.

    Raises:
        DataError: a list or another thing that holds several.
    """
    if isinstance(value, bytes | bytearray) or (isinstance(value, Iterable) and not isinstance(value, str)):
        raise DataError(f"{where} is {value!r}; expected one text, number or truth value, or None")
    return spelled_value(value)


def spelled_values(column: pl.Series) -> pl.Series:
    """Values as text, as :func:`diffgrm.foundation.event_settings.spelled_value` has them.

    >>> spelled_values(pl.Series([5.0, None, 2.5])).to_list(), spelled_values(pl.Series([True, False])).to_list()
    (['5', None, '2.5'], ['true', 'false'])
    """
    texts = column.cast(pl.String)
    return texts.str.strip_suffix(".0") if column.dtype.is_float() else texts


def value_numbers(column: pl.Series, named: Sequence[str]) -> pl.Series:
    """[N] Int16, of each value its number among those named, from 1; 0: it is none of them, or null.

    >>> value_numbers(pl.Series(["b", None, "c", "a"]), ["a", "b"]).to_list()
    [2, 0, 0, 1]
    """
    numbered = {value: number for number, value in enumerate(named, 1)}
    return spelled_values(column).replace_strict(numbered, default=0, return_dtype=pl.Int16)


def named_values(numbers: np.ndarray, name: str, named: Sequence[str]) -> pl.Series:
    """The column that :func:`value_numbers` read, in which all other values are null."""
    at = pl.Series(numbers.astype(np.int64) - 1)
    return pl.Series(named, dtype=pl.String).gather(at.set(at < 0, None)).alias(name)


def unnamed_problem(there: pl.Series, setting: str, named: Sequence[str], whose: str) -> str | None:
    """What is wrong if a column has none of the values named; if it has others besides, a warning tells them.

    Args:
        there: the column's values, as :func:`spelled_values` has them; it bears the column's name.
        setting: that names them, such as ``events.user_columns``.
        whose: values, in the singular.
    """
    there = there.drop_nulls().unique().sort()
    others = there.filter(~there.is_in(named))
    if len(others) == len(there):
        return (
            f"{setting}: no {whose} has any of the values {list(named)} in the column {there.name!r}, which has "
            f"{first_few(map(repr, there)) or 'none'}"
        )
    if len(others):
        logger.warning("values of %s that %s does not name count as one: %s", there.name, setting, first_few(others))
    return None
