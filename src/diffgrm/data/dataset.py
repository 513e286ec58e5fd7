"""Ragged, InteractionDataset, and splits by the last events of a user."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.blocks import open_rows
from diffgrm.data.context import check_inputs
from diffgrm.data.events import read_events
from diffgrm.data.frames import load_frame
from diffgrm.data.ids import IdMap, id_order
from diffgrm.data.marks import PLAIN, RowFacts
from diffgrm.data.profiles import profiles_for
from diffgrm.data.ragged import Ragged as Ragged
from diffgrm.data.reading import ReadingReport
from diffgrm.data.tables import read_items, renamings_for
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns


@dataclass(frozen=True)
class InteractionDataset:
    """Who met what, in order, and what the items say. Frozen; build it with :meth:`from_tables`.

    Attributes:
        users, items: external id <-> position. Items are in order of their ids (:func:`diffgrm.data.ids.id_order`), so that
            what is learnt does not depend on the order of the rows.
        item_table: the item table, row i is item i; has ``item_id`` and ``text``.
        events: item positions of every user, oldest first.
        timestamps: the time of every event as a number, aligned with ``events.values``; None without the column.
        time_type: what those numbers are of.
        given: [I] the row of each item in the table as it was given; None: the same.
        report: what was read of the table of events, what was dropped, and why.
    """

    users: IdMap
    items: IdMap
    item_table: pl.DataFrame
    events: Ragged
    timestamps: np.ndarray | None = None
    name: str = "dataset"
    given: np.ndarray | None = None
    time_type: pl.DataType | None = None
    report: ReadingReport | None = None

    @classmethod
    def from_tables(
        cls,
        interactions: Any,
        items: Any,
        columns: Mapping[str, str] | None = None,
        name: str = "dataset",
        time_format: str | None = None,
        events: EventSettings = PLAIN,
        profiles: Any = None,
    ) -> InteractionDataset:
        """Read, check and index two tables (paths or frames).

        Args:
            columns: what the library's columns are called in whichever of the two tables has them, for example
                ``{"user_id": "reviewerID", "item_id": "asin"}``.
            time_format: how times in text are written, for example ``"%d/%m/%Y"``; None is numbers or ISO.
            events: which rows are events and what is known of them, as in a recipe's section ``events``.
            profiles: a table of users (path or frame) with ``user_id`` and the columns that ``events.user_columns`` names.

        Raises:
            DataError: anything the table readers find, events of items that the item table does not have, event types to
                learn of which there is no event, and times or columns that tell networks nothing.
        """
        rows, items = open_rows(interactions), load_frame(items, "item table")
        of_events, of_items = renamings_for(columns, rows.header, items, what="the interaction table and the item table")
        item_table = read_items(items, of_items)
        given = id_order(item_table[Columns.ITEM])
        item_table = item_table[given]
        item_ids = IdMap(item_table[Columns.ITEM])
        found = read_events(rows, item_ids, of_events, time_format, settings=events)
        if found.report is not None:
            found.report.check(events)
        check_inputs(found.rows, rows)
        users = IdMap(found.users)
        told = replace(found.rows, facts=RowFacts(columns=profiles_for(users, profiles, events)))
        return cls(users, item_ids, item_table, told, found.times, name, given, found.time_type, found.report)

    @property
    def event_settings(self) -> EventSettings:
        """How the events were read."""
        return self.events.marks.settings

    @property
    def n_users(self) -> int:
        """Users with at least one event."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Items of the item table, with or without events."""
        return len(self.items)

    def event_table(self) -> pl.DataFrame:
        """All events as user_id, item_id and, where known, type, weight and timestamp.

        A user's rows stand together, oldest first.
        """
        user = np.repeat(np.arange(self.n_users), self.events.lengths)
        table = pl.DataFrame({Columns.USER: self.users.gather(user), Columns.ITEM: self.items.gather(self.events.values)})
        table = table.with_columns(self.events.marks.table_columns())
        if self.timestamps is None or self.time_type is None:
            return table
        return table.with_columns(pl.Series(Columns.TIMESTAMP, self.timestamps).cast(self.time_type))

    def __repr__(self) -> str:
        return (
            f"InteractionDataset({self.name}: {self.n_users} users, {self.n_items} items, {len(self.events.values)} events)"
        )


