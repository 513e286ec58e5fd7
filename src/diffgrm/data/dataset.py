"""Ragged, InteractionDataset and the splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.blocks import open_rows
from diffgrm.data.events import read_events
from diffgrm.data.frames import load_frame
from diffgrm.data.ids import IdMap, id_order
from diffgrm.data.marks import PLAIN
from diffgrm.data.ragged import Ragged as Ragged
from diffgrm.data.reading import ReadingReport
from diffgrm.data.tables import read_items, renamings_for
from diffgrm.foundation import forks
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, bullet_list, did_you_mean

OURS = (Columns.USER, Columns.ITEM, Columns.TIMESTAMP, Columns.TEXT, Columns.TITLE)


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
    ) -> InteractionDataset:
        """Read, check and index two tables (paths or frames).

        Args:
            columns: what the library's columns are called in whichever of the two tables has them, for example
                ``{"user_id": "reviewerID", "item_id": "asin"}``.
            time_format: how times in text are written, for example ``"%d/%m/%Y"``; None is numbers or ISO.
            events: which rows are events and what is known of them, as in a recipe's section ``events``.

        Raises:
            DataError: anything the table readers find, events of items that the item table does not have, and event types
                to learn of which there is no event.
        """
        columns = dict(columns or {})
        if unknown := sorted(set(columns) - set(OURS)):
            raise DataError(f"cannot rename to {unknown[0]!r}: the library's columns are {', '.join(OURS)}")
        rows, items = open_rows(interactions), load_frame(items, "item table")
        known = [*rows.header.columns, *items.columns]
        if missing := [old for old in columns.values() if old not in known]:
            hints = [f"{old!r}{did_you_mean(old, known)}" for old in missing]
            raise DataError("neither table has the column to rename:\n" + bullet_list(hints))
        item_table = read_items(items, renamings_for(items, columns))
        given = id_order(item_table[Columns.ITEM])
        item_table = item_table[given]
        item_ids = IdMap(item_table[Columns.ITEM])
        found = read_events(rows, item_ids, renamings_for(rows.header, columns), time_format, settings=events)
        if found.report is not None:
            found.report.check(events)
        rest = found.rows, found.times, name, given, found.time_type, found.report
        return cls(IdMap(found.users), item_ids, item_table, *rest)

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
    """Users to recommend to, what they had met, and what they met next.

    Attributes:
        user_ids: external ids [U].
        histories: item positions before the target, oldest first (U rows).
        targets: the item positions that should be recommended (U rows; one each in leave-one-out).
    """

    user_ids: pl.Series
    histories: Ragged
    targets: Ragged

    def __len__(self) -> int:
        return len(self.histories)

    def sample(self, count: int | None, seed: int) -> EvaluationSet:
        """At most ``count`` users, drawn without replacement; all of them for None."""
        if count is None or count >= len(self):
            return self
        return self.rows(np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False)))

    def known_to(self, known: IdMap, items: IdMap) -> EvaluationSet:
        """The users with a history item that ``known`` has; ``items`` are those that the histories are positions of."""
        is_known = known.positions(items.series) >= 0
        theirs = self.histories.by_blocks(lambda block: block.filter(is_known[block.values]))
        return self.rows(np.flatnonzero(theirs.lengths))

    def rows(self, chosen: np.ndarray) -> EvaluationSet:
        """Some users, by their place."""
        return EvaluationSet(self.user_ids.gather(chosen), self.histories.rows(chosen), self.targets.rows(chosen))


@dataclass(frozen=True)
class Split:
    """Training events, and the two sets that are never trained on.

    ``train`` keeps every user's row of the dataset (rows may be empty); ``test`` is empty for ``validation_only``.
    """

    dataset: InteractionDataset
    train: Ragged
    validation: EvaluationSet
    test: EvaluationSet
    name: str = field(default="leave_one_out")

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
        for mark in rows.marks.arrays:
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
    return EvaluationSet(dataset.users.gather(users), events.part(0, place, users), targets)


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


def temporal(dataset: InteractionDataset, validation_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Two cuts in time: events after the second are test, those between the cuts validation.

    A user's targets are the different items met inside the window; the history is everything before the window. Users
    with no event before a window are not evaluated in it.

    Raises:
        DataError: no timestamps, or shares that leave nothing to train on.
    """
    if dataset.timestamps is None:
        raise DataError("a temporal split needs a 'timestamp' column; use split='leave_one_out' without one")
    if validation_share + test_share >= 1:
        raise DataError(f"validation_share {validation_share} + test_share {test_share} leave nothing to train on")
    cuts = _cuts(dataset.timestamps, validation_share + test_share, test_share)
    before, earlier = (_events_before(dataset, dataset.timestamps, cut) for cut in cuts)
    train = dataset.events.part(0, before)
    if len(train.values) == 0:
        raise DataError("no event lies before the first cut in time: are all timestamps the same?")
    validation, test = _window(dataset, before, earlier), _window(dataset, earlier, dataset.events.lengths)
    return Split(dataset, train, validation, test, "temporal")


def _cuts(times: np.ndarray, *shares: float) -> list[float]:
    """The times from which on some shares of all events lie."""
    places = [min(round(len(times) * (1 - share)), len(times) - 1) for share in shares]
    ordered = mapped.room(len(times), np.float64)
    for start in range(0, len(times), mapped.BLOCK):
        ordered[start : start + mapped.BLOCK] = times[start : start + mapped.BLOCK]
    ordered.partition(places)
    return [float(ordered[place]) for place in places]


def _events_before(dataset: InteractionDataset, times: np.ndarray, cut: float) -> np.ndarray:
    """[U] events of each user before a time: the first ones, since they are in order."""
    counts = np.zeros(dataset.n_users, dtype=np.int64)
    for rows, block in Ragged(times, dataset.events.offsets).blocks():
        owner = np.repeat(np.arange(len(block)), block.lengths)
        counts[rows] = np.bincount(owner[block.values.astype(np.float64) < cut], minlength=len(block))
    return counts


def _window(dataset: InteractionDataset, start: np.ndarray, stop: np.ndarray) -> EvaluationSet:
    """Users with events before the window of their events from ``start`` to before ``stop``, and targets in it."""
    users = np.flatnonzero((start > 0) & (stop > start))
    targets = dataset.events.part(start[users], stop[users], users).targets().by_blocks(Ragged.distinct)
    if not targets.lengths.all():
        users, targets = users[targets.lengths > 0], targets.rows(np.flatnonzero(targets.lengths))
    histories = dataset.events.part(0, start[users], users)
    return EvaluationSet(dataset.users.gather(users), histories, targets)


SPLITS: dict[str, Callable[..., Split]] = {
    "leave_one_out": leave_one_out,
    "validation_only": validation_only,
    "temporal": temporal,
}


def make_split(dataset: InteractionDataset, name: str, *, validation_share: float, test_share: float) -> Split:
    """The split that a recipe's ``data`` section names.

    Raises:
        DataError: nothing to train on or to validate with.
    """
    forks.check()
    shares = {"validation_share": validation_share, "test_share": test_share} if name == "temporal" else {}
    split = SPLITS[name](dataset, **shares)
    problems = []
    if not (split.train.target_places(0) >= 1).any():
        problems.append("no user has two training events, so there is nothing to learn a next item from")
    if len(split.validation) == 0:
        problems.append("no user is left for validation")
    if problems:
        raise DataError(f"the {name} split of {dataset!r} cannot be used:\n" + bullet_list(problems))
    return split
