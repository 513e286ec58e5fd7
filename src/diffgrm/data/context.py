"""What networks are told of a history besides its items: its times on the clock, categories of events and of its user.

Each input is a number at every place of a history; all of them are rows of one table, of which a network learns a vector
each. Letters: N events, V places of histories, B histories, C inputs.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.blocks import Rows
from diffgrm.data.categories import spelled_values, unnamed_problem
from diffgrm.data.ragged import Ragged
from diffgrm.data.times import A_DAY, FIRST, LAST
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, bullet_list

logger = logging.getLogger(__name__)

LONGEST = 33  # powers of two up to some 270 years, in seconds
EDGES = np.unique(np.ceil(2.0 ** (np.arange(2 * LONGEST) / 2)).astype(np.int64) - 1)  # the least seconds of each bucket
AN_HOUR, HOURS, DAYS, A_YEAR = 3600, 24, 7, 365 * A_DAY
EVENTS_FROM = "events_from"  # among the facts of a fit
THURSDAY = 3  # 1970-01-01, with Monday as 0


def bucket(seconds: np.ndarray) -> np.ndarray:
    """The bucket of each stretch of time: 0, 1, 2... seconds first, then two for every doubling.

    Buckets on a logarithmic scale are the field's (HSTU, arXiv 2402.17152, takes the logarithm of seconds too); that there
    are two for every doubling, and that what is negative counts as 0, is ours.

    >>> bucket(np.array([-5, 0, 1, 2, 3, 4, 5, 7, 60, 3600, 86400])).tolist()
    [0, 0, 1, 2, 3, 3, 4, 5, 10, 22, 31]
    """
    return np.searchsorted(EDGES, np.maximum(seconds, 0), side="right") - 1


def hour_of(times: np.ndarray, utc_offset: float = 0.0) -> np.ndarray:
    """The hour of the day, 0 to 23, of seconds from 1970.

    >>> hour_of(np.array([0, 3600 * 25, -1])).tolist(), hour_of(np.array([0]), -3.5).tolist()
    ([0, 1, 23], [20])
    """
    return (times + round(utc_offset * AN_HOUR)) // AN_HOUR % HOURS


def weekday_of(times: np.ndarray, utc_offset: float = 0.0) -> np.ndarray:
    """The day of the week, Monday 0 to Sunday 6, of seconds from 1970.

    >>> weekday_of(np.array([0, 4 * 86400, -1])).tolist()
    [3, 0, 2]
    """
    return ((times + round(utc_offset * AN_HOUR)) // A_DAY + THURSDAY) % DAYS


def input_sizes(settings: EventSettings) -> list[int]:
    """How many values each input has, in order; hours and weekdays are two inputs each, of the event and of the moment."""
    buckets = len(EDGES)
    sizes = {"gap": [1 + buckets], "recency": [buckets], "hour": [HOURS] * 2, "weekday": [DAYS] * 2}
    columns = [*settings.event_columns.values(), *settings.user_columns.values()]
    return [size for name in settings.time_inputs for size in sizes[name]] + [1 + len(named) for named in columns]


@dataclass(frozen=True)
class Context:
    """Gives what networks are told of stretches of histories.

    A stretch that ends before its history does is asked for the event behind it, at the time of that event; any other at
    the moment of the history (:class:`diffgrm.data.marks.RowFacts`), or that of its newest event.

    Attributes:
        rows: the histories.
        causal: every place of a stretch is asked for what stands behind it, and its moment is the time of that; otherwise
            all places have the moment of the stretch.
    """

    rows: Ragged
    causal: bool

    @classmethod
    def of(cls, rows: Ragged, causal: bool) -> Context | None:
        """None where networks are told nothing of them."""
        return cls(rows, causal) if rows.marks.settings.tells_context else None

    def at(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """[V, C] int64 rows of the table, of all places of the stretches ``start[b]:stop[b]``, one behind the other."""
        row = np.searchsorted(self.rows.offsets, start, side="right") - 1
        lengths = stop - start
        first = np.cumsum(lengths) - lengths
        place = np.arange(lengths.sum()) + np.repeat(start - first, lengths)
        told = [*self._of_times(row, stop, lengths, place), *(column[place] for column in self.rows.marks.values)]
        told += [np.repeat(column, lengths) for column in self._of_users(row)]
        sizes = input_sizes(self.rows.marks.settings)
        begin = np.cumsum([0, *sizes[:-1]])
        return np.stack([column.astype(np.int64) + at for column, at in zip(told, begin, strict=True)], 1)

    def _of_times(self, row: np.ndarray, stop: np.ndarray, lengths: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
        """What is told of times at every place."""
        settings, times = self.rows.marks.settings, self.rows.marks.times
        if not settings.time_inputs:
            return []
        assert times is not None
        then = np.asarray(times[place])
        moment = np.repeat(self._moments(row, stop), lengths)
        if self.causal:
            ends = np.cumsum(lengths) - 1
            inner = np.ones(len(place), dtype=bool)
            inner[ends] = False
            moment[inner] = times[place[inner] + 1]
        told: list[np.ndarray] = []
        for name in settings.time_inputs:
            if name == "gap":
                before = place > np.repeat(self.rows.offsets[row], lengths)  # whether an event stands before it
                told.append(np.where(before, 1 + bucket(then - times[place - before]), 0))
            elif name == "recency":
                told.append(bucket(moment - then))
            else:
                on_clock = hour_of if name == "hour" else weekday_of
                told += [on_clock(then, settings.utc_offset), on_clock(moment, settings.utc_offset)]
        return told

    def _moments(self, row: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """[B] when each stretch is asked for what comes next."""
        times, given = self.rows.marks.times, self.rows.facts.moments
        assert times is not None
        within = stop < self.rows.offsets[row + 1]
        found = np.asarray(times[np.where(within, stop, stop - 1)])
        return found if given is None else np.where(within, found, given[row])

    def _of_users(self, row: np.ndarray) -> np.ndarray:
        """[C, B] what is told of the users of stretches."""
        columns, count = self.rows.facts.columns, len(self.rows.marks.settings.user_columns)
        return np.zeros((count, len(row)), np.int16) if columns is None else columns[row].T


def check_inputs(rows: Ragged, table: Rows) -> None:
    """Make sure that what networks shall be told of N events tells something; a warning tells values that are not named.

    Args:
        rows: the events.
        table: that they were read from.

    Raises:
        DataError: with every input that is the same for all events.
    """
    settings, times = rows.marks.settings, rows.marks.times
    problems = _of_no_year(times, settings)
    if times is not None and not problems:
        problems += _unlike_clock(times, settings)
        gaps = {"gap", "recency"} & set(settings.time_inputs)
        if gaps and len(_all_of(map(bucket, _gaps(rows)))) == 1:
            problems.append(
                f"events.time_inputs names {' and '.join(sorted(gaps))}, but all gaps between events are alike: the "
                "timestamps tell the order only; leave it out"
            )
    if problems := [*problems, *_unnamed(rows, table)]:
        raise DataError("networks cannot be told so of events:\n" + bullet_list(problems))


def check_asked(rows: Ragged, table: Rows) -> None:
    """Make sure that what a model is asked with has times; warnings tell values that are not named, also if none is.

    Arguments as of :func:`check_inputs`.

    Raises:
        DataError: times of no year.
    """
    check_years(rows.marks.times, rows.marks.settings)
    for problem in _unnamed(rows, table):
        logger.warning("Of the histories, %s", problem)


def check_years(times: np.ndarray | None, settings: EventSettings) -> None:
    """Make sure that times [N] in seconds, where a model is told of any, are of years that there are.

    Raises:
        DataError: some are not.
    """
    if problems := _of_no_year(times, settings):
        raise DataError("the histories cannot be read so:\n" + bullet_list(problems))


def check_clock(times: np.ndarray | None, settings: EventSettings, learnt_from: object) -> None:
    """Make sure that times [N] in seconds are on the clock of those learnt from: in too small a unit, all fall into 1970.

    Args:
        learnt_from: seconds from 1970 of the oldest event that was learnt from, a fact of the fit; no number: not known.

    Raises:
        DataError: all are of 1970, and the model learnt from none of that year.
    """
    if times is None or len(times) == 0 or not isinstance(learnt_from, int) or not A_YEAR <= learnt_from <= LAST:
        return
    if 0 < max(int(block.max()) for block in _blocks(times)) < A_YEAR and all(block.min() >= 0 for block in _blocks(times)):
        since = datetime.datetime.fromtimestamp(learnt_from, datetime.UTC).date()
        raise DataError(
            f"all times would be of 1970, and the model learnt from events of {since} and later: it reads numbers in "
            f"{settings.time_unit} (events.time_unit), and these seem to be in another unit; give numbers in "
            f"{settings.time_unit}, or date-times"
        )


def _of_no_year(times: np.ndarray | None, settings: EventSettings) -> list[str]:
    if times is None or all(block.min() >= FIRST and block.max() <= LAST for block in _blocks(times)):
        return []
    return [
        f"timestamps are read in {settings.time_unit} (events.time_unit), and some are of no year from 1 to 9999; name "
        "their unit: s, ms, us, ns or day"
    ]


def _unnamed(rows: Ragged, table: Rows) -> list[str]:
    """Columns of categories of which no value is named; a warning tells values of others that are not."""
    problems, settings = [], rows.marks.settings
    for column, (name, named) in zip(rows.marks.values, settings.event_columns.items(), strict=True):
        if not all(block.all() for block in _blocks(column)):
            there = pl.concat([spelled_values(block[name]).unique() for block in table.blocks([name])])
            problems.append(unnamed_problem(there, "events.event_columns", named, "event"))
    return [problem for problem in problems if problem is not None]


def _unlike_clock(times: np.ndarray, settings: EventSettings) -> list[str]:
    problems = []
    for name, on_clock in (("hour", hour_of), ("weekday", weekday_of)):
        if name in settings.time_inputs:
            found = _all_of(on_clock(block, settings.utc_offset) for block in _blocks(times))
            if len(found) == 1:
                problems.append(
                    f"events.time_inputs names {name}, but the {name} of all {len(times):,} events is {found.pop()}: the "
                    "timestamps are no clock, or have no time of day, or their unit is another than "
                    f"events.time_unit={settings.time_unit}; leave {name} out, or name the unit"
                )
    return problems


def _gaps(rows: Ragged) -> list[np.ndarray]:
    assert rows.marks.times is not None
    times = Ragged(rows.marks.times, rows.offsets)
    return [np.diff(block.values)[block.follows()] for _, block in times.blocks()]


def _blocks(column: np.ndarray) -> list[np.ndarray]:
    return [column[start : start + mapped.BLOCK] for start in range(0, len(column), mapped.BLOCK)]


def _all_of(blocks: Iterable[np.ndarray]) -> set[int]:
    """The different numbers in several arrays."""
    return {int(value) for block in blocks for value in np.unique(block)}
