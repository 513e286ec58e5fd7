"""Held-out events by a column of a table of users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from diffgrm.data.profiles import user_table
from diffgrm.data.tables import as_ids
from diffgrm.foundation.schema import Columns, DataError, first_few

SEGMENT = "segment:"  # what columns of held-out events begin with that hold their users' segments
MOST, UNKNOWN = 50, "(unknown)"


def with_segment(events: pl.DataFrame, users: Any, column: str) -> pl.DataFrame:
    """Held-out events with a column of their users, for :func:`diffgrm.evaluation.kinds.by_kind`.

    That is :func:`read_segment` and :func:`joined`.

    Args:
        events: of :func:`diffgrm.evaluation.kinds.with_kinds`.
        users: a path or a frame with ``user_id`` and the column, a row a user; users that it lacks, or that have nothing
            there, are a segment of their own.

    Raises:
        DataError: an unusable table, one that knows none of the users, too many different values, or a column of this name
            that the events have already.
    """
    return joined(events, read_segment(users, column))


def read_segment(users: Any, column: str) -> pl.DataFrame:
    """A column of a table of users, by which they are parted.

    Raises:
        DataError: an unusable table, the column of users itself, too many different values, or one that is called as what
            is missing.
    """
    table = user_table(users, [column]).rename({column: SEGMENT + column})
    values = table[SEGMENT + column].n_unique()
    if values > MOST:
        raise DataError(f"{column!r} has {values:,} different values; expected at most {MOST}: put them in bins first")
    if (table[SEGMENT + column] == UNKNOWN).any():
        raise DataError(
            f"{column!r} has the value {UNKNOWN!r}, which is what users are called of whom nothing is known; leave those "
            "cells empty, or write another word there"
        )
    return table


def check_names(columns: Sequence[str]) -> None:
    """Make sure that segments can be told apart by the names of their columns.

    Raises:
        DataError: two of one name.
    """
    if twice := [name for number, name in enumerate(columns) if name in columns[:number]]:
        raise DataError(f"segments by the column {twice[0]!r} are asked for twice; leave one out, or rename its column")


def check_known(segment: pl.DataFrame, users: pl.Series) -> None:
    """Make sure that a table of users is of those that are evaluated.

    Args:
        segment: of :func:`read_segment`; users: their ids.

    Raises:
        DataError: it knows none of them.
    """
    known, asked = segment[Columns.USER], as_ids(users).cast(pl.String)
    if not asked.is_in(known.implode()).any():
        raise DataError(
            f"the table of users knows none of the users that are evaluated: it has {first_few(known, 3)}; they are "
            f"{first_few(asked.unique(maintain_order=True), 3)}"
        )


def joined(events: pl.DataFrame, segment: pl.DataFrame) -> pl.DataFrame:
    """Held-out events with the segment of their users; see :func:`with_segment`.

    Raises:
        DataError: it knows none of the users, or the events have segments of this name already.
    """
    check_names([name.removeprefix(SEGMENT) for name in (*events.columns, segment.columns[-1]) if name.startswith(SEGMENT)])
    check_known(segment, events[Columns.USER])
    key = as_ids(events[Columns.USER]).cast(pl.String)
    found = key.to_frame().join(segment, on=Columns.USER, how="left", maintain_order="left")[segment.columns[-1]]
    return events.with_columns(found.fill_null(UNKNOWN))
