"""What users give as histories, as user ids and item positions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.asking import is_number, seconds_of
from diffgrm.data.blocks import open_rows
from diffgrm.data.categories import told_value, value_numbers
from diffgrm.data.coding import Events
from diffgrm.data.context import check_asked
from diffgrm.data.dataset import InteractionDataset, Ragged
from diffgrm.data.events import read_events
from diffgrm.data.frames import is_frame, is_list
from diffgrm.data.ids import IdMap, known_positions, user_ids_of, values
from diffgrm.data.marks import PLAIN, Marks
from diffgrm.foundation import forks
from diffgrm.foundation.event_settings import EventSettings, spelled_value
from diffgrm.foundation.schema import Columns, DataError, did_you_mean, first_few

logger = logging.getLogger(__name__)

SHOWN = 5  # unknown items that a warning names


@dataclass(frozen=True)
class HistoryEvent:
    """An event of a history that is given as a list.

    Attributes:
        item: its id.
        type: what type it was of, of models that know types, as tables have it; None: nobody tells.
        time: when it was, see :func:`diffgrm.data.asking.seconds_of`; None: nobody tells. Whatever the model is told of
            times, histories are given oldest first.
        values: its values in columns of ``events.event_columns``, by name; it may lack some.
    """

    item: Any
    type: Any = None
    time: Any = None
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadHistories:
    """Histories that have been read from a dataset, so that none of their events is chosen or folded once more.

    Attributes:
        users: [U] their ids.
        items: [N] ids of the items, one history behind the other.
        rows: U histories of N events.
    """

    users: pl.Series
    items: pl.Series
    rows: Ragged

    def table(self) -> pl.DataFrame:
        """The same as a table of events, for whoever reads tables only."""
        user = self.users.gather(np.repeat(np.arange(len(self.users)), self.rows.lengths))
        table = pl.DataFrame({Columns.USER: user, Columns.ITEM: self.items})
        return table.with_columns(self.rows.marks.request_columns())

    def of(self, items: IdMap) -> Ragged:
        """The histories as positions of a catalogue; -1 where it does not have the item."""
        return Ragged(items.positions(self.items), self.rows.offsets, replace(self.rows.marks, weights=None))


def read_histories(source: Any, items: IdMap, on_empty: str, settings: EventSettings = PLAIN) -> tuple[pl.Series, Ragged]:
    """User ids [U] and item positions of every user, oldest first.

    Args:
        source: a table (path or frame) of user_id, item_id and perhaps timestamp, the :class:`Events` of one, or histories
            that have been read (by other settings than these, they are read as a table); a mapping
            user -> item ids; a list of item-id lists (users are then numbered from 0); or one list of item ids (one user,
            number 0). Lists may be tuples, arrays and series too.
        on_empty: what to do with users of whom no known item is left: ``"error"`` or ``"skip"``, even all of them.
        settings: how a table is read. Events of lists may be :class:`HistoryEvent`; those whose types nobody tells are of
            the first type that is learnt, and of those whose values nobody tells nothing is known. Times have to be told
            where ``settings.time_inputs`` names some; elsewhere they may be, for the order that they confirm. Types and
            values may be told only where the settings name the columns that they are of.

    Raises:
        DataError: nothing given, users without a known item and ``on_empty="error"``, types or columns that the settings
            lack, or times that are missing, unreadable or not in order.
    """
    forks.check()
    if on_empty not in ("error", "skip"):
        raise DataError(f"on_empty is {on_empty!r}; expected 'error' or 'skip'")
    if isinstance(source, ReadHistories):
        if source.rows.marks.settings == settings:
            return _known_only(source.users, source.of(items), items, source.items.__getitem__, on_empty)
        source = source.table()
    if isinstance(source, Mapping):
        user_ids, rows = user_ids_of(source), list(source.values())
        if strange := [user for user, row in source.items() if not is_list(row)]:
            raise DataError(f"expected a list of item ids for every user, found something else for: {first_few(strange)}")
    elif is_list(source):
        nested = [is_list(entry) for entry in source]
        if any(nested) and not all(nested):
            raise DataError("histories mix single items and lists; give one list of items, or a list of such lists")
        rows = list(source) if any(nested) else [source] if nested else []
        user_ids = pl.Series(Columns.USER, range(len(rows)), dtype=pl.Int64)
    else:
        return _from_table(source, items, on_empty, settings)
    if not rows:
        raise DataError("no histories were given")
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    entries = [entry for row in rows for entry in values(row)]
    given = [entry.item if isinstance(entry, HistoryEvent) else entry for entry in entries]
    positions = Ragged(items.positions(given), offsets, _marks(entries, offsets, settings))
    return _known_only(user_ids, positions, items, given.__getitem__, on_empty)


def histories_of(dataset: InteractionDataset, users: Any) -> tuple[pl.Series, Ragged]:
    """User ids [U] and all events of users of a dataset, as item positions, oldest first.

    Args:
        users: ids in any form that :func:`diffgrm.data.ids.id_list` takes.

    Raises:
        DataError: unknown users, or none.
    """
    rows, unknown = known_positions(dataset.users, users, Columns.USER, "users")
    if unknown:
        raise DataError(f"unknown users: {first_few(unknown)}; pass their histories=")
    if not len(rows):
        raise DataError("no users were given")
    return dataset.users.gather(rows), dataset.events.rows(rows)


def _marks(entries: list[Any], offsets: np.ndarray, settings: EventSettings) -> Marks:
    """What is told of N events that were given in lists.

    Raises:
        DataError: it is wrong, or tells what the model is told nothing of.
    """
    _refuse_idle([entry for entry in entries if isinstance(entry, HistoryEvent)], settings)
    types = None if settings.event is None else _types(entries, settings)
    if settings.time_inputs:
        return Marks(settings, types, None, _times(entries, offsets, settings), _values(entries, settings))
    told = [place for place, entry in enumerate(entries) if isinstance(entry, HistoryEvent) and entry.time is not None]
    _check_order(entries, np.array(told, np.int64), np.array([_moment(entries[place]) for place in told]), offsets)
    return Marks(settings, types, None, None, _values(entries, settings))


def _refuse_idle(events: list[HistoryEvent], settings: EventSettings) -> None:
    """Refuse types and values of which a model is told nothing; times confirm the order of any history."""
    if strange := [event for event in events if not isinstance(event.values, Mapping)]:
        raise DataError(
            f"the values of {strange[0].item!r} are {strange[0].values!r}; expected a mapping from columns to values, such "
            "as {'device': 'phone'}"
        )
    problems = []
    typed = [event for event in events if event.type is not None]
    if typed and settings.event is None:
        problems.append(
            f"{len(typed)} events of the histories tell a type, such as {typed[0].type!r}, and the model knows no types "
            "(events.event names no column); leave type out"
        )
    valued = [event for event in events if event.values]
    if valued and not settings.event_columns:
        problems.append(
            f"{len(valued)} events of the histories tell values, such as that of {next(iter(valued[0].values))!r}, and the "
            "model is told of no columns of events (events.event_columns); leave values out"
        )
    if problems:
        raise DataError("; ".join(problems))


def _types(entries: list[Any], settings: EventSettings) -> np.ndarray:
    """[N] int16 numbers of the types of events that were given in lists."""
    number = {kind: at for at, kind in enumerate(settings.types)}
    told = [spelled_value(entry.type) if isinstance(entry, HistoryEvent) else None for entry in entries]
    named = [settings.targets[0] if kind is None else kind for kind in told]
    if strange := sorted({str(kind) for kind in named if kind not in number}):
        raise DataError(
            f"events are of the type {strange[0]!r}, which the model does not know{did_you_mean(strange[0], number)}"
        )
    return np.array([number[kind] for kind in named], np.int16)


def _times(entries: list[Any], offsets: np.ndarray, settings: EventSettings) -> np.ndarray:
    """[N] int64 seconds from 1970 of events that were given in lists."""
    if bare := [entry for entry in entries if not isinstance(entry, HistoryEvent) or entry.time is None]:
        raise DataError(
            f"the model is told of the times of events (events.time_inputs), and {len(bare)} of {len(entries)} events of "
            f"the histories have none: {first_few(bare)}; give a table with {Columns.TIMESTAMP!r}, or "
            "diffgrm.data.histories.HistoryEvent(item, time=...) in place of ids (over HTTP and behind --history: "
            '{"item_id": ..., "time": ...})'
        )
    found = [seconds_of(entry.time, settings.time_unit, f"the time of {entry.item!r}") for entry in entries]
    times = np.array(found, np.int64)
    _check_order(entries, np.arange(len(entries)), times, offsets)
    return times


def _moment(event: HistoryEvent) -> float:
    """The time of an event, to be compared with those beside it: a number as it stands, for nobody tells its unit."""
    return event.time if is_number(event.time) else seconds_of(event.time, "s", f"the time of {event.item!r}")


def _check_order(entries: list[Any], places: np.ndarray, times: np.ndarray, offsets: np.ndarray) -> None:
    """Refuse histories that are not oldest first; ``times`` are those of the events at some ``places``, in order."""
    row = np.searchsorted(offsets, places, side="right")
    if len(late := np.flatnonzero((times[1:] < times[:-1]) & (row[1:] == row[:-1]))):
        before, behind = (entries[places[late[0] + step]].item for step in (0, 1))
        raise DataError(
            f"a history holds {behind!r} behind {before!r}, but its time is earlier; give histories oldest first"
        )


def _values(entries: list[Any], settings: EventSettings) -> tuple[np.ndarray, ...]:
    """Of each of ``events.event_columns`` the numbers [N] int16 of the values of events that were given in lists."""
    columns, told = settings.event_columns, [entry.values if isinstance(entry, HistoryEvent) else {} for entry in entries]
    if unknown := sorted({str(name) for values in told for name in values if name not in columns}):
        raise DataError(
            f"an event has a value of {unknown[0]!r}, of which the model knows nothing{did_you_mean(unknown[0], columns)}"
        )
    where = "the value of an event in the column"
    texts = {name: [told_value(one.get(name), f"{where} {name!r}") for one in told] for name in columns}
    given = {name: pl.Series(values, dtype=pl.String) for name, values in texts.items()}
    return tuple(value_numbers(given[name], named).to_numpy() for name, named in columns.items())


def _from_table(source: Any, items: IdMap, on_empty: str, settings: EventSettings) -> tuple[pl.Series, Ragged]:
    if not isinstance(source, str | Path | Events) and not is_frame(source):
        raise DataError(
            f"cannot read histories from {type(source).__name__}; give a table, a mapping user -> items, or lists of items"
        )
    if isinstance(source, Events):
        events = source
    else:
        rows = open_rows(source)
        chosen = settings.of_histories(tuple(rows.header.columns))
        events = read_events(rows, items, unknown="keep", settings=chosen)
        check_asked(events.rows, rows)
        if events.report is not None and events.report.dropped:
            logger.warning("Of the histories, %s", events.report)
    if events.catalogue is not items:
        raise DataError("these events were read for another catalogue; read them with the items of this one")
    return _known_only(events.users, events.rows, items, events.item, on_empty)


def _known_only(
    user_ids: pl.Series, positions: Ragged, items: IdMap, given: Callable[[int], Any], on_empty: str
) -> tuple[pl.Series, Ragged]:
    """The known part of histories; ``given`` tells the item that stood at a place of the positions."""
    known = (
        positions.by_blocks(lambda block: block.filter(block.values >= 0)) if _first_unknown(positions, 1) else positions
    )
    if dropped := len(positions.values) - len(known.values):
        logger.warning(
            "%d history items are not in the catalogue and are passed over: %s%s",
            dropped,
            ", ".join(repr(given(place)) for place in _first_unknown(positions, SHOWN)),
            ", ..." if dropped > SHOWN else "",
        )
    empty = known.lengths == 0
    if not empty.any():
        return user_ids, known
    bare = user_ids.filter(pl.Series(empty))
    there = f"the catalogue has items such as {first_few(map(repr, items.series.head(SHOWN)))}"
    if on_empty == "error":
        none_given = int((positions.lengths[empty] == 0).sum())
        mend = "leave them out, or get the others' recommendations: on_empty='skip' (command line: --on-empty skip)"
        if empty.all():
            mend = f"{there}; give some of them"
        raise DataError(
            f"{len(bare)} of {len(user_ids)} histories hold no known item ({none_given} are empty, "
            f"{len(bare) - none_given} have only unknown items): users {first_few(bare)}; {mend}"
        )
    nobody = f", so that nobody gets any; {there}" if empty.all() else ""
    logger.warning("%d users have no known item and get no recommendations%s", len(bare), nobody)
    keep = np.flatnonzero(~empty)
    return user_ids.gather(keep), known.rows(keep)


def _first_unknown(positions: Ragged, count: int) -> list[int]:
    """Places of the first unknown items, at most ``count``."""
    found: list[int] = []
    for rows, block in positions.blocks():
        found += (positions.offsets[rows.start] + np.flatnonzero(block.values < 0)[:count]).tolist()
        if len(found) >= count:
            break
    return found[:count]
