"""Ragged, InteractionDataset and the splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.frames import load_frame
from diffgrm.data.ids import IdMap, id_order
from diffgrm.data.tables import read_interactions, read_items, renamings_for
from diffgrm.foundation import forks
from diffgrm.foundation.schema import Columns, DataError, bullet_list, did_you_mean, first_few

OURS = (Columns.USER, Columns.ITEM, Columns.TIMESTAMP, Columns.TEXT, Columns.TITLE)


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row r is ``values[offsets[r]:offsets[r + 1]]``."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Length of every row [rows]."""
        return np.diff(self.offsets)

    def rows(self, chosen: np.ndarray) -> Ragged:
        """The chosen rows, in the order given."""
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[index], offsets)

    def drop_last(self, count: np.ndarray) -> Ragged:
        """Every row without its last ``count[row]`` values."""
        keep = self.row_index_from_end() >= np.repeat(count, self.lengths)
        return Ragged(self.values[keep], np.concatenate([[0], np.cumsum(self.lengths - count)]))

    def row_index_from_end(self) -> np.ndarray:
        """For every value, how many values of its row come after it."""
        return np.repeat(self.offsets[1:], self.lengths) - 1 - np.arange(len(self.values))

    def filter(self, keep: np.ndarray) -> Ragged:
        """Only the values where ``keep`` is true; rows may become empty."""
        row = np.repeat(np.arange(len(self)), self.lengths)
        counts = np.bincount(row[keep], minlength=len(self))
        return Ragged(self.values[keep], np.concatenate([[0], np.cumsum(counts)]))

    def distinct(self) -> Ragged:
        """Every row without repeats, each value at its first place."""
        row = np.repeat(np.arange(len(self)), self.lengths)
        first = np.unique(np.stack([row, self.values]), axis=1, return_index=True)[1]
        keep = np.zeros(len(self.values), dtype=bool)
        keep[first] = True
        return self.filter(keep)

    def padded(self, fill: int = -1) -> np.ndarray:
        """[rows, longest row] with ``fill`` after the end of each row."""
        width = int(self.lengths.max(initial=0))
        out = np.full((len(self), width), fill, dtype=np.int64)
        column = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        out[np.repeat(np.arange(len(self)), self.lengths), column] = self.values
        return out

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int] | np.ndarray]) -> Ragged:
        """Rows given one by one."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        values = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]) if len(rows) else np.empty(0, np.int64)
        return cls(values.astype(np.int64), np.concatenate([[0], np.cumsum(lengths)]))


@dataclass(frozen=True)
class InteractionDataset:
    """Who met what, in order, and what the items say. Frozen; build it with :meth:`from_tables`.

    Attributes:
        users, items: external id <-> position. Items are in order of their ids (:func:`diffgrm.data.ids.id_order`), so that
            what is learnt does not depend on the order of the rows.
        item_table: the item table, row i is item i; has ``item_id`` and ``text``.
        events: item positions of every user, oldest first.
        timestamps: the time of every event, aligned with ``events.values``; None without the column.
        given: [I] the row of each item in the table as it was given; None: the same.
    """

    users: IdMap
    items: IdMap
    item_table: pl.DataFrame
    events: Ragged
    timestamps: pl.Series | None = None
    name: str = "dataset"
    given: np.ndarray | None = None

    @classmethod
    def from_tables(
        cls,
        interactions: Any,
        items: Any,
        columns: Mapping[str, str] | None = None,
        name: str = "dataset",
        time_format: str | None = None,
    ) -> InteractionDataset:
        """Read, check and index two tables (paths or frames).

        Args:
            columns: what the library's columns are called in whichever of the two tables has them, for example
                ``{"user_id": "reviewerID", "item_id": "asin"}``.
            time_format: how times in text are written, for example ``"%d/%m/%Y"``; None is numbers or ISO.

        Raises:
            DataError: anything the table readers find, and events of items that the item table does not have.
        """
        columns = dict(columns or {})
        if unknown := sorted(set(columns) - set(OURS)):
            raise DataError(f"cannot rename to {unknown[0]!r}: the library's columns are {', '.join(OURS)}")
        interactions, items = load_frame(interactions, "interaction table"), load_frame(items, "item table")
        known = [*interactions.columns, *items.columns]
        if missing := [old for old in columns.values() if old not in known]:
            hints = [f"{old!r}{did_you_mean(old, known)}" for old in missing]
            raise DataError("neither table has the column to rename:\n" + bullet_list(hints))
        item_table = read_items(items, renamings_for(items, columns))
        given = id_order(item_table[Columns.ITEM])
        item_table = item_table[given]
        event_table = read_interactions(interactions, renamings_for(interactions, columns), time_format)
        item_ids = IdMap(item_table[Columns.ITEM])
        item_positions = item_ids.positions(event_table[Columns.ITEM])
        if (item_positions < 0).any():
            strange = event_table[Columns.ITEM].filter(pl.Series(item_positions < 0))
            raise DataError(
                f"{len(strange)} events are of {strange.n_unique()} items that the item table does not have: "
                f"{first_few(strange.unique(maintain_order=True))}; add them to the item table or drop the events"
            )
        user_ids = IdMap(event_table[Columns.USER].unique(maintain_order=True))
        user_positions = user_ids.positions(event_table[Columns.USER])
        order = np.argsort(user_positions, kind="stable")  # events are in order of time already
        counts = np.bincount(user_positions, minlength=len(user_ids))
        events = Ragged(item_positions[order], np.concatenate([[0], np.cumsum(counts)]))
        timestamps = event_table[Columns.TIMESTAMP].gather(order) if Columns.TIMESTAMP in event_table.columns else None
        return cls(user_ids, item_ids, item_table, events, timestamps, name, given)

    @property
    def n_users(self) -> int:
        """Users with at least one event."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Items of the item table, with or without events."""
        return len(self.items)

    def event_table(self) -> pl.DataFrame:
        """All events as user_id, item_id and, where known, timestamp; a user's rows stand together, oldest first."""
        user = np.repeat(np.arange(self.n_users), self.events.lengths)
        table = pl.DataFrame({Columns.USER: self.users.gather(user), Columns.ITEM: self.items.gather(self.events.values)})
        return table if self.timestamps is None else table.with_columns(self.timestamps.alias(Columns.TIMESTAMP))

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
        theirs = self.histories.filter((known.positions(items.series) >= 0)[self.histories.values])
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
        """Training events of every item [I]."""
        return np.bincount(self.train.values, minlength=self.dataset.n_items)

    @property
    def learnable(self) -> np.ndarray:
        """[I] bool, items whose texts may be learnt from: those with training events."""
        return self.item_counts > 0

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of what was trained on: which items in which order, whoever the users are and however rows stand."""
        ids = self.dataset.items.series.cast(pl.String)
        number = ids.rank("ordinal").to_numpy().astype(np.uint64)  # of an item, by its spelling
        place = (np.arange(len(self.train.values)) - np.repeat(self.train.offsets[:-1], self.train.lengths)).astype(
            np.uint64
        )
        with np.errstate(over="ignore"):
            mixed = (number[self.train.values] + (place << np.uint64(40))) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
            sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed, dtype=np.uint64)])
            users = np.sort(sums[self.train.offsets[1:]] - sums[self.train.offsets[:-1]])
        found = hashlib.sha256("\n".join(ids.sort()).encode())
        found.update(users.astype("<u8").tobytes())
        return found.hexdigest()


def _held_out(dataset: InteractionDataset, users: np.ndarray, after: np.ndarray) -> EvaluationSet:
    """For each user, the event that has ``after`` events behind it is the target, those before it the history."""
    rows = dataset.events.rows(users)
    targets = rows.values[rows.offsets[1:] - 1 - after]
    return EvaluationSet(
        dataset.users.gather(users),
        rows.drop_last(after + 1),
        Ragged(targets, np.arange(len(users) + 1)),
    )


def leave_one_out(dataset: InteractionDataset) -> Split:
    """Last event of a user is test, the one before it validation, the rest training.

    Users with fewer than three events are trained on and not evaluated.
    """
    lengths = dataset.events.lengths
    users = np.flatnonzero(lengths >= 3)
    train = dataset.events.drop_last(np.where(lengths >= 3, 2, 0))
    zero = np.zeros(len(users), dtype=np.int64)
    return Split(dataset, train, _held_out(dataset, users, zero + 1), _held_out(dataset, users, zero), "leave_one_out")


def validation_only(dataset: InteractionDataset) -> Split:
    """Last event of a user is validation; nothing is kept for test. For models that go to production."""
    lengths = dataset.events.lengths
    users = np.flatnonzero(lengths >= 2)
    train = dataset.events.drop_last((lengths >= 2).astype(np.int64))
    validation = _held_out(dataset, users, np.zeros(len(users), dtype=np.int64))
    none = _held_out(dataset, users[:0], np.zeros(0, dtype=np.int64))
    return Split(dataset, train, validation, none, "validation_only")


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
    times = dataset.timestamps.to_physical().cast(pl.Float64).to_numpy()
    ordered = np.sort(times)
    first, second = (
        ordered[min(round(len(times) * (1 - share)), len(times) - 1)]
        for share in (validation_share + test_share, test_share)
    )
    train = dataset.events.filter(times < first)
    if len(train.values) == 0:
        raise DataError("no event lies before the first cut in time: are all timestamps the same?")
    return Split(
        dataset,
        train,
        _window(dataset, times < first, (times >= first) & (times < second)),
        _window(dataset, times < second, times >= second),
        "temporal",
    )


def _window(dataset: InteractionDataset, before: np.ndarray, inside: np.ndarray) -> EvaluationSet:
    histories, targets = dataset.events.filter(before), dataset.events.filter(inside).distinct()
    users = np.flatnonzero((histories.lengths > 0) & (targets.lengths > 0))
    return EvaluationSet(dataset.users.gather(users), histories.rows(users), targets.rows(users))


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
    if not (split.train.lengths >= 2).any():
        problems.append("no user has two training events, so there is nothing to learn a next item from")
    if len(split.validation) == 0:
        problems.append("no user is left for validation")
    if problems:
        raise DataError(f"the {name} split of {dataset!r} cannot be used:\n" + bullet_list(problems))
    return split
