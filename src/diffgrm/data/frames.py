"""Frames and columns of any library as those of polars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.columns import UNFIT, column_of, mixes_times, unique_names
from diffgrm.data.files import read_file
from diffgrm.foundation import forks
from diffgrm.foundation.schema import Columns, DataError

KEYS = (Columns.USER, Columns.ITEM, Columns.TIMESTAMP, Columns.DOCUMENT, Columns.QUERY)  # of which an index must be none
VALUES = {"pandas": "tolist", "pyarrow": "to_pylist"}  # what every column of a library has, and no single value


def load_frame(source: Any, what: str = "table") -> pl.DataFrame:
    """A path or a frame of any library as a polars frame.

    Of columns of one name, the second is called ``NAME_duplicated_0``, and so on. Columns that hold values of several kinds
    become text.

    Raises:
        DataError: no such file, unknown format, a damaged file, or something that is not a table.
    """
    forks.check()
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        try:
            return source.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"the {what} is a LazyFrame that cannot be collected: {error}") from error
    if isinstance(source, str | os.PathLike):
        return read_file(source, what)
    if is_frame(source):
        kind = _library(source)
        names = list(source.columns if kind == "pandas" else source.column_names)
        if kind == "pandas" and (lost := [name for name in source.index.names if name in KEYS and name not in names]):
            raise DataError(
                f"the {what} has {lost[0]!r} as its index, and indices are not read; make a column of it with "
                ".reset_index(), or drop it with .reset_index(drop=True)"
            )
        columns = [source.iloc[:, i] if kind == "pandas" else source.column(i) for i in range(len(names))]
        return pl.DataFrame([_column(n, c) for n, c in zip(unique_names(map(str, names)), columns, strict=True)])
    raise DataError(f"cannot read a {what} from {type(source).__name__}; give a path or a polars, pandas or arrow table")


def is_frame(source: Any) -> bool:
    """Whether something is a table of a library that is known."""
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return True
    return (_library(source), type(source).__name__) in {
        ("pandas", "DataFrame"),
        ("pyarrow", "Table"),
        ("pyarrow", "RecordBatch"),
    }


def as_series(source: Any) -> pl.Series | None:
    """A column of any library as a polars series; None for what is no column, or one of Python objects."""
    if isinstance(source, pl.Series):
        found = source
    elif isinstance(source, np.ndarray) and source.ndim == 1 and source.dtype.kind in "biufUM":
        found = pl.Series(source)
    elif hasattr(source, VALUES.get(_library(source), "")) and not is_frame(source):
        found = _column("", source)
    else:
        return None
    return None if found.dtype == pl.Object else found


def is_list(entry: Any) -> bool:
    """Whether something is a list of values in an order: a list, tuple, array or column."""
    if isinstance(entry, str | bytes | bytearray):
        return False
    return isinstance(entry, Sequence | np.ndarray) or as_series(entry) is not None


def _column(name: str, column: Any) -> pl.Series:
    """A column of pandas or arrow."""
    pandas = _library(column) == "pandas"
    try:
        found = pl.Series(name, pl.from_pandas(column) if pandas else pl.from_arrow(column))
        if not (pandas and column.dtype == object and mixes_times(found.dtype, column.dropna())):
            return found
    except (*UNFIT, ImportError):  # of pandas without pyarrow
        pass
    return column_of(name, getattr(column, VALUES[_library(column)])())


def _library(source: Any) -> str:
    return type(source).__module__.partition(".")[0]