@dataclass(frozen=True)
class EvaluationSet:
    """Lists to make: for which user, what they had met, and what they met next.

    Attributes:
        user_ids: external ids [L]; a user with several lists stands in neighbouring rows.
        histories: item positions before the target, oldest first (L rows).
        targets: the item positions that should be recommended (L rows; one each in leave-one-out).
    """

    user_ids: pl.Series
    histories: Ragged
    targets: Ragged

    def __len__(self) -> int:
        return len(self.histories)

    @cached_property
    def n_users(self) -> int:
        """Different users."""
        return self.user_ids.n_unique()

    @cached_property
    def keys(self) -> pl.Series:
        """What tells the lists apart [L]: user ids, or the numbers of the rows where a user has several."""
        return self.user_ids if self.n_users == len(self) else pl.Series(Columns.USER, range(len(self)), pl.Int64)

    def sample(self, count: int | None, seed: int) -> EvaluationSet:
        """At most ``count`` users with all their lists, drawn without replacement; all of them for None."""
        if count is None or count >= self.n_users:
            return self
        drawn = np.zeros(self.n_users, dtype=bool)
        drawn[np.random.default_rng(seed).choice(self.n_users, count, replace=False)] = True
        return self.rows(np.flatnonzero(drawn[self.user_ids.rle_id().to_numpy()]))

    def known_to(self, known: IdMap, items: IdMap) -> np.ndarray:
        """The rows with a history item that ``known`` has; ``items`` are those that the histories are positions of."""
        is_known = known.positions(items.series) >= 0
        theirs = self.histories.by_blocks(lambda block: block.filter(is_known[block.values]))
        return np.flatnonzero(theirs.lengths)

    def rows(self, chosen: np.ndarray) -> EvaluationSet:
        """Some lists, by their place."""
        return EvaluationSet(self.user_ids.gather(chosen), self.histories.rows(chosen), self.targets.rows(chosen))


@dataclass(frozen=True)
class Split:
    """Training events, and the two sets that are never trained on.

    ``train`` keeps every user's row of the dataset (rows may be empty); ``test`` is empty for ``validation_only``.

    Attributes:
        facts: what results tell of it besides its name, such as where it cuts and how many targets are cold.
    """

    dataset: InteractionDataset
    train: Ragged
    validation: EvaluationSet
    test: EvaluationSet
    name: str = field(default="leave_one_out")
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """Training events of every item [I], of types that are learnt."""
        return np.bincount(self.train.targets().values, minlength=self.dataset.n_items)

    @property
    def learnable(self) -> np.ndarray:
        """[I] bool, items whose texts may be learnt from: those with training events."""
        return self.item_counts > 0

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of what was trained on: which items (and marks) in which order.

        Whoever the users are, and however their rows stand, it is the same.
        """
        ids = self.dataset.items.series.cast(pl.String)
        number = ids.rank("ordinal").to_numpy().astype(np.uint64)  # of an item, by its spelling
        users = np.sort(np.concatenate([_mixed(number, block) for _, block in self.train.blocks()]))
        found = hashlib.sha256("\n".join(ids.sort()).encode())
        found.update(users.astype("<u8").tobytes())
        return found.hexdigest()


def _mixed(number: np.ndarray, rows: Ragged) -> np.ndarray:
    """[rows] a number of each row that follows from its items, by their ``number``, and their order."""
    place = (np.arange(len(rows.values)) - np.repeat(rows.offsets[:-1], rows.lengths)).astype(np.uint64)
    with np.errstate(over="ignore"):
        what = number[rows.values]
        columns = rows.facts.columns
        of_users = () if columns is None else np.repeat(columns, rows.lengths, axis=0).T
        for mark in (*rows.marks.arrays, *map(np.ascontiguousarray, of_users)):
            what = what * np.uint64(0x100000001B3) + mark.view(f"u{mark.itemsize}").astype(np.uint64)
        mixed = (what + (place << np.uint64(40))) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed, dtype=np.uint64)])
        users: np.ndarray = sums[rows.offsets[1:]] - sums[rows.offsets[:-1]]
    return users


def _held_out(dataset: InteractionDataset, users: np.ndarray, after: int) -> EvaluationSet:
    """For each user, the target that has ``after`` targets behind it is asked for, what stands before it the history."""
    events = dataset.events
    place = events.target_places(after)[users]
    targets = Ragged(events.values[events.offsets[users] + place], np.arange(len(users) + 1))
    histories = asked_at(events.part(0, place, users), events, events.offsets[users] + place)
    return EvaluationSet(dataset.users.gather(users), histories, targets)


def asked_at(histories: Ragged, events: Ragged, places: np.ndarray) -> Ragged:
    """Histories that are asked for what comes next when the events at some places happen, where times are told.

    Who serves knows what time it is, so that this tells no more of a target than serving would.

    Args:
        places: [rows] among the events.
    """
    times = events.marks.times
    if times is None:
        return histories
    return replace(histories, facts=replace(histories.facts, moments=np.asarray(times[places])))


def leave_one_out(dataset: InteractionDataset) -> Split:
    """Last target of a user is test, the one before it validation, what stands before that training.

    All events are targets where they have no types. Users with fewer than two targets after their first event are trained
    on and not evaluated.
    """
    second = dataset.events.target_places(1)
    users = np.flatnonzero(second >= 1)
    train = dataset.events.part(0, np.where(second >= 1, second, dataset.events.lengths))
    return Split(dataset, train, _held_out(dataset, users, 1), _held_out(dataset, users, 0), "leave_one_out")


def validation_only(dataset: InteractionDataset) -> Split:
    """Last target of a user is validation; nothing is kept for test. For models that go to production."""
    newest = dataset.events.target_places(0)
    users = np.flatnonzero(newest >= 1)
    train = dataset.events.part(0, np.where(newest >= 1, newest, dataset.events.lengths))
    return Split(dataset, train, _held_out(dataset, users, 0), _held_out(dataset, users[:0], 0), "validation_only")
