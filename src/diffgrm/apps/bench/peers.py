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
from diffgrm.foundation.schema import Columns, DiffGRMError
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
        DiffGRMError: no such environment, or the script failed; with the end of what it said.
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
        facts = json.loads((folder / "facts.json").read_text())
        facts.setdefault("fit_seconds", round(time.perf_counter() - started, 1))
        tables = [read_parquet(folder / f"{name}.parquet") for name in ("filtered", "unfiltered")]
        ids = {Columns.USER: dataset.users.dtype, Columns.ITEM: dataset.items.dtype}
        filtered, unfiltered = (table.with_columns(pl.col(c).cast(t) for c, t in ids.items()) for table in tables)
        return Lists(filtered, unfiltered, facts)


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
