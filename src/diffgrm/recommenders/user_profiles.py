"""What is kept of users beside a model whose network is told of them: the values of ``events.user_columns``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.ids import IdMap
from diffgrm.data.profiles import Profiles
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.saved_tables import read_table, write_table
from diffgrm.foundation.schema import Columns, ModelFolderError
from diffgrm.recommenders.parts import Beside, FitTask, LearntPart

USERS, FILE = "users", "users.parquet"


class UserProfiles(LearntPart):
    """Profiles of the users that were there at fit.

    Attributes:
        profiles: of them; there once it is fitted or loaded.
    """

    profiles: Profiles

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        self.profiles = _profiles_of(task.split.dataset)

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; of users who were there before, what is known now counts."""
        more = type(self)()
        more.profiles = self.profiles.with_newer(_profiles_of(task.split.dataset))
        return more

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`: ids, and a column of numbers for each of ``events.user_columns``."""
        columns = [pl.Series(str(number), column) for number, column in enumerate(self.profiles.numbers.T)]
        write_table(pl.DataFrame([self.profiles.users.series.alias(Columns.USER), *columns]), folder / FILE)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        self.profiles = read_kept(folder, recipe.events)


def read_kept(folder: Path, settings: EventSettings) -> Profiles:
    """The profiles that stand in a folder of a model or of an export.

    Raises:
        ModelFolderError: they are damaged, or none of these settings.
    """
    table, named = read_table(folder / FILE), settings.user_columns
    columns = {str(number): pl.Int16() for number in range(len(named))}
    ids = table.columns[:1] == [Columns.USER] and table[Columns.USER].dtype in (pl.String, pl.Int64)
    if not ids or dict(table.schema.items() - {(Columns.USER, table[Columns.USER].dtype)}) != columns:
        raise ModelFolderError(f"{folder / FILE} has the columns {table.schema}; expected user_id and {columns}")
    numbers = table.select(list(columns)).to_numpy()
    most = np.array([len(values) for values in named.values()])
    users = table[Columns.USER]
    if table.null_count().sum_horizontal()[0] or users.is_duplicated().any() or ((numbers < 0) | (numbers > most)).any():
        raise ModelFolderError(f"{folder / FILE} has users twice, nulls, or numbers of values that the recipe lacks")
    return Profiles(IdMap(users), numbers)


def user_parts(recipe: Recipe) -> dict[str, LearntPart]:
    """The part that keeps profiles, not yet fitted, where networks are told of users."""
    return {USERS: UserProfiles()} if recipe.events.user_columns else {}


def _profiles_of(dataset: InteractionDataset) -> Profiles:
    columns = dataset.events.facts.columns
    assert columns is not None
    return Profiles(dataset.users, np.asarray(columns, np.int16))
