"""The columns of an interaction table that tell which rows are events, and what those count for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.categories import no_category, spelled_values, value_numbers
from diffgrm.data.faults import Fault, Rows, fault
from diffgrm.data.reading import Dropped
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, bullet_list, first_few, nearest

SESSION, OWNER = "session", "owner"  # columns of checked events, beside those of schema.Columns
SEVERAL = "make them different, for example with user and session id in one column"


def check_columns(settings: EventSettings, header: pl.DataFrame, what: str) -> None:
    """Make sure that a table has the columns that the settings name, each once, and of what they may be.

    Raises:
        DataError: with every column that is missing or misnamed, or holds lists where one value is expected.
    """
    problems, known = [], header.columns
    named = [(key, getattr(settings, key)) for key in ("event", "rating", "weight", "session")]
    for key, name in [*named, *(("event_columns", name) for name in settings.event_columns)]:
        if name is not None and name not in known:
            problems.append(f"events.{key} names the column {name!r}{nearest(name, known)}")
        elif f"{name}_duplicated_0" in known:
            problems.append(f"events.{key} names the column {name!r}, of which there are several; keep one")
        elif key not in ("rating", "weight") and name is not None and (wrong := no_category(header.schema[name])):
            problems.append(f"events.{key} names the column {name!r} {wrong}")
    if problems:
        raise DataError(f"the {what} has columns {known}, but:\n{bullet_list(problems)}")


class Choice(NamedTuple):
    """Which rows of a block are events.

    Attributes:
        kept: [rows] bool.
        dropped: why others are not.
    """

    kept: np.ndarray
    dropped: Dropped
    faults: list[Fault]


def choose(block: pl.DataFrame, settings: EventSettings, rows: Rows) -> Choice:
    """Choose rows of a block, of these numbers in the table, by their type, then by their rating."""
    kept, types, unrated, low = pl.repeat(True, block.height, eager=True), dict[str, int](), 0, 0
    by_rating: dict[str, int] = {}
    faults: list[Fault] = []
    if settings.event is not None:
        found = spelled_values(block[settings.event])
        known = found.is_in(settings.types)
        for kind, count in found.filter(~known.fill_null(False)).value_counts().iter_rows():
            types["null" if kind is None else str(kind)] = count
        kept = known.fill_null(False)
    if settings.rating is not None:
        told = block.select(pl.when(kept).then(settings.rating))[settings.rating]  # of other types it may be anything
        ratings, faults = numbers(told, settings.rating, rows)
        high = ratings >= settings.min_rating
        unrated = int((kept & ratings.is_null()).sum())
        low = int((kept & ~high.fill_null(True)).sum())
        if settings.event is not None:
            by_rating = dict(found.filter(kept & ~high.fill_null(False)).value_counts().iter_rows())
        kept = kept & high.fill_null(False)
    return Choice(kept.to_numpy(), Dropped(types, unrated, low, by_rating), faults)


def described(events: pl.DataFrame, settings: EventSettings, rows: Rows) -> tuple[pl.DataFrame, list[Fault]]:
    """What events are besides users, items and times: type, weight and session; and what is wrong with them.

    Args:
        rows: their numbers in the table.

    Returns:
        Columns of numbers: ``event`` (Int16), ``weight`` (Float32), ``session`` (a hash), and
        :func:`value_column` of each of ``events.event_columns`` (Int16).
    """
    columns: dict[str, pl.Series] = {}
    faults: list[Fault] = []
    if settings.event is not None:
        numbered = {kind: number for number, kind in enumerate(settings.types)}
        columns[Columns.EVENT] = spelled_values(events[settings.event]).replace_strict(numbered, return_dtype=pl.Int16)
    if settings.weight is not None:
        weights, faults = numbers(events[settings.weight], settings.weight, rows)
        columns[Columns.WEIGHT] = told = weights.cast(pl.Float32)
        bad = ~((told > 0) & told.is_finite()).fill_null(False)
        if bad.any() and not faults:
            says = f"{settings.weight} (events.weight) is null, not above 0, or too large"
            values = map(repr, events[settings.weight].filter(bad).unique(maintain_order=True).head(5))
            faults.append(fault(says, "give every event a positive weight, or drop its row", bad, rows, values))
    if settings.session is not None and settings.history == "user":
        sessions = events[settings.session]
        sessions = sessions.fill_nan(None) if sessions.dtype.is_float() else sessions
        texts = sessions.dtype in (pl.String, pl.Categorical, pl.Enum)
        blank = sessions.cast(pl.String).str.strip_chars() == "" if texts else pl.repeat(False, len(sessions), eager=True)
        for says, wrong in (("null", sessions.is_null()), ("empty", blank.fill_null(False))):
            if wrong.any():
                said = f"{settings.session} (events.session) is {says}"
                faults.append(fault(said, "drop or fill them", wrong, rows))
        columns[SESSION] = sessions.hash(0)
    for number, (name, named) in enumerate(settings.event_columns.items()):
        columns[value_column(number)] = value_numbers(events[name], named)
    return pl.DataFrame(columns), faults


def value_column(number: int) -> str:
    """What the numbers of the values of one of ``events.event_columns`` are called, in checked events and in the cache.

    >>> value_column(0)
    'values_0'
    """
    return f"values_{number}"


def numbers(column: pl.Series, name: str, rows: Rows) -> tuple[pl.Series, list[Fault]]:
    """A column as Float64, and what of it is no number; nulls are none, and no fault."""
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        says = f"{name} has type {column.dtype}; expected numbers"
        return pl.Series(name, [None] * len(column), pl.Float64), [Fault(says, name=says)]
    column = column.fill_nan(None) if column.dtype.is_float() else column
    texts = column.cast(pl.String).str.strip_chars() if column.dtype in (pl.Categorical, pl.Enum, pl.String) else column
    found = texts.cast(pl.Float64, strict=False)
    bad = column.is_not_null() & ~found.is_finite().fill_null(False)
    if not bad.any():
        return found, []
    values = map(repr, column.filter(bad).unique(maintain_order=True).head(5))
    remedy = "write numbers, or leave the cell empty"
    return found, [fault(f"{name} is no finite number", remedy, bad, rows, values)]


class SessionOwners:
    """Which user each session is of, and the sessions that are of several."""

    def __init__(self, name: str) -> None:
        self._name, self._found, self._waiting = name, pl.DataFrame(), 0

    def add(self, sessions: pl.Series, owners: pl.Series) -> None:
        """Note the pairs of a block; a null is no user."""
        owners = owners.fill_nan(None) if owners.dtype.is_float() else owners
        pairs = pl.DataFrame({SESSION: sessions, OWNER: owners}).drop_nulls(OWNER).unique()
        self._waiting += pairs.height
        self._found = pl.concat([self._found, pairs]) if self._found.height else pairs
        if self._waiting > max(self._found.height - self._waiting, mapped.BLOCK):  # so that few pairs are compared often
            self._found, self._waiting = self._found.unique(), 0

    def faults(self) -> list[Fault]:
        """What is wrong with them."""
        if not self._found.height:
            return []
        several = self._found.unique()[SESSION]
        several = several.filter(several.is_duplicated()).unique().sort()
        if not len(several):
            return []
        says = f"{len(several)} sessions of {self._name!r} (events.session) are of several users: {first_few(several)}"
        says = f"{says}; {SEVERAL}"
        return [Fault(says, name=says)]
