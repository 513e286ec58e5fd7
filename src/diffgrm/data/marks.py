"""What is known of events besides their items (types, weights, times, categories), and of whole histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.categories import named_values
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns

PLAIN = EventSettings()  # type: ignore[call-arg]


@dataclass(frozen=True)
class Marks:
    """Marks of N events.

    Attributes:
        settings: by which the events were read; they number the types.
        types: [N] int16 the number of each event's type; None: events have no types, and all are targets.
        weights: [N] float32 what each event counts for; None: all alike.
        times: [N] int64 seconds from 1970; None: networks are not told of times.
        values: of each of ``events.event_columns``, [N] int16 the number of its value among those named, from 1; 0: none
            of them.
    """

    settings: EventSettings = PLAIN
    types: np.ndarray | None = None
    weights: np.ndarray | None = None
    times: np.ndarray | None = None
    values: tuple[np.ndarray, ...] = ()

    @property
    def arrays(self) -> list[np.ndarray]:
        """Those of the marks that are there."""
        return [array for array in (self.types, self.weights, self.times, *self.values) if array is not None]

    def replaced(self, arrays: Sequence[np.ndarray]) -> Marks:
        """The marks of other events, in place of :attr:`arrays`."""
        given = iter(arrays)
        types, weights, times = (None if old is None else next(given) for old in (self.types, self.weights, self.times))
        return replace(self, types=types, weights=weights, times=times, values=tuple(given))

    def at(self, chosen: np.ndarray | slice) -> Marks:
        """The marks of some events."""
        return self.replaced([array[chosen] for array in self.arrays])

    @property
    def is_target(self) -> np.ndarray | None:
        """[N] bool, events that may be targets; None: all."""
        return None if self.types is None else self.types < len(self.settings.targets)

    @property
    def is_seen(self) -> np.ndarray | None:
        """[N] bool, events by which an item counts as seen; None: all."""
        settings = self.settings
        if self.types is None or settings.seen is None:
            return None
        return np.array([kind in settings.seen for kind in settings.types])[self.types]

    def type_columns(self) -> list[pl.Series]:
        """The types as a column, called as in the table that they were read from; none where there are no types."""
        if self.types is None:
            return []
        names = pl.Series(self.settings.types, dtype=pl.String)
        return [names.gather(self.types.astype(np.int64)).alias(str(self.settings.event))]

    def value_columns(self) -> list[pl.Series]:
        """The columns of categories, called as in that table; null where a value is none of those named."""
        both = zip(self.values, self.settings.event_columns.items(), strict=True)
        return [named_values(numbers, *named) for numbers, named in both]

    def table_columns(self) -> list[pl.Series]:
        """All marks but times as columns, called as in that table; of those that are one column there, the first."""
        weights = [] if self.weights is None else [pl.Series(str(self.settings.weight), self.weights)]
        columns = [*self.type_columns(), *weights, *self.value_columns()]
        return list({column.name: column for column in reversed(columns)}.values())[::-1]

    def request_columns(self) -> list[pl.Series]:
        """What a model of these settings reads of a table of histories besides users and items; times as date-times."""
        times = [] if self.times is None else [pl.from_epoch(pl.Series(Columns.TIMESTAMP, self.times), "s")]
        return [*self.type_columns(), *times, *self.value_columns()]

    @property
    def inputs(self) -> np.ndarray | None:
        """[N] types as networks are told them; None: they are told of none."""
        return self.types if self.settings.n_inputs else None


UNMARKED = Marks()


@dataclass(frozen=True)
class RowFacts:
    """What is known of R rows that are histories, besides their events.

    Attributes:
        moments: [R] int64 seconds from 1970, when each is asked for what comes next; None: at its newest event.
        columns: [R, C] int16 of its user, the number of the value of each of ``events.user_columns`` among those named,
            from 1; 0: none of them; None: nothing is known of any.
    """

    moments: np.ndarray | None = None
    columns: np.ndarray | None = None

    @property
    def arrays(self) -> list[np.ndarray]:
        """Those of the facts that are there."""
        return [array for array in (self.moments, self.columns) if array is not None]

    def at(self, chosen: np.ndarray | slice) -> RowFacts:
        """Those of some rows."""
        return RowFacts(*(None if part is None else part[chosen] for part in (self.moments, self.columns)))


NO_FACTS = RowFacts()


@dataclass(frozen=True)
class Weights:
    """What events count for beside the mean target among them, so that weights that are all 1 change nothing.

    Attributes:
        values: [N] of all events; mean: over the targets.
    """

    values: np.ndarray
    mean: float

    @classmethod
    def of(cls, marks: Marks) -> Weights | None:
        """None where all events count alike, whatever number they have: then the sums are those without weights."""
        values = marks.weights
        if values is None or len(values) == 0:
            return None
        low, high, total, count = np.inf, -np.inf, 0.0, 0
        for start in range(0, len(values), mapped.BLOCK):
            now = slice(start, start + mapped.BLOCK)
            block, is_target = values[now], marks.at(now).is_target
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            targets = block if is_target is None else block[is_target]
            total, count = total + float(targets.sum(dtype=np.float64)), count + len(targets)
        return None if low == high or not count else cls(values, total / count)

    def at(self, chosen: np.ndarray | slice) -> np.ndarray:
        """[...] float32 of some events."""
        relative: np.ndarray = (self.values[chosen] / self.mean).astype(np.float32)
        return relative
