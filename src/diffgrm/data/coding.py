"""Events as integers: by user, oldest first, whether or not the table fits in memory.

The table is read twice, a block of rows at a time. The first pass checks it and finds the users; with that it is known
where in the result each user's events stand. The second pass puts them there, into buckets of neighbouring users, and each
bucket is put in order by itself. Long arrays lie in files (:mod:`diffgrm.data.mapped`); what is held in memory grows with
the users and the items, and with the events of the one who has most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.blocks import WHAT, EventRows
from diffgrm.data.event_columns import SESSION, value_column
from diffgrm.data.faults import SHOWN
from diffgrm.data.folding import folded
from diffgrm.data.ids import IdMap
from diffgrm.data.marks import NO_FACTS, UNMARKED, Marks, RowFacts
from diffgrm.data.ragged import Ragged
from diffgrm.data.reading import ReadingReport
from diffgrm.data.times import in_seconds
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, first_few

Room = Callable[[str, int, Any], np.ndarray]  # an array of that name, length and type to write to
Unknown = Literal["refuse", "keep"]


@dataclass(frozen=True)
class Events:
    """Events of every user, oldest first; those that are alike in time in order of the rows.

    Attributes:
        catalogue: the ids that items are positions of.
        users: ids, in order of their first events.
        offsets: [users + 1] where each user's events begin.
        items: the item of every event: its position in the catalogue, or -1 - i for row i of ``strange``.
        times: the time of every event as a number; None without the column.
        time_type: what the numbers are of.
        strange: ``id`` of the items that the catalogue does not have, in order of their first events, and how many
            ``events`` each has.
        marks: of every event, what is known besides its item.
        report: what was read and what was dropped; None where no table was read.
        facts: of every user's history.
    """

    catalogue: IdMap
    users: pl.Series
    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray | None
    time_type: pl.DataType | None
    strange: pl.DataFrame
    marks: Marks = UNMARKED
    report: ReadingReport | None = None
    facts: RowFacts = NO_FACTS

    @classmethod
    def known(cls, catalogue: IdMap, users: pl.Series, rows: Ragged) -> Events:
        """Events of items that are all in the catalogue, without their times but those of their marks."""
        bare = _FirstMet().table()
        return cls(catalogue, users, rows.offsets, rows.values, None, None, bare, rows.marks, None, rows.facts)

    @property
    def rows(self) -> Ragged:
        """The items of every user, and what is known besides."""
        return Ragged(self.items, self.offsets, self.marks, self.facts)

    def item(self, place: int) -> Any:
        """The id of the item of an event."""
        code = int(self.items[place])
        return self.catalogue.ids([code])[0] if code >= 0 else self.strange["id"][-1 - code]


def code_events(events: EventRows, items: IdMap, unknown: Unknown, room: Room | None = None) -> Events:
    """The events of a table.

    Args:
        items: the catalogue.
        unknown: events of items that the catalogue does not have.
        room: makes the arrays of the result, ``items``, ``times`` and those of marks; None is
            :func:`diffgrm.data.mapped.room`. Where repeated events are dropped, the result is the beginning of them.

    Raises:
        DataError: unusable rows, or none that is an event; unknown items, where they are refused; no times, where networks
            are told of them.
    """
    check_timed(events)
    room = room or (lambda _, length, kind: mapped.room(length, kind))
    found = _first_pass(events, items)
    if unknown == "refuse":
        refuse_unknown(found.strange)
    users, strange = IdMap(found.users["id"]), IdMap(found.strange["id"])
    offsets = np.concatenate([[0], np.cumsum(found.users["events"].to_numpy())])
    placed = {name: room(name, len(column), column.dtype) for name, column in found.columns.items() if name != SESSION}
    beside = {name: mapped.room(len(column), column.dtype) for name, column in found.columns.items() if name == SESSION}
    beside["owners"] = mapped.room(events.height, np.int64)
    starts = _buckets(offsets)
    _place(events, users, strange, found.columns, starts, offsets[starts], placed | beside)
    counts, end = np.zeros(len(users), np.int64), 0
    for first, last in zip(starts, [*starts[1:], len(users)], strict=True):
        of_bucket = slice(offsets[first], offsets[last])
        order = _in_order({name: column[of_bucket] for name, column in (placed | beside).items()}, events.settings)
        counts[first:last] = np.bincount(beside["owners"][of_bucket][order] - first, minlength=last - first)
        for column in placed.values():
            column[end : end + len(order)] = column[of_bucket][order]
        end += len(order)
    placed = {name: column[:end] for name, column in placed.items()}
    offsets = np.concatenate([[0], np.cumsum(counts)])
    times = placed.get("times")
    marks = marks_of(events.settings, placed, found.time_type)
    beside_them = marks, _report(events, marks, end)
    return Events(items, users.series, offsets, placed["items"], times, found.time_type, found.strange, *beside_them)


def check_timed(events: EventRows) -> None:
    """Make sure that events have times where networks are told of them.

    Raises:
        DataError: they have none.
    """
    if events.settings.time_inputs and not events.timed:
        raise DataError(
            f"networks are told of times (events.time_inputs={list(events.settings.time_inputs)}), but the {WHAT} has no "
            f"column {Columns.TIMESTAMP!r}; name yours with columns={{'{Columns.TIMESTAMP}': 'YOUR_NAME'}} (command line: "
            f"--column {Columns.TIMESTAMP}=YOUR_NAME)"
        )


def marks_of(settings: EventSettings, arrays: Mapping[str, np.ndarray], time_type: pl.DataType | None) -> Marks:
    """The marks of events.

    Args:
        arrays: by name, as :func:`code_events` makes room for them; others are passed over.
    """
    times = in_seconds(arrays["times"], time_type, settings.time_unit) if settings.time_inputs else None
    values = tuple(arrays[value_column(number)] for number in range(len(settings.event_columns)))
    return Marks(settings, arrays.get("types"), arrays.get("weights"), times, values)


def _in_order(columns: dict[str, np.ndarray], settings: EventSettings) -> np.ndarray:
    """Places of the events of a bucket that stay, by user and then in order."""
    owners, times = columns["owners"], columns.get("times")
    keys = [owners] if times is None else [times, owners]
    order = np.lexsort(keys)  # by the last key first; it keeps the order of what is alike
    sessions, types = columns.get(SESSION), columns.get("types")
    if sessions is None and settings.repeats == "keep":
        return order
    types = None if types is None else types[order]
    sessions = None if sessions is None else sessions[order]
    found: np.ndarray = order[folded(owners[order], columns["items"][order], types, sessions, settings)]
    return found


def _report(events: EventRows, marks: Marks, kept: int) -> ReadingReport:
    """What was read: ``kept`` events, with these marks."""
    counts = np.zeros(len(marks.settings.types), np.int64)
    types = np.empty(0, np.int16) if marks.types is None else marks.types
    for start in range(0, len(types), mapped.BLOCK):
        counts += np.bincount(types[start : start + mapped.BLOCK], minlength=len(counts))
    kinds = dict(zip(marks.settings.types, counts.tolist(), strict=True))
    return ReadingReport.of(events.rows.height, events.dropped, events.height - kept, kinds, events.settings)


def refuse_unknown(strange: pl.DataFrame) -> None:
    """Tell of items that the item table does not have.

    Args:
        strange: see :class:`Events`.

    Raises:
        DataError: there are some.
    """
    if strange.height:
        shown = first_few(map(repr, strange["id"].head(SHOWN)), SHOWN, strange.height)
        raise DataError(
            f"{strange['events'].sum()} events are of {strange.height} items that the item table does not have: "
            f"{shown}; add them to the item table (--items), or drop the events"
        )


@dataclass(frozen=True)
class _Found:
    """What the first pass finds.

    Attributes:
        users, strange: ``id, events`` of the users and of the unknown items, in order of their first events.
        columns: of every event in order of the rows: ``items``, its position, -1 for unknown ones; ``times``, ``types``,
            ``weights``, sessions and values of categories, where there are some.
        time_type: see :class:`Events`.
    """

    users: pl.DataFrame
    strange: pl.DataFrame
    columns: dict[str, np.ndarray]
    time_type: pl.DataType | None


BESIDE = {Columns.EVENT: "types", Columns.WEIGHT: "weights", SESSION: SESSION}


def _first_pass(events: EventRows, items: IdMap) -> _Found:
    users, strange, first = _FirstMet(), _FirstMet(), 0
    columns, time_type = {"items": mapped.room(events.height)}, None
    named = map(value_column, range(len(events.settings.event_columns)))
    beside = {**BESIDE, **{name: name for name in named}}
    for frame in events.checked():
        now = slice(first, first + frame.height)
        time = None
        block = {beside[name]: frame[name].to_numpy() for name in beside if name in frame.columns}
        if events.timed:
            time, time_type = physical(frame[Columns.TIMESTAMP])
            block["times"] = time
        block["items"] = found = items.positions(frame[Columns.ITEM])
        for name, column in block.items():
            if name not in columns:
                columns[name] = mapped.room(events.height, column.dtype)
            columns[name][now] = column
        rows = np.arange(now.start, now.stop)
        users.add(frame[Columns.USER], rows, time)
        if len(odd := np.flatnonzero(found < 0)):
            strange.add(frame[Columns.ITEM].gather(odd), rows[odd], None if time is None else time[odd])
        first = now.stop
    if events.height == 0:
        kinds = dict.fromkeys(events.settings.types, 0)
        raise ReadingReport.of(events.rows.height, events.dropped, 0, kinds, events.settings).no_event(WHAT)
    return _Found(users.table(), strange.table(), columns, time_type)


def physical(column: pl.Series) -> tuple[np.ndarray, pl.DataType]:
    """Times as numbers in the same order, and what they are of; numbers that NumPy has not as Float64."""
    if column.dtype == pl.Decimal or column.dtype == pl.Int128:
        column = column.cast(pl.Float64)
    return column.to_physical().to_numpy(), column.dtype


class _FirstMet:
    """Ids, how many events each has, and in which order of time and row their first ones stand."""

    def __init__(self) -> None:
        self._found: pl.DataFrame | None = None
        self._waiting: list[pl.DataFrame] = []

    def add(self, ids: pl.Series, rows: np.ndarray, times: np.ndarray | None) -> None:
        """Count the events of a block."""
        place = {"row": rows} if times is None else {"time": times, "row": rows}
        frame = pl.DataFrame({"id": ids, "events": np.ones(len(ids), np.int64), **place})
        self._waiting.append(_summed(frame))
        known = 0 if self._found is None else self._found.height
        if sum(map(len, self._waiting)) > max(known, mapped.BLOCK):  # so that each id is summed a few times only
            self._sum()

    def table(self) -> pl.DataFrame:
        """``id, events`` in order of the first events."""
        self._sum()
        if self._found is None:
            return pl.DataFrame(schema={"id": pl.String, "events": pl.Int64})
        return self._found.select("id", "events")

    def _sum(self) -> None:
        if self._waiting:
            tables = self._waiting if self._found is None else [self._found, *self._waiting]
            self._found, self._waiting = _summed(pl.concat(tables)), []


def _summed(table: pl.DataFrame) -> pl.DataFrame:
    order = [name for name in ("time", "row") if name in table.columns]
    groups = table.sort(order).group_by("id", maintain_order=True)
    return groups.agg(pl.col("events").sum(), pl.col(order).first())


def _buckets(offsets: np.ndarray) -> np.ndarray:
    """The first user of each bucket: neighbouring users with some :data:`diffgrm.data.mapped.IN_MEMORY` events together."""
    wanted = np.arange(0, offsets[-1], max(mapped.IN_MEMORY, 1))
    return np.unique(np.searchsorted(offsets, wanted, side="right") - 1)


def _place(
    events: EventRows,
    users: IdMap,
    strange: IdMap,
    columns: dict[str, np.ndarray],
    starts: np.ndarray,
    free: np.ndarray,
    placed: dict[str, np.ndarray],
) -> None:
    """The second pass: put every event into its bucket, in order of the rows.

    Args:
        columns: of every row, what the first pass has found.
        starts: the first user of each bucket.
        free: where the next event of each bucket goes.
        placed: the same columns by bucket, and the events' users (``owners``), to write to.
    """
    free, first = free.copy(), 0
    item_ids = events.ids(Columns.ITEM) if len(strange) else None
    for ids in events.ids(Columns.USER):
        now = slice(first, first + len(ids))
        block = {"owners": users.positions(ids), **{name: column[now] for name, column in columns.items()}}
        if item_ids is not None:
            odd = block["items"] < 0
            codes = -1 - strange.positions(next(item_ids).filter(pl.Series(odd)))
            block["items"] = block["items"].copy()
            block["items"][odd] = codes
        bucket = np.searchsorted(starts, block["owners"], side="right") - 1
        order, counts = np.argsort(bucket, kind="stable"), np.bincount(bucket, minlength=len(starts))
        ends = np.cumsum(counts)
        for number in np.flatnonzero(counts):
            rows = order[ends[number] - counts[number] : ends[number]]
            there = slice(free[number], free[number] + counts[number])
            for name, column in placed.items():
                column[there] = block[name][rows]
        free += counts
        first = now.stop
