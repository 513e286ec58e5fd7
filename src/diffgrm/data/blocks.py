"""Tables of events, whatever they lie in, as blocks of checked rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

import polars as pl

from diffgrm.data import mapped
from diffgrm.data.faults import Fault
from diffgrm.data.files import parquet_files
from diffgrm.data.frames import load_frame
from diffgrm.data.tables import as_ids, checked_events, fits, read_table, refuse
from diffgrm.data.times import read_times, whole_column
from diffgrm.foundation import forks
from diffgrm.foundation.schema import Columns

logger = logging.getLogger(__name__)

WHAT = "interaction table"
WIDE = (pl.UInt64, pl.Int128)  # whole numbers that Int64 may not hold


class Rows(Protocol):
    """A table that is read a block at a time."""

    @property
    def schema(self) -> pl.Schema:
        """Its columns."""

    @property
    def height(self) -> int:
        """Its rows."""

    def blocks(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Some columns of all rows, in order."""

    def stamps(self) -> list[tuple[str, int, int]]:
        """What tells the table from others; empty where nothing does."""


@dataclass(frozen=True)
class FrameRows:
    """A table that is in memory."""

    frame: pl.DataFrame

    @property
    def schema(self) -> pl.Schema:
        """See :class:`Rows`."""
        return self.frame.schema

    @property
    def height(self) -> int:
        """See :class:`Rows`."""
        return self.frame.height

    def blocks(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """See :class:`Rows`."""
        yield from self.frame.select(columns).iter_slices(mapped.BLOCK)

    def stamps(self) -> list[tuple[str, int, int]]:
        """See :class:`Rows`."""
        return []


def open_rows(source: Any) -> Rows:
    """The interaction table of a path or frame; parquet files of this machine are not read yet.

    Raises:
        DataError: see :func:`diffgrm.data.frames.load_frame`.
    """
    forks.check()
    files = parquet_files(source, WHAT) if isinstance(source, str | PathLike) else None
    return FrameRows(load_frame(source, WHAT)) if files is None else files


@dataclass(frozen=True)
class EventRows:
    """The events of a table.

    Attributes:
        columns: what user_id, item_id and, if it is there, timestamp are called in the table.
        time_format: how times in text are written; None is numbers or ISO.
        times: all times, where only all of them tell how they are written.
        as_text: ids that are whole numbers in the table, too large ones among them, and so are text.
        faults: what is wrong with the times, where all have been read.
    """

    rows: Rows
    columns: Mapping[str, str]
    time_format: str | None
    times: pl.Series | None
    as_text: tuple[str, ...]
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, rows: Rows, columns: Mapping[str, str], time_format: str | None) -> EventRows:
        """The events of a table whose columns are renamed.

        Raises:
            DataError: missing columns, or no rows.
        """
        header = pl.DataFrame(schema=rows.schema).clear(min(rows.height, 1))
        kinds = read_table(header, columns, required=(Columns.USER, Columns.ITEM), what=WHAT).schema
        ours = {name: columns.get(name, name) for name in (Columns.USER, Columns.ITEM, Columns.TIMESTAMP) if name in kinds}
        as_text = tuple(n for n in (Columns.USER, Columns.ITEM) if kinds[n] in WIDE and not _all_fit(rows, ours[n]))
        times: pl.Series | None = None
        faults: list[Fault] = []
        if Columns.TIMESTAMP in ours and whole_column(kinds[Columns.TIMESTAMP], time_format):
            if rows.height > mapped.IN_MEMORY:
                logger.info("All times are read at once, since they are texts; naming their format saves that memory.")
            theirs = ours[Columns.TIMESTAMP]
            column = pl.concat([block[theirs] for block in rows.blocks([theirs])]).alias(Columns.TIMESTAMP)
            times, faults = read_times(column)
        return cls(rows, ours, time_format, times, as_text, tuple(faults))

    @property
    def height(self) -> int:
        """How many events there are."""
        return self.rows.height

    @property
    def timed(self) -> bool:
        """Whether they have times."""
        return Columns.TIMESTAMP in self.columns

    def checked(self) -> Iterator[pl.DataFrame]:
        """``user_id, item_id[, timestamp]`` of all rows in order, in types of ours.

        Raises:
            DataError: after the last block, all that is wrong with the rows; nothing may be made of the blocks then.
        """
        faults, first = list(self.faults), 0
        skipped = (Columns.TIMESTAMP,) if self.times is not None else ()
        for block in self.rows.blocks([theirs for ours, theirs in self.columns.items() if ours not in skipped]):
            frame = block.select(pl.col(theirs).alias(ours) for ours, theirs in self.columns.items() if ours not in skipped)
            frame, more = checked_events(frame, None if skipped else self.time_format, first, self.as_text)
            faults += more
            if self.times is not None:
                frame = frame.with_columns(self.times.slice(first, frame.height).alias(Columns.TIMESTAMP))
            first += frame.height
            if not faults:
                yield frame
        refuse(faults, self.height, WHAT)

    def ids(self, column: str) -> Iterator[pl.Series]:
        """The ids of users or items of all rows, which are known to be sound."""
        theirs = self.columns[column]
        for block in self.rows.blocks([theirs]):
            yield as_ids(block[theirs], column in self.as_text)


def _all_fit(rows: Rows, column: str) -> bool:
    return all(fits(block[column]) for block in rows.blocks([column]))
