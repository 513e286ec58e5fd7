"""Other implementations in their own environments, scored by our evaluation on our split.

A peer is a script that is run by its own Python with a folder as its one argument. The folder holds

    train.parquet       user_id, item_id, in order of time
    validation.parquet  user_id, item_id: the events that each user is validated with, after their last ones in train
    histories.parquet   user_id, item_id, in order of time: what stands before each test event
    items.parquet       item_id, and the digits of semantic IDs where the suite names a run whose they are
    vectors.npy         item vectors, where the suite names a run whose they are
    settings.json       seed, k, and the settings of the suite

and the script leaves filtered.parquet and unfiltered.parquet there (user_id, item_id, rank from 1, with and without the
user's history left out) and facts.json.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.dataset import InteractionDataset, Ragged, Split
from diffgrm.data.ids import IdMap
from diffgrm.foundation.schema import Columns, DiffGRMError, first_few
from diffgrm.foundation.storage import read_parquet, write_parquet

K = 20


class Lists:
    """Ready lists behind ``.recommend``, for :func:`diffgrm.evaluation.metrics.evaluate`."""

    def __init__(self, filtered: pl.DataFrame, unfiltered: pl.DataFrame, facts: dict[str, Any]) -> None:
        self.tables, self.facts = {True: filtered, False: unfiltered}, facts

    def recommend(self, histories: pl.DataFrame, k: int, *, exclude_seen: bool) -> pl.DataFrame:
        """The rows of the users of ``histories``."""
        table = self.tables[exclude_seen].filter(pl.col(Columns.RANK) <= k)
        return table.join(histories.select(Columns.USER).unique(), on=Columns.USER, how="semi")


def run_peer(
    script: Path,
    python: Path,
    dataset: InteractionDataset,
    split: Split,
    settings: dict[str, Any],
    codes: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
) -> Lists:
    """Let a peer learn from the training events and rank for the test users.

    Args:
        settings: for the script, ``seed`` among them.
        codes: [I, n] semantic IDs, and vectors: [I, e] item vectors, for peers that need them.

    Raises:
        DiffGRMError: no such environment, or the script failed, with the end of what it said; or it left other files than
            are asked for.
    """
    if not python.is_file():
        raise DiffGRMError(f"the peer's Python {python} is not there; make its environment with: make peers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _export(folder, dataset, split, settings, codes)
        if vectors is not None:
            np.save(folder / "vectors.npy", vectors)
        started = time.perf_counter()
        done = subprocess.run([str(python), str(script), str(folder)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DiffGRMError(f"the peer {script.name} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        facts = _facts(folder / "facts.json", script.name)
        facts.setdefault("fit_seconds", round(time.perf_counter() - started, 1))
        filtered, unfiltered = (
            _lists(folder / f"{name}.parquet", script.name, dataset) for name in ("filtered", "unfiltered")
        )
        return Lists(filtered, unfiltered, facts)


def _facts(path: Path, peer: str) -> dict[str, Any]:
    """What a peer says of its model.

    Raises:
        DiffGRMError: there is no such file, or it holds no mapping.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DiffGRMError(f"the peer {peer} left no {path.name} that can be read: {error}") from error
    if not isinstance(facts, dict):
        raise DiffGRMError(f"the peer {peer} left a {path.name} of {type(facts).__name__}; expected a mapping")
    return facts


def _lists(path: Path, peer: str, dataset: InteractionDataset) -> pl.DataFrame:
    """The lists that a peer has made, with ids in the types of the dataset.

    Raises:
        DiffGRMError: there is no such table, or its ranks are none.
    """
    what = f"the peer {peer} left {path.name}"
    if not path.is_file():
        raise DiffGRMError(f"the peer {peer} left no {path.name}; its lists stand there: user_id, item_id, rank")
    try:
        table = read_parquet(path)
        ids = {Columns.USER: dataset.users.dtype, Columns.ITEM: dataset.items.dtype}
        if missing := [column for column in (*ids, Columns.RANK) if column not in table.columns]:
            raise DiffGRMError(f"{what} without the column {missing[0]}; it has {first_few(table.columns)}")
        table = table.select(*(pl.col(column).cast(kind) for column, kind in ids.items()), Columns.RANK)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DiffGRMError(f"{what}, which cannot be read: {error}") from error
    ranks = table[Columns.RANK]
    if not ranks.dtype.is_integer() or ranks.null_count() or (ranks.len() and int(ranks.min()) < 1):  # type: ignore[arg-type]
        raise DiffGRMError(f"{what} with ranks that are not 1, 2, 3...; the best item of a user has rank 1")
    if table.select(Columns.USER, Columns.RANK).is_duplicated().any():
        raise DiffGRMError(f"{what} with two items of one rank in the list of a user; give each a rank of its own")
    return table


def _export(
    folder: Path, dataset: InteractionDataset, split: Split, settings: dict[str, Any], codes: np.ndarray | None
) -> None:
    write_parquet(_events(dataset.users.series, split.train, dataset.items), folder / "train.parquet")
    write_parquet(
        _events(split.validation.user_ids, split.validation.targets, dataset.items), folder / "validation.parquet"
    )
    write_parquet(_events(split.test.keys, split.test.histories, dataset.items), folder / "histories.parquet")
    items = dataset.item_table.select(Columns.ITEM)
    if codes is not None:
        items = items.with_columns(**{f"digit_{j}": pl.Series(codes[:, j]) for j in range(codes.shape[1])})
    write_parquet(items, folder / "items.parquet")
    (folder / "settings.json").write_text(json.dumps({"k": K, **settings}))


def _events(users: pl.Series, rows: Ragged, items: IdMap) -> pl.DataFrame:
    user = np.repeat(np.arange(len(rows)), rows.lengths)
    return pl.DataFrame({Columns.USER: users.gather(user), Columns.ITEM: items.gather(rows.values)})
