"""Churn: how much two sets of semantic IDs of the same items differ, as after a tokenizer was fitted again.

A network knows codes by their numbers, so every changed digit is something to learn anew. Numbers may differ though the
groups of items are the same: a second count names the codes of each digit of the second set by those of the first that most
items go with (an assignment problem a digit), and tells what still differs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import linear_sum_assignment

from diffgrm.data.ids import IdMap, spelled
from diffgrm.foundation.schema import DataError
from diffgrm.semantic_ids.sid_files import SidTable

MOST_CODES = 4096  # of a digit, in use: a table of their pairs is made


@dataclass(frozen=True)
class Churn:
    """What differs between the semantic IDs before and after, over the items that both have.

    Attributes:
        items: in both; ``only_before`` and ``only_after`` are in one of them.
        changed: share of items whose semantic ID differs.
        digits: per digit, share of items of which it differs.
        changed_relabelled, digits_relabelled: the same with the codes of each digit afterwards renamed, one to one, so that
            as few items as possible differ in it.
        codes_before, codes_after: per digit, codes in use.
        colliding_before, colliding_after: items that share their semantic ID with another one.
    """

    items: int
    only_before: int
    only_after: int
    changed: float
    digits: tuple[float, ...]
    changed_relabelled: float
    digits_relabelled: tuple[float, ...]
    codes_before: tuple[int, ...]
    codes_after: tuple[int, ...]
    colliding_before: int
    colliding_after: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def rows(self) -> list[tuple[str, str]]:
        """The report as (what, value) lines for a reader."""

        def shares(values: tuple[float, ...]) -> str:
            return ", ".join(f"{value:.1%}" for value in values)

        used = zip(self.codes_before, self.codes_after, strict=True)
        return [
            ("items in both", f"{self.items:,} (only before {self.only_before:,}, only after {self.only_after:,})"),
            ("semantic ID changed", f"{self.changed:.1%}"),
            ("first digit changed", f"{self.digits[0]:.1%}"),
            ("changed, per digit", shares(self.digits)),
            ("semantic ID changed, codes renamed", f"{self.changed_relabelled:.1%}"),
            ("changed, per digit, codes renamed", shares(self.digits_relabelled)),
            ("codes in use, per digit", ", ".join(f"{before:,} -> {after:,}" for before, after in used)),
            ("items that share a semantic ID", f"{self.colliding_before:,} -> {self.colliding_after:,}"),
        ]


def churn(before: SidTable, after: SidTable) -> Churn:
    """Compare two sets of semantic IDs; items are the same by the spelling of their ids.

    Raises:
        DataError: no item is in both, other numbers of digits, or a digit with too many codes to be matched.
    """
    n, other = before.codes.shape[1], after.codes.shape[1]
    if n != other:
        raise DataError(
            f"semantic IDs have {n} digits before and {other} after; compare sets of as many digits (a number that tells "
            "apart items of the same digits is one)"
        )
    # As texts, so that 7 and "7" are one item.
    first, second = (IdMap(spelled(table.items, pl.String())) for table in (before, after))
    row = second.positions(first.series)
    both = row >= 0
    if not both.any():
        raise DataError("no item is in both sets of semantic IDs; do their ids go together?")
    old, new = before.codes[both], after.codes[row[both]]
    renamed = np.stack([_renamed(old[:, j], new[:, j], j) for j in range(n)], axis=1)
    return Churn(
        items=int(both.sum()),
        only_before=int((~both).sum()),
        only_after=len(after.codes) - int(both.sum()),
        changed=float((old != new).any(1).mean()),
        digits=tuple((old != new).mean(0).tolist()),
        changed_relabelled=float((old != renamed).any(1).mean()),
        digits_relabelled=tuple((old != renamed).mean(0).tolist()),
        codes_before=tuple(len(np.unique(column)) for column in old.T),
        codes_after=tuple(len(np.unique(column)) for column in new.T),
        colliding_before=_colliding(old),
        colliding_after=_colliding(new),
    )


def _renamed(old: np.ndarray, new: np.ndarray, digit: int) -> np.ndarray:
    """The codes [N] of a digit afterwards under names of before, -1 for those that get none: most items keep theirs."""
    names, before = np.unique(old, return_inverse=True)
    used, after = np.unique(new, return_inverse=True)
    if max(len(names), len(used)) > MOST_CODES:
        raise DataError(
            f"digit {digit} has {max(len(names), len(used)):,} codes in use; codes are matched where they are at most "
            f"{MOST_CODES:,}"
        )
    together = np.zeros((len(used), len(names)), dtype=np.int64)
    np.add.at(together, (after, before), 1)
    chosen, name = linear_sum_assignment(together, maximize=True)
    of_code = np.full(len(used), -1, dtype=np.int64)
    of_code[chosen] = names[name]
    return of_code[after]


def _colliding(codes: np.ndarray) -> int:
    sizes = np.unique(codes, axis=0, return_counts=True)[1]
    return int(sizes[sizes > 1].sum())
