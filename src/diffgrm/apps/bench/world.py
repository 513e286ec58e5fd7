"""A dataset of a suite, read and split as its runs ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import scipy.sparse as sp

from diffgrm.apps.bench.suite import Suite
from diffgrm.data.clock import with_clock
from diffgrm.data.dataset import InteractionDataset, Split
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.listing import SOURCES, load_source
from diffgrm.data.splits import make_split
from diffgrm.evaluation.protocol import protocol
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError
from diffgrm.foundation.storage import digest
from diffgrm.semantic_ids.embeddings.lsa import word_vectors


@dataclass(frozen=True)
class World:
    """A dataset of a suite, split.

    Attributes:
        protocol: what results tell of the split.
    """

    name: str
    dataset: InteractionDataset
    split: Split
    protocol: dict[str, Any]
    identity: str

    @cached_property
    def texts(self) -> sp.csr_array:
        """[I, features] what tells how unlike items are, the same for all runs."""
        return word_vectors(self.dataset.item_table)

    @classmethod
    def load(cls, suite: Suite, name: str, events: EventSettings = PLAIN) -> World:
        """From one of the suite's folders or, where it names none, from the publisher; held out as the suite says.

        Args:
            events: which rows are events, by the recipes of some of its runs.

        Raises:
            DataError, DownloadError: it cannot be had, or not be split so.
        """
        dataset, untimed = _dataset(suite, name, events)
        split = make_split(dataset, suite.data)
        facts = protocol(split) | ({"events_without_time": untimed} if untimed else {})
        split = replace(split, test=split.test.sample(suite.test_users, seed=0))
        ids = [dataset.users.series.to_list(), dataset.items.series.to_list(), dataset.item_table.hash_rows().sum()]
        times = [] if dataset.timestamps is None else [dataset.timestamps]
        events_of = [
            dataset.events.values,
            dataset.events.offsets,
            *dataset.events.marks.arrays,
            *dataset.events.facts.arrays,
        ]
        held = [suite.data.model_dump(), *(times if suite.data.split == "temporal" else [])]
        return cls(name, dataset, split, facts, digest([*events_of, *ids, *held]))


def _dataset(suite: Suite, name: str, settings: EventSettings) -> tuple[InteractionDataset, int]:
    """A dataset of a suite, and how many events were left out because they have no time."""
    clock = suite.clock.get(name)
    homes = [suite.path(folder) / name for folder in suite.folders]
    for home in homes:
        if (events := home / "interactions.parquet").is_file():
            rows, untimed = (events, 0) if clock is None else with_clock(events, clock)
            users = home / "users.parquet" if settings.user_columns else None
            items = home / "items.parquet"
            return InteractionDataset.from_tables(rows, items, name=name, events=settings, profiles=users), untimed
    if homes:
        raise DataError(_missing(name, homes, clock))
    if clock is not None:
        raise DataError(
            f"clock names the column {clock!r} of {name}, but the suite names no folders with such a table; "
            f"say where it lies (folders: [FOLDER], for FOLDER/{name}/interactions.parquet), or leave clock out"
        )
    return load_source(name, settings), 0


def _missing(name: str, homes: list[Path], clock: str | None) -> str:
    """That a dataset lies in none of the suite's folders, and how it comes there."""
    columns = ", ".join(["user_id, item_id, timestamp", *([clock] if clock else [])])
    looked = ", ".join(str(home.resolve() / "interactions.parquet") for home in homes)
    mend = f"put interactions.parquet ({columns}) and items.parquet (item_id, text) into such a folder"
    if name.partition(":")[0] in SOURCES:
        written = f"diffgrm datasets {name} --out {homes[0].resolve()}"
        mend += f", or have '{written}' write what the publisher has, which may be other data than the suite was run on"
    return f"{name} lies in none of the suite's folders: looked for {looked}; {mend}"
