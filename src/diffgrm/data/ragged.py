"""Ragged: rows of different lengths, in two arrays, and what is known of their values besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from diffgrm.data import mapped
from diffgrm.data.marks import NO_FACTS, UNMARKED, Marks, RowFacts


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row r is ``values[offsets[r]:offsets[r + 1]]``.

    Values may lie in a file, and what is made of many lies in one too; see :mod:`diffgrm.data.mapped`.

    Attributes:
        marks: of values that are events; whatever is made of some of the values has their marks.
        facts: of rows that are histories; whatever is made of some of the rows has their facts.
    """

    values: np.ndarray
    offsets: np.ndarray
    marks: Marks = UNMARKED
    facts: RowFacts = NO_FACTS

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
        return self.part(0, self.lengths[chosen], chosen)

    def part(self, start: np.ndarray | int, stop: np.ndarray, chosen: np.ndarray | None = None) -> Ragged:
        """Of every row the values from ``start`` to before ``stop``, as counted in the row.

        Args:
            chosen: the rows that the two are of, in the order given; None is all.
        """
        begin = (self.offsets[:-1] if chosen is None else self.offsets[chosen]) + start
        lengths = stop - start
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        columns = [self.values, *self.marks.arrays]
        taken = [mapped.room(int(offsets[-1]), column.dtype) for column in columns]
        for first, last in mapped.row_blocks(offsets):
            now = slice(offsets[first], offsets[last])
            shift = np.repeat(begin[first:last] - offsets[first:last], lengths[first:last])
            places = shift + np.arange(now.start, now.stop)
            for new, column in zip(taken, columns, strict=True):
                new[now] = column[places]
        facts = self.facts if chosen is None else self.facts.at(chosen)
        return Ragged(taken[0], offsets, self.marks.replaced(taken[1:]), facts)

    def blocks(self) -> Iterator[tuple[slice, Ragged]]:
        """Neighbouring rows, some :data:`diffgrm.data.mapped.BLOCK` values each time, and which rows they are."""
        for first, last in mapped.row_blocks(self.offsets):
            begin, end = self.offsets[first], self.offsets[last]
            marks = self.marks.at(slice(begin, end))
            rows = slice(first, last)
            yield rows, Ragged(self.values[begin:end], self.offsets[first : last + 1] - begin, marks, self.facts.at(rows))

    def by_blocks(self, change: Callable[[Ragged], Ragged]) -> Ragged:
        """What ``change`` makes of the rows, each of which it may shorten; a block of rows at a time."""
        columns = [self.values, *self.marks.arrays]
        kept = [mapped.room(len(column), column.dtype) for column in columns]
        offsets = np.zeros(len(self.offsets), dtype=np.int64)
        for rows, block in self.blocks():
            new, end = change(block), offsets[rows.start]
            offsets[rows.start + 1 : rows.stop + 1] = end + new.offsets[1:]
            for whole, part in zip(kept, [new.values, *new.marks.arrays], strict=True):
                whole[end : end + len(part)] = part
        kept = [column[: offsets[-1]] for column in kept]
        return Ragged(kept[0], offsets, self.marks.replaced(kept[1:]), self.facts)

    def follows(self) -> np.ndarray:
        """[values - 1] bool, whether a value and the next one stand in the same row."""
        inside = np.ones(max(len(self.values) - 1, 0), dtype=bool)
        borders = self.offsets[1:-1]
        inside[borders[(borders > 0) & (borders < len(self.values))] - 1] = False
        return inside

    def row_index_from_end(self) -> np.ndarray:
        """For every value, how many values of its row come after it."""
        return np.repeat(self.offsets[1:], self.lengths) - 1 - np.arange(len(self.values))

    def filter(self, keep: np.ndarray) -> Ragged:
        """Only the values where ``keep`` is true; rows may become empty."""
        row = np.repeat(np.arange(len(self)), self.lengths)
        counts = np.bincount(row[keep], minlength=len(self))
        return Ragged(self.values[keep], np.concatenate([[0], np.cumsum(counts)]), self.marks.at(keep), self.facts)

    def targets(self) -> Ragged:
        """Only the events that may be targets, without what is known besides; rows may become empty."""
        is_target = self.marks.is_target
        return self.bare() if is_target is None else self.by_blocks(_only_targets).bare()

    def seen(self) -> Ragged:
        """Only the events by which an item counts as seen; rows may become empty."""
        is_seen = self.marks.is_seen
        return self if is_seen is None else self.filter(is_seen)

    def bare(self) -> Ragged:
        """The same without marks and facts."""
        return replace(self, marks=UNMARKED, facts=NO_FACTS)

    def target_places(self, after: int) -> np.ndarray:
        """[rows] the place in its row of the event that has ``after`` targets behind it and is one; -1: there is none."""
        is_target = self.marks.is_target
        if is_target is None:
            return np.maximum(self.lengths - 1 - after, -1)
        places = np.append(np.flatnonzero(is_target), len(self.values))
        first, end = np.searchsorted(places, self.offsets[:-1]), np.searchsorted(places, self.offsets[1:])
        found = end - 1 - after >= first
        return np.where(found, places[np.where(found, end - 1 - after, 0)] - self.offsets[:-1], -1)

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


def _only_targets(rows: Ragged) -> Ragged:
    is_target = rows.marks.is_target
    return rows if is_target is None else rows.filter(is_target)
