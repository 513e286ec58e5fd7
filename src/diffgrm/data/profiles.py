"""Profiles: categories of users, from a table of them or as a request gives them, as numbers.

Letters: U users, C columns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.categories import (
    named_values,
    no_category,
    spelled_values,
    told_value,
    unnamed_problem,
    value_numbers,
)
from diffgrm.data.ids import IdMap, user_ids_of
from diffgrm.data.tables import read_table, with_ids
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, bullet_list, did_you_mean, first_few

logger = logging.getLogger(__name__)

WHAT = "table of users"


@dataclass(frozen=True)
class Profiles:
    """What is known of users.

    Attributes:
        users: their ids.
        numbers: [U, C] int16 numbers of their values, see :func:`diffgrm.data.categories.value_numbers`.
    """

    users: IdMap
    numbers: np.ndarray

    def of(self, users: pl.Series) -> np.ndarray:
        """[U, C] those of some users; 0 of users that are not known."""
        rows = self.users.positions(users)
        return np.where(rows[:, None] >= 0, self.numbers[rows], 0) if len(self.users) else self.none(len(users))

    def none(self, count: int) -> np.ndarray:
        """[count, C] of users of whom nothing is known."""
        return np.zeros((count, self.numbers.shape[1]), np.int16)

    def with_newer(self, newer: Profiles) -> Profiles:
        """Those of all users of both; of users in both the newer ones. Ids are texts where those of either are."""
        old = np.flatnonzero(newer.users.positions(self.users.series) < 0)
        ids = [newer.users.series, self.users.gather(old)]
        if len({column.dtype for column in ids}) > 1:
            ids = [column.cast(pl.String) for column in ids]
        users = IdMap(pl.concat(ids))
        return Profiles(users, np.concatenate([newer.numbers, self.numbers[old]]))


def user_table(source: Any, columns: Sequence[str]) -> pl.DataFrame:
    """A table of users as ``user_id`` and some of its columns, all as text; a row a user.

    Args:
        source: a path or a frame.

    Raises:
        DataError: an unusable table, missing columns, columns of lists, ids that are none, or users with several rows.
    """
    table = read_table(source, required=(Columns.USER, *columns), what=WHAT, renamable=False)
    table, problems = with_ids(table, (Columns.USER,))
    if Columns.USER in columns:
        problems.append(f"{Columns.USER!r} tells users apart; name a column that tells something of them")
    problems += [f"{name!r} is {wrong}" for name in columns if (wrong := no_category(table.schema[name]))]
    if problems:
        raise DataError(f"the {WHAT} has problems:\n{bullet_list(problems)}")
    table = table.select(pl.col(Columns.USER).cast(pl.String), *(spelled_values(table[name]) for name in columns))
    if len(repeated := table[Columns.USER].filter(table[Columns.USER].is_duplicated()).unique(maintain_order=True)):
        raise DataError(f"users stand more than once in the {WHAT}: {first_few(repeated)}; keep a row each")
    return table


def read_profiles(source: Any, settings: EventSettings) -> Profiles:
    """Profiles as somebody gives them; warnings tell values of a table that are not named.

    Args:
        source: a table of users (path or frame) with the columns of ``events.user_columns``; or a mapping from users to
            mappings from columns to values, which may lack some.

    Raises:
        DataError: an unusable table, or columns that the settings lack.
    """
    named = settings.user_columns
    if not named:
        raise DataError(
            "profiles were given, but the model is told of no columns of users (events.user_columns); leave them out"
        )
    if not isinstance(source, Mapping):
        table = user_table(source, tuple(named))
        for problem in _unnamed(table, settings):
            logger.warning("Of the %s, %s", WHAT, problem)
        return numbered(table, settings)
    if strange := [user for user, row in source.items() if not isinstance(row, Mapping)]:
        raise DataError(
            f"profiles: expected a mapping from columns to values for every user, not so for {first_few(strange)}"
        )
    if unknown := sorted({str(column) for row in source.values() for column in row if column not in named}):
        raise DataError(
            f"profiles name the column {unknown[0]!r}, of which the model knows nothing{did_you_mean(unknown[0], named)}"
        )
    users = user_ids_of(source)
    told = {
        name: [told_value(row.get(name), f"{name!r} of the user {user!r} in profiles") for user, row in source.items()]
        for name in named
    }
    columns = [pl.Series(name, values, pl.String) for name, values in told.items()]
    return numbered(pl.DataFrame([users, *columns]), settings)


def numbered(table: pl.DataFrame, settings: EventSettings) -> Profiles:
    """The profiles of a table as :func:`user_table` gives it."""
    numbers = [value_numbers(table[name], values).to_numpy() for name, values in settings.user_columns.items()]
    return Profiles(IdMap(table[Columns.USER]), np.stack(numbers, 1))


def profile_table(users: pl.Series, numbers: np.ndarray, settings: EventSettings) -> pl.DataFrame:
    """Profiles as a table that :func:`read_profiles` reads; values are null where they are none of those named."""
    columns = [named_values(of, *named) for of, named in zip(numbers.T, settings.user_columns.items(), strict=True)]
    return pl.DataFrame([users.alias(Columns.USER), *columns])


def _unnamed(table: pl.DataFrame, settings: EventSettings) -> list[str]:
    """Columns of which no value is named; a warning tells values of others that are not."""
    named = settings.user_columns.items()
    told = [unnamed_problem(table[name], "events.user_columns", values, "user") for name, values in named]
    return [problem for problem in told if problem is not None]


def profiles_for(users: IdMap, source: Any, settings: EventSettings) -> np.ndarray | None:
    """[U, C] numbers of the users of a dataset; None where networks are told nothing of users.

    Raises:
        DataError: no table where one is needed, or one that is not, or that knows none of the users or of the values.
    """
    if not settings.user_columns:
        if source is not None:
            raise DataError(
                "profiles were given, but events.user_columns names no column of them; name some, or leave them out"
            )
        return None
    if source is None:
        raise DataError(
            f"events.user_columns names {first_few(map(repr, settings.user_columns))}: give the {WHAT} too, with "
            "profiles= (command line: --profiles FILE)"
        )
    table = user_table(source, tuple(settings.user_columns))
    found = numbered(table, settings)
    known = found.users.positions(users.series) >= 0
    if not known.any():
        raise DataError(
            f"the {WHAT} knows none of the users of the events: it has {first_few(map(repr, found.users.series), 3)}; they "
            f"are {first_few(map(repr, users.series), 3)}"
        )
    if not known.all():
        logger.warning("%d of %d users are not in the %s; nothing is known of them", (~known).sum(), len(known), WHAT)
    if problems := _unnamed(table, settings):
        raise DataError("networks cannot be told so of users:\n" + bullet_list(problems))
    return found.of(users.series)
