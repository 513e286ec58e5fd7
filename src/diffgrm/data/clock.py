"""Tables whose order and whose real times are two columns, the second with gaps."""

from __future__ import annotations

from typing import Any

import polars as pl

from diffgrm.data.frames import load_frame
from diffgrm.foundation.schema import Columns, DataError, did_you_mean


def with_clock(source: Any, column: str) -> tuple[pl.DataFrame, int]:
    """A table of events with another column as its times, and how many rows were left out for they have none in it.

    Events that are alike in time keep the order of the timestamps that there were.

    Args:
        source: a path or a frame; it is read into memory.
        column: of real times.

    Raises:
        DataError: there is no such column, or it has no times.
    """
    frame = load_frame(source, "interaction table")
    if column not in frame.columns:
        raise DataError(f"the interaction table has no column {column!r} for times{did_you_mean(column, frame.columns)}")
    if Columns.TIMESTAMP in frame.columns:
        frame = frame.sort(Columns.TIMESTAMP, maintain_order=True)
    timed = frame.filter(pl.col(column).is_not_null())
    if timed.height == 0:
        raise DataError(f"no event of the interaction table has a time in {column!r}; name another column")
    others = pl.all().exclude(Columns.TIMESTAMP, column)
    return timed.select(others, pl.col(column).alias(Columns.TIMESTAMP)), frame.height - timed.height
