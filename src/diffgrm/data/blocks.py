"""Tables of events, whatever they lie in, as blocks of checked rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, Protocol

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.event_columns import OWNER, SessionOwners, check_columns, choose, described
from diffgrm.data.faults import Fault
from diffgrm.data.files import parquet_files
from diffgrm.data.frames import load_frame
from diffgrm.data.marks import PLAIN
from diffgrm.data.reading import Dropped
from diffgrm.data.tables import as_ids, checked_events, fits, read_table, refuse
from diffgrm.data.times import read_times, whole_column
from diffgrm.foundation import forks
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns

logger = logging.getLogger(__name__)

WHAT = "interaction table"
WIDE = (pl.UInt64, pl.Int128)  # whole numbers that Int64 may not hold


class Rows(Protocol):
    """A table that is read a block at a time."""

    @property
    def header(self) -> pl.DataFrame:
        """Its columns, without rows."""

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
    def header(self) -> pl.DataFrame:
        """See :class:`Rows`."""
        return self.frame.clear()

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
    """The events of a table: those of its rows that the settings choose.

    Attributes:
        columns: what user_id, item_id and, if it is there, timestamp are called in the table. Where a session is a history
            of its own, it stands for the user, and ``owner`` is what users are called, if they are there.
        time_format: how times in text are written; None is numbers or ISO.
        settings: which rows are events, and what is known of them.
    """

    rows: Rows
    columns: Mapping[str, str]
    time_format: str | None
    settings: EventSettings = PLAIN

    @classmethod
    def of(
        cls, rows: Rows, columns: Mapping[str, str], time_format: str | None, settings: EventSettings = PLAIN
    ) -> EventRows:
        """The events of a table whose columns are renamed.

        Raises:
            DataError: missing columns, or no rows.
        """
        header = rows.header.clear(min(rows.height, 1))
        check_columns(settings, header, WHAT)
        user = columns.get(Columns.USER, Columns.USER)
        alone = settings.session is not None and settings.history == "session"
        if alone:
            columns = {**columns, Columns.USER: str(settings.session)}
        known = read_table(header, columns, required=(Columns.USER, Columns.ITEM), what=WHAT).columns
        ours = (Columns.USER, Columns.ITEM, Columns.TIMESTAMP)
        found = {name: columns.get(name, name) for name in ours if name in known}
        if alone and user in header.columns and user != settings.session:
            found[OWNER] = user
        return cls(rows, found, time_format, settings)

    def _kind(self, column: str) -> pl.DataType:
        return self.rows.header.schema[self.columns[column]]

    @cached_property
    def _as_text(self) -> tuple[str, ...]:
        """Ids that are whole numbers in the table, too large ones among them, and so are text."""
        wide = [name for name in (Columns.USER, Columns.ITEM) if self._kind(name) in WIDE]
        return tuple(n for n in wide if not all(fits(block.to_series()) for block in self.rows.blocks([self.columns[n]])))

    @cached_property
    def _times(self) -> tuple[pl.Series, list[Fault]] | None:
        """All times, and what is wrong with them, where only all of them tell how they are written."""
        if not self.timed or not whole_column(self._kind(Columns.TIMESTAMP), self.time_format):
            return None
        if self.height > mapped.IN_MEMORY:
            logger.info("All times are read at once, since they are texts; naming their format saves that memory.")
        blocks = self.rows.blocks([self.columns[Columns.TIMESTAMP]])
        found, kept = pl.concat([block.to_series() for block in blocks]).alias(Columns.TIMESTAMP), self._chosen[0]
        if kept is None:
            return read_times(found)
        events = pl.Series(kept)
        return read_times(found.filter(events), rows=np.flatnonzero(kept), others=found.filter(~events))

    @cached_property
    def _chosen(self) -> tuple[np.ndarray | None, Dropped, list[Fault]]:
        """[rows] bool, which rows are events; why others are not, and what is wrong with them. None: all rows are."""
        asked = [name for name in (self.settings.event, self.settings.rating) if name is not None]
        dropped, faults = list[Dropped](), list[Fault]()
        if not asked:
            return None, Dropped({}), faults
        kept, first = mapped.room(self.rows.height, np.bool_), 0
        for block in self.rows.blocks(list(dict.fromkeys(asked))):
            found = choose(block, self.settings, range(first, first + block.height))
            kept[first : first + block.height] = found.kept
            dropped.append(found.dropped)
            faults, first = faults + found.faults, first + block.height
        return kept, Dropped.sum(dropped), faults

    @property
    def dropped(self) -> Dropped:
        """Rows that are no events."""
        return self._chosen[1]

    @cached_property
    def height(self) -> int:
        """How many events there are."""
        kept = self._chosen[0]
        return self.rows.height if kept is None else int(np.count_nonzero(kept))

    @property
    def timed(self) -> bool:
        """Whether they have times."""
        return Columns.TIMESTAMP in self.columns

    @property
    def _called(self) -> dict[str, str]:
        """What messages call columns that the table calls otherwise than we do."""
        called = {ours: f"{theirs} ({ours})" for ours, theirs in self.columns.items() if ours != theirs}
        if self.settings.session is not None and self.settings.history == "session":
            called[Columns.USER] = f"{self.settings.session} (events.session)"
        return called

    def checked(self) -> Iterator[pl.DataFrame]:
        """``user_id, item_id[, timestamp]`` of all events in order, in types of ours; beside them what
        :func:`diffgrm.data.event_columns.described` tells, and ``owner``, the users of sessions, where the table has them.

        Raises:
            DataError: after the last block, all that is wrong with the rows; nothing may be made of the blocks then.
        """
        (times, faults), (kept, _, more) = self._times or (None, []), self._chosen
        own = {ours: theirs for ours, theirs in self.columns.items() if times is None or ours != Columns.TIMESTAMP}
        faults, owners, called = [*faults, *more], SessionOwners(self.columns[Columns.USER]), self._called
        first, met = 0, 0  # rows and events of the blocks before
        for block in self.rows.blocks(list(dict.fromkeys([*own.values(), *self.settings.columns]))):
            rows: range | np.ndarray = range(first, first + block.height)
            first += block.height
            if kept is not None:
                rows = np.asarray(rows)[now := kept[first - block.height : first]]
                block = block.filter(pl.Series(now))
            frame = block.select(pl.col(theirs).alias(ours) for ours, theirs in own.items())
            owner = frame.select(pl.col(OWNER)) if OWNER in own else pl.DataFrame()
            if owner.width:
                owners.add(frame[Columns.USER], owner[OWNER])
            frame, more = checked_events(frame, self.time_format if times is None else None, rows, self._as_text, called)
            beside, still_more = described(block, self.settings, rows)
            faults += more + still_more
            if times is not None:
                frame = frame.with_columns(times.slice(met, frame.height).alias(Columns.TIMESTAMP))
            met += frame.height
            if not faults:
                yield frame.hstack(beside).hstack(owner)
        refuse([*faults, *owners.faults()], self.height, WHAT)

    def ids(self, column: str) -> Iterator[pl.Series]:
        """The ids of users or items of all events, which are known to be sound."""
        theirs, kept, first = self.columns[column], self._chosen[0], 0
        for block in self.rows.blocks([theirs]):
            ids = block[theirs] if kept is None else block[theirs].filter(pl.Series(kept[first : first + block.height]))
            yield as_ids(ids, column in self._as_text)
            first += block.height
