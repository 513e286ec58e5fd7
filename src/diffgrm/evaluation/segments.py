"""Held-out events by a column of a table of users."""

from __future__ import annotations

from typing import Any

import polars as pl

from diffgrm.data.profiles import user_table
from diffgrm.foundation.schema import Columns, DataError, first_few

SEGMENT = "segment:"  # what columns of held-out events begin with that hold their users' segments
MOST, UNKNOWN = 50, "(unknown)"


def with_segment(events: pl.DataFrame, users: Any, column: str) -> pl.DataFrame:
    """Held-out events with a column of their users, for :func:`diffgrm.evaluation.kinds.by_kind`.

    Args:
        events: of :func:`diffgrm.evaluation.kinds.with_kinds`.
        users: a path or a frame with ``user_id`` and the column, a row a user; users that it lacks, or that have nothing
            there, are a segment of their own.

    Raises:
        DataError: an unusable table, one that knows none of the users, or too many different values.
    """
    table = user_table(users, [column]).rename({column: SEGMENT + column})
    values = table[SEGMENT + column].n_unique()
    if values > MOST:
        raise DataError(f"{column!r} has {values:,} different values; expected at most {MOST}: put them in bins first")
    key = events[Columns.USER].cast(pl.String)
    if not key.is_in(table[Columns.USER].implode()).any():
        raise DataError(
            f"the table of users knows none of the users that are evaluated: it has {first_few(table[Columns.USER], 3)}; "
            f"they are {first_few(key.unique(maintain_order=True), 3)}"
        )
    found = key.to_frame().join(table, on=Columns.USER, how="left", maintain_order="left")[SEGMENT + column]
    return events.with_columns(found.fill_null(UNKNOWN))
