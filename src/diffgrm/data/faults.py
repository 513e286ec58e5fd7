"""What is wrong with rows of a table, found a block of rows at a time and told once for all."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from diffgrm.foundation.schema import first_few

SHOWN = 5  # rows that a message names
Rows = range | np.ndarray  # the numbers in a table of the rows that are looked at
ALL: Rows = range(sys.maxsize)  # rows that stand as in the table


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with rows of a column.

    Attributes:
        says: what it is, up to the number of rows; or the whole message, where ``count`` is 0.
        remedy: the end of the message.
        count: of the rows.
        rows: the first of them.
        values: what they hold, as ``repr`` spells it, each once; empty where that is not told.
        if_all: what is said instead where all rows are like that.
        name: what counts as the same fault in other rows.
    """

    says: str
    remedy: str = ""
    count: int = 0
    rows: tuple[int, ...] = ()
    values: tuple[str, ...] = ()
    if_all: str = ""
    name: str = ""

    def text(self, height: int) -> str:
        """The message.

        Args:
            height: rows of the table.
        """
        if not self.count:
            return self.says
        if self.if_all and self.count == height:
            return self.if_all
        held = f": {first_few(self.values)}" if self.values else ""
        return f"{self.says} in {self.count} rows (rows {first_few(self.rows, SHOWN, self.count)}){held}; {self.remedy}"


def fault(says: str, remedy: str, bad: pl.Series, rows: Rows, values: Iterable[str] = (), if_all: str = "") -> Fault:
    """The fault of the rows where ``bad`` is true; ``rows`` are their numbers in the table."""
    shown = tuple(int(rows[row]) for row in bad.arg_true().head(SHOWN))
    return Fault(says, remedy, int(bad.sum()), shown, tuple(values), if_all, says)


def together(faults: Iterable[Fault]) -> list[Fault]:
    """Faults of blocks, in order of the rows, as those of the whole table."""
    found: dict[str, Fault] = {}
    for new in faults:
        old = found.get(new.name)
        if old is None:
            found[new.name] = new
            continue
        found[new.name] = replace(
            old,
            count=old.count + new.count,
            rows=(old.rows + new.rows)[:SHOWN],
            values=tuple(dict.fromkeys(old.values + new.values)),
            if_all=old.if_all or new.if_all,
        )
    return list(found.values())
