"""RecTools' SASRec (PyPI: rectools[torch]) as a peer of a suite.

Settings: ``options`` of SASRecModel's constructor.
"""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
from common import Exchange
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def as_dataset(rows: dict[Any, list[int]]) -> Dataset:
    """Events with the place in the history for a time."""
    table = pd.DataFrame(
        [(user, item, 1.0, place) for user, row in rows.items() for place, item in enumerate(row)],
        columns=[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime],
    )
    table[Columns.Datetime] = pd.to_datetime(table[Columns.Datetime], unit="D")
    return Dataset.construct(table)


def lists(table: pd.DataFrame) -> dict[Any, list[int]]:
    """Item positions of every user, best first."""
    table = table.sort_values([Columns.User, Columns.Rank])
    return {user: rows.tolist() for user, rows in table.groupby(Columns.User)[Columns.Item]}


def main() -> None:
    given = Exchange()
    model = SASRecModel(deterministic=True, **given.settings.get("options", {}))
    started = time.perf_counter()
    model.fit(as_dataset(given.train))
    fit_seconds = time.perf_counter() - started
    histories, users, k = as_dataset(given.histories), list(given.histories), given.settings["k"]
    filtered, unfiltered = (lists(model.recommend(users, histories, k, filter_viewed=seen)) for seen in (True, False))
    parameters = sum(p.numel() for p in model.torch_model.parameters())
    given.write(filtered, unfiltered, parameters=parameters, fit_seconds=round(fit_seconds, 1))


if __name__ == "__main__":
    main()
