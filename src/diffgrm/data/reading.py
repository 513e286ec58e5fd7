"""What was read of an interaction table, what was dropped of it, and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dropped:
    """Rows that are no events.

    Attributes:
        types: by their types, which nobody asked for.
        unrated: without a rating; low: with one that is too low.
        by_rating: those two together, by their types, which somebody asked for.
    """

    types: Mapping[str, int]
    unrated: int = 0
    low: int = 0
    by_rating: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def sum(cls, parts: Iterable[Dropped]) -> Dropped:
        """Those of several blocks of rows."""
        types, by_rating, unrated, low = Counter[str](), Counter[str](), 0, 0
        for part in parts:
            types.update(part.types)
            by_rating.update(part.by_rating)
            unrated, low = unrated + part.unrated, low + part.low
        return cls(dict(types), unrated, low, dict(by_rating))


@dataclass(frozen=True)
class ReadingReport:
    """What was read of a table of events.

    Attributes:
        rows: of the table.
        dropped: rows by the reason why they became no events.
        types: events of each type; empty where they have none.
        other_types: rows of types that were dropped.
        by_rating: rows of each type that were dropped for their rating.

    >>> print(ReadingReport(10, {"rating below 4.0 (events.min_rating)": 3}, {}, {}))
    10 rows read, 7 kept as events; dropped: 3 rating below 4.0 (events.min_rating)
    """

    rows: int
    dropped: Mapping[str, int]
    types: Mapping[str, int]
    other_types: Mapping[str, int]
    by_rating: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, rows: int, dropped: Dropped, repeats: int, types: Mapping[str, int], settings: EventSettings
    ) -> ReadingReport:
        """The report of a table of so many rows.

        Args:
            repeats: events that others stand for; types: events of each type that are left.
        """
        found = {
            f"of type {kind} (in neither events.targets nor events.context)": count
            for kind, count in sorted(dropped.types.items())
        }
        found[f"without a {settings.rating} (events.rating)"] = dropped.unrated
        found[f"{settings.rating} below {settings.min_rating} (events.min_rating)"] = dropped.low
        found[f"repeated (events.repeats={settings.repeats})"] = repeats
        told = {reason: count for reason, count in found.items() if count}
        return cls(rows, told, types, dropped.types, dropped.by_rating)

    @property
    def kept(self) -> int:
        """Rows that became events."""
        return self.rows - sum(self.dropped.values())

    def __str__(self) -> str:
        said = f"{self.rows:,} rows read, {self.kept:,} kept as events"
        if self.types:
            said += f" ({', '.join(f'{kind} {count:,}' for kind, count in self.types.items())})"
        if not self.dropped:
            return f"{said}; none dropped"
        return f"{said}; dropped: " + "; ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())

    def _absent(self) -> dict[str, str]:
        """Types that no event has, and what is said of each."""
        known, low = self.other_types, self.by_rating
        return {
            kind: f"no event is of type {kind!r}: all {low[kind]:,} were dropped for their rating (events.min_rating)"
            if low.get(kind)
            else f"no event is of type {kind!r}{did_you_mean(kind, known) if known else ''}"
            for kind, count in self.types.items()
            if not count
        }

    def no_event(self, what: str) -> DataError:
        """The error that no row of a table is an event."""
        return DataError("; ".join([f"no row of the {what} is an event: {self}", *self._absent().values()]))

    def check(self, settings: EventSettings) -> None:
        """Make sure that there is something to learn, and warn of types that no event has.

        Raises:
            DataError: no event is of a type that is learnt.
        """
        absent = self._absent()
        told = list(absent.values())
        if settings.targets and all(kind in absent for kind in settings.targets):
            raise DataError(f"there is nothing to learn by events.targets: {'; '.join(told)}; {self}")
        for line in told:
            logger.warning("%s", line)

    def to_dict(self) -> dict[str, Any]:
        """Plain mappings that :meth:`from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` gave."""
        counts = (dict(raw[name]) for name in ("dropped", "types", "other_types", "by_rating"))
        return cls(int(raw["rows"]), *counts)
