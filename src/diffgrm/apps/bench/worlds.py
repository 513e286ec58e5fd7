"""The datasets of a suite, split, and told to networks as runs ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from diffgrm.apps.bench.suite import Suite
from diffgrm.data.clock import with_clock
from diffgrm.data.dataset import InteractionDataset, Split
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.listing import load_source
from diffgrm.data.splits import make_split
from diffgrm.evaluation.protocol import protocol
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError
from diffgrm.foundation.storage import digest
from diffgrm.semantic_ids.embeddings.lsa import word_vectors

TABLE, ITEMS, USERS = "interactions.parquet", "items.parquet", "users.parquet"


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
    suite: Suite
    _told: dict[str, World] = field(default_factory=dict)

    @cached_property
    def texts(self) -> sp.csr_array:
        """[I, features] what tells how unlike items are, the same for all runs."""
        return word_vectors(self.dataset.item_table)

    @classmethod
    def load(cls, suite: Suite, name: str, events: EventSettings = PLAIN) -> World:
        """From a folder that the suite names, else from the publisher; held out as the suite says.

        Raises:
            DataError, DownloadError: it cannot be had, or not be split so.
        """
        dataset, untimed = _dataset(suite, name, events)
        split = make_split(dataset, suite.data)
        facts = protocol(split) | ({"events_without_time": untimed} if untimed else {})
        split = replace(split, test=split.test.sample(suite.test_users, seed=0))
        ids = [dataset.users.series.to_list(), dataset.items.series.to_list(), dataset.item_table.hash_rows().sum()]
        times = [] if dataset.timestamps is None else [dataset.timestamps]
        held = [suite.data.model_dump(), *(times if suite.data.split == "temporal" else [])]
        told = [*dataset.events.marks.arrays, *dataset.events.facts.arrays]
        identity = digest([dataset.events.values, dataset.events.offsets, *ids, *held, *told])
        return cls(name, dataset, split, facts, identity, suite)

    def told(self, events: EventSettings) -> World:
        """The same world, of which networks are told as a run says; users are those of ``users.parquet`` in its folder.

        Raises:
            DataError: the run reads other events, so that it would be measured by others than the rest.
        """
        if events == self.dataset.event_settings:
            return self
        key = events.model_dump_json()
        if key not in self._told:
            found = World.load(self.suite, self.name, events)
            mine, theirs = (world.dataset.events for world in (self, found))
            alike = np.array_equal(mine.values, theirs.values) and np.array_equal(mine.offsets, theirs.offsets)
            if not alike or found.dataset.events.marks.is_target is not None:
                raise DataError(
                    f"{self.name}: a run of the suite reads other events by its section events, and all share the same; "
                    "only what networks are told may differ (time_inputs, event_columns, user_columns)"
                )
            self._told[key] = found
        return self._told[key]


def _dataset(suite: Suite, name: str, events: EventSettings) -> tuple[InteractionDataset, int]:
    """A dataset of a suite, and how many events were left out because they have no time."""
    clock = suite.clock.get(name)
    for folder in suite.folders:
        home = suite.path(folder) / name
        if (table := home / TABLE).is_file():
            rows, untimed = (table, 0) if clock is None else with_clock(table, clock)
            users: Path | None = home / USERS if events.user_columns else None
            read = InteractionDataset.from_tables(rows, home / ITEMS, name=name, events=events, profiles=users)
            return read, untimed
    if clock is not None:
        raise DataError(f"clock names the column {clock!r} of {name}, which lies in none of the suite's folders")
    if events != PLAIN:
        raise DataError(
            f"{name} comes from its publisher, and the section events of a run is for tables; put them into one of the "
            f"suite's folders, as {name}/{TABLE}, {ITEMS} and, for events.user_columns, {USERS}"
        )
    return load_source(name), 0
