"""What a request tells besides histories: the moment at which it asks, and profiles of users."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.ids import IdMap
from diffgrm.data.profiles import Profiles, profile_table, read_profiles
from diffgrm.data.ragged import Ragged
from diffgrm.data.times import A_DAY, A_SECOND, FIRST, LAST, in_seconds, read_times
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, first_few

NOW = "now"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
EXPECTED = "a date-time (UTC where it names no offset), a number as the timestamps are, ISO (2024-01-31T09:30:00), or 'now'"


def seconds_of(value: Any, unit: str, name: str) -> int:
    """A time as seconds from 1970.

    Args:
        value: a date or date-time (in UTC, where it has no zone), a number, a text in ISO, or ``"now"``.
        unit: of numbers, see :func:`diffgrm.data.times.in_seconds`.
        name: what it is, for messages.

    Raises:
        DataError: it is no time.

    >>> seconds_of("1970-01-02", "s", "at"), seconds_of(datetime.date(1970, 1, 2), "s", "at"), seconds_of(2, "day", "at")
    (86400, 86400, 172800)
    """
    if isinstance(value, str) and value == NOW:
        return int(time.time())
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    found: float | None = None
    if isinstance(value, str | datetime.date):
        times, faults = read_times(pl.Series([value]))
        if not faults and times.dtype in (pl.Date, pl.Datetime):
            found = int(in_seconds(times.to_physical().to_numpy(), times.dtype, unit)[0])
    elif is_number(value):
        found = value * A_DAY if unit == "day" else value / A_SECOND[unit]
    if found is None or not FIRST <= found <= LAST:
        raise DataError(f"{name} is {value!r}; expected {EXPECTED}")
    return math.floor(found)


def is_number(value: Any) -> bool:
    """Whether a time is a number, and one that 64-bit floats hold.

    >>> [is_number(value) for value in (5, 0.5, True, float("nan"), 10**400, "5")]
    [True, True, False, False, False, False]
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def with_moments(user_ids: pl.Series, histories: Ragged, at: Any) -> Ragged:
    """Histories that are asked for what comes next at some moment.

    Args:
        at: a time for all, or a mapping from users to times, which may lack some; None: at the newest event of each.

    Raises:
        DataError: times that cannot be read, that do nothing, or that lie before the newest event; unknown users.
    """
    settings, times = histories.marks.settings, histories.marks.times
    if at is None:
        return histories
    _check_asked_when(settings)
    assert times is not None
    newest = np.asarray(times[histories.offsets[1:] - 1])
    moments = newest.copy()
    if isinstance(at, Mapping):
        rows = IdMap(user_ids).positions(list(at))
        if len(user_ids) and (rows < 0).all():
            raise DataError(f"at= is of users without a history: {first_few(map(repr, at))}")
        given = [seconds_of(value, settings.time_unit, f"at of the user {user!r}") for user, value in at.items()]
        moments[rows[rows >= 0]] = np.array(given)[rows >= 0]
    else:
        moments[:] = seconds_of(at, settings.time_unit, "at")
    if len(early := np.flatnonzero(moments < newest)):
        row = early[0]
        raise DataError(
            f"at= lies before the newest event of {len(early)} histories: of the user {user_ids[int(row)]!r} it is "
            f"{_spelled(moments[row])}, and the newest event is of {_spelled(newest[row])} (UTC); give histories up to the "
            "moment that is asked for, or a later moment"
        )
    return replace(histories, facts=replace(histories.facts, moments=moments))


def moment_of(at: Any, settings: EventSettings) -> datetime.datetime:
    """One moment, in UTC, at which lists of all users are asked for.

    Raises:
        DataError: a time that cannot be read, that does nothing, or several.
    """
    _check_asked_when(settings)
    if isinstance(at, Mapping):
        raise DataError(f"at= is a mapping of {len(at)} users; expected one time for all: {EXPECTED}")
    return EPOCH + datetime.timedelta(seconds=seconds_of(at, settings.time_unit, "at"))


def _check_asked_when(settings: EventSettings) -> None:
    if not settings.asks_when:
        raise DataError(
            "at= says when recommendations are asked for, of which the model is told nothing (events.time_inputs names no "
            "recency, hour or weekday); leave it out"
        )


def with_profiles(user_ids: pl.Series, histories: Ragged, given: Any, stored: Profiles | None, named: bool) -> Ragged:
    """Histories with what is known of their users.

    Args:
        given: see :func:`diffgrm.data.profiles.read_profiles`; None: nothing.
        stored: what is known of users; None: networks are told nothing.
        named: whether ``user_ids`` are those of users, and not numbers of histories.

    Raises:
        DataError: see :func:`diffgrm.data.profiles.read_profiles`; or profiles of users without a history.
    """
    profiles = None if given is None else read_profiles(given, histories.marks.settings)
    if stored is None or (profiles is None and histories.facts.columns is not None):
        return histories
    columns = stored.of(user_ids) if named else stored.none(len(user_ids))
    if profiles is not None:
        rows = IdMap(user_ids).positions(profiles.users.series)
        if len(user_ids) and (rows < 0).all():
            raise DataError(f"profiles are of users without a history: {first_few(map(repr, profiles.users.series))}")
        columns[rows[rows >= 0]] = profiles.numbers[rows >= 0]
    return replace(histories, facts=replace(histories.facts, columns=columns))


def request_of(keys: pl.Series, histories: Ragged) -> dict[str, Any]:
    """What ``recommend`` is to be told besides the table of some histories; nothing where networks are told nothing.

    Args:
        keys: the users in that table.
    """
    facts, settings = histories.facts, histories.marks.settings
    asked: dict[str, Any] = {}
    if facts.moments is not None and settings.asks_when:
        asked["at"] = dict(zip(keys, pl.from_epoch(pl.Series(facts.moments), "s"), strict=True))
    if facts.columns is not None:
        asked["profiles"] = profile_table(keys, facts.columns, settings)
    return asked


def _spelled(seconds: int) -> str:
    return str(pl.from_epoch(pl.Series([int(seconds)]), "s")[0]) if FIRST <= seconds <= LAST else f"{seconds} s"
