"""Rules as a catalogue understands them: ids as positions, columns as arrays.

Letters: I items.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from diffgrm.data.ids import IdMap
from diffgrm.foundation.schema import DataError, DiffGRMError, bullet_list, did_you_mean, first_few, nearest
from diffgrm.ranking.rules import Chosen, Condition, Rules

Similarity = Callable[[int, np.ndarray | None], np.ndarray]
"""``similarity(item, others [M] or None for all) -> [M]``, item positions, how similar others are to an item."""

logger = logging.getLogger(__name__)

SHOWN, LIKE = 5, 2_000  # values of a column that a warning names; up to which many it looks for one that is spelt alike
WORDS = "conditions are on texts, numbers, truth values, and lists of those"


class Cap(NamedTuple):
    """At most ``most`` items of a list with the same value; values [I] are numbered from 0, -1 is a missing one."""

    values: np.ndarray
    most: int


@dataclass(frozen=True)
class ItemRules:
    """Rules of a catalogue.

    Attributes:
        rules: what they were made of.
        where: [I] bool, items that may be recommended; None: all.
        offsets: [I] float32, what is added to scores; None: nothing.
        caps: see :class:`Cap`.
        pins: places from 0, and the item position at each, in order.
        minimum: [I] bool, the set of which so many items are wanted; None: no such wish.
        similarity: of items, where diversity needs it.
    """

    rules: Rules
    where: np.ndarray | None
    offsets: np.ndarray | None
    caps: tuple[Cap, ...]
    pins: tuple[tuple[int, int], ...]
    minimum: np.ndarray | None
    similarity: Similarity | None

    @classmethod
    def of(cls, rules: Rules, items: IdMap, table: pl.DataFrame, similarity: Similarity | None) -> ItemRules:
        """Rules of a catalogue with an item table, of which row i is item position i.

        Args:
            similarity: of items; None, or one that raises :class:`DiffGRMError`: there is none.

        Raises:
            DataError: columns that the table has not or that conditions cannot be on, unknown items, pins that caps do
                not allow, diversity without a similarity; all problems at once.
        """
        problems = [*_strange_columns(rules, table), *_strange_items(rules, items)]
        if rules.diversity:
            problems += _lacks_similarity(similarity)
        if problems:
            raise unusable(problems)
        if lines := list(_without_items(rules, table)):
            logger.warning("the rules name what no item has:\n%s", bullet_list(lines))
        caps = tuple(Cap(_numbered(table[column]), most) for column, most in rules.caps.items())
        places = sorted(rules.pins)
        pins = items.positions([rules.pins[place] for place in places]).tolist()
        if problems := list(_strange_pins(rules, pins, caps)):
            raise unusable(problems)
        offsets = None
        if rules.boosts:
            offsets = np.zeros(table.height, dtype=np.float32)
            for boost in rules.boosts:
                offsets[_chosen(boost, items, table)] += np.float32(boost.by)
        return cls(
            rules,
            where=_meeting(rules.where, table) if rules.where else None,
            offsets=offsets,
            caps=caps,
            pins=tuple((place - 1, pin) for place, pin in zip(places, pins, strict=True)),
            minimum=None if rules.minimum is None else _chosen(rules.minimum, items, table),
            similarity=similarity if rules.diversity else None,
        )

    def placed(self, k: int, may: np.ndarray) -> np.ndarray:
        """[U, k] the pin at each place of lists of k, -1 where there is none; pins of later places stand at the list's end.

        Args:
            may: [U, P] bool, which pins each user may get.
        """
        number = may.cumsum(1) - 1  # among those that the user may get
        may = may & (number < k)
        wanted = np.array([place for place, _ in self.pins], dtype=np.int64)
        places = np.minimum(wanted, k - may.sum(1, keepdims=True) + number)
        found = np.full((len(may), k), -1, dtype=np.int64)
        users, pins = np.nonzero(may)
        found[users, places[users, pins]] = self.pinned[pins]
        return found

    @property
    def pinned(self) -> np.ndarray:
        """[P] the items of the pins, in order of their places."""
        return np.array([item for _, item in self.pins], dtype=np.int64)

    def check_k(self, k: int, candidates: np.ndarray | None) -> None:
        """Refuse lists that are too short for what is wanted of them.

        Args:
            candidates: [I] bool, what may be recommended, as of :class:`diffgrm.ranking.query.Query`.

        Raises:
            DataError: of k items, fewer than ``minimum.count`` places are not taken by pins of other items, for a user who
                has seen none of the pins.
        """
        if self.minimum is None or self.rules.minimum is None:
            return
        pins = self.pinned if candidates is None else self.pinned[candidates[self.pinned]]
        others = int(np.count_nonzero(~self.minimum[pins[:k]]))
        if self.rules.minimum.count > k - others:
            taken = f", of which pins of other items take {others}" if others else ""
            raise unusable(
                [f"minimum.count is {self.rules.minimum.count}, but the list has {k} places{taken}; lower it, or raise k"]
            )


def unusable(problems: Iterable[str]) -> DataError:
    """The error that tells what is wrong with rules."""
    return DataError("the rules have problems:\n" + bullet_list(problems))


def check_columns(rules: Rules, table: pl.DataFrame) -> None:
    """Refuse rules by columns that an item table has not, or that they cannot go by; no row is looked at.

    Raises:
        DataError: all problems at once.
    """
    if problems := _strange_columns(rules, table):
        raise unusable(problems)


def _strange_columns(rules: Rules, table: pl.DataFrame) -> list[str]:
    problems = _strange_conditions("where", rules.where, table)
    for path, chosen in rules.sets.items():
        problems += _strange_conditions(f"{path}.where", chosen.where, table)
    for column in rules.caps:
        if column not in table.columns:
            problems.append(_no_column(f"caps.{column}", column, table))
        elif table.schema[column].is_nested() or table.schema[column] == pl.Binary:
            problems.append(
                f"caps.{column}: the column has type {table.schema[column]}, and a cap needs one value a row; add a column "
                "with the value that counts"
            )
    return problems


def _without_items(rules: Rules, table: pl.DataFrame) -> Iterable[str]:
    """What of usable conditions no item meets: a word that is misspelt, or that the catalogue has no item of now."""
    for path, where in {"": rules.where, **{f"{path}.": chosen.where for path, chosen in rules.sets.items()}}.items():
        for column, condition in where.items():
            if condition.among is not None:
                yield from _unheld(f"{path}where.{column}.in", condition.among, table[column])
            elif not _meets(table[column], condition).any():
                yield f"{path}where.{column}: no item has such a number"


def _unheld(place: str, among: tuple[Any, ...], column: pl.Series) -> Iterable[str]:
    """Values that no item has, and those that there are."""
    lists = isinstance(column.dtype, pl.List | pl.Array)
    held = (column.to_frame("value").explode("value")["value"] if lists else column).drop_nulls().unique()
    there = _wanted(among, held.dtype).is_in(_plain(held).implode())
    if absent := [value for value, is_there in zip(among, there, strict=True) if not is_there]:
        hint = nearest(str(absent[0]), held) if held.dtype == pl.String and len(held) <= LIKE else ""
        known = first_few(map(repr, held.sort().head(SHOWN)), SHOWN, len(held)) or "none"
        yield f"{place}: no item has {first_few(map(repr, absent))}{hint or f'; the column has {known}'}"


def _strange_conditions(path: str, where: Mapping[str, Condition], table: pl.DataFrame) -> list[str]:
    problems = []
    for column, condition in where.items():
        place = f"{path}.{column}"
        if column not in table.columns:
            problems.append(_no_column(place, column, table))
            continue
        kind: Any = table.schema[column]
        values: Any = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
        word, fits = _word(values)
        if word is None:
            problems.append(f"{place}: the column has type {kind}; {WORDS}")
        elif (condition.min is not None or condition.max is not None) and (word != "numbers" or kind != values):
            problems.append(f"{place}: min and max are for a number a row, and the column has type {kind}; give in")
        elif strange := [value for value in condition.among or () if not fits(value)]:
            told = first_few(map(repr, strange))
            problems.append(f"{place}.in: the column holds {word}; give some instead of {told}")
    return problems


def _word(kind: Any) -> tuple[str | None, Callable[[Any], bool]]:
    """What a column of a type holds, and whether a value may be one of it; None: nothing that a condition knows."""
    if kind == pl.String:
        return "texts", lambda value: isinstance(value, str)
    if kind == pl.Boolean:
        return "truth values", lambda value: isinstance(value, bool)
    return ("numbers" if kind.is_numeric() else None), lambda value: not isinstance(value, str | bool)


def _no_column(place: str, column: str, table: pl.DataFrame) -> str:
    return f"{place}: the item table has no column {column!r}{did_you_mean(column, table.columns)}"


def _strange_items(rules: Rules, items: IdMap) -> Iterable[str]:
    named = {path: chosen.items for path, chosen in rules.sets.items()} | {"pins": tuple(rules.pins.values())}
    for path, ids in named.items():
        unknown = [given for given, place in zip(ids, items.positions(ids), strict=True) if place < 0]
        if unknown:
            yield f"{path}: {len(unknown)} items are not in the catalogue: {first_few(unknown)}; leave them out"


def _strange_pins(rules: Rules, pins: list[int], caps: tuple[Cap, ...]) -> Iterable[str]:
    if twice := [item for item, pin in zip(rules.pins.values(), pins, strict=True) if pins.count(pin) > 1]:
        yield f"pins: {first_few(sorted(set(twice)))} has more than one place; pin every item once"
    for column, cap in zip(rules.caps, caps, strict=True):
        values = cap.values[pins]
        if len(values := values[values >= 0]) and np.bincount(values).max() > cap.most:
            yield f"pins: more than {cap.most} of them have the same {column}, and caps.{column} is {cap.most}; pin fewer"


def _lacks_similarity(similarity: Similarity | None) -> list[str]:
    """Why diversity cannot be had, if so."""
    if similarity is None:
        return ["diversity: there are no vectors that tell how similar items are; leave it out"]
    try:
        similarity(0, np.zeros(1, dtype=np.int64))
    except DiffGRMError as error:
        return [f"diversity: {error}; leave it out"]
    return []


def _chosen(chosen: Chosen, items: IdMap, table: pl.DataFrame) -> np.ndarray:
    """[I] bool, items that are named by id or meet the conditions."""
    found = _meeting(chosen.where, table) if chosen.where else np.zeros(table.height, dtype=bool)
    found[items.positions(chosen.items)] = True
    return found


def _meeting(where: Mapping[str, Condition], table: pl.DataFrame) -> np.ndarray:
    """[I] bool, rows whose columns meet all conditions."""
    met = [_meets(table[column], condition) for column, condition in where.items()]
    return np.logical_and.reduce(met)


def _meets(column: pl.Series, condition: Condition) -> np.ndarray:
    """[I] bool, a missing value meets nothing."""
    found = pl.Series([True]).new_from_index(0, len(column))
    if condition.min is not None or condition.max is not None:
        numbers = column.cast(pl.Float64).fill_nan(None)
        low = -np.inf if condition.min is None else condition.min
        high = np.inf if condition.max is None else condition.max
        found = numbers.is_between(low, high)
    if condition.among is not None:
        found = found & _is_among(column, condition.among)
    return found.fill_null(False).to_numpy().astype(bool)


def _is_among(column: pl.Series, values: tuple[Any, ...]) -> pl.Series:
    if isinstance(column.dtype, pl.List | pl.Array):
        row = pl.Series("row", np.arange(len(column)))
        flat = pl.DataFrame([row, column.rename("value")]).explode("value")
        met = flat.filter(_is_among(flat["value"], values).fill_null(False))["row"]
        return row.is_in(met.unique().implode())
    return _plain(column).is_in(_wanted(values, column.dtype).implode())


def _plain(column: pl.Series) -> pl.Series:
    return column.cast(pl.Float64) if column.dtype.is_numeric() else column


def _wanted(values: tuple[Any, ...], kind: Any) -> pl.Series:
    """Values that are looked for in a column of some type, as :func:`_plain` has it."""
    if kind.is_numeric():
        return pl.Series(list(map(float, values)), dtype=pl.Float64)
    return pl.Series(list(values), dtype=kind)


def _numbered(column: pl.Series) -> np.ndarray:
    """[I] values numbered from 0, -1 where there is none."""
    column = column.fill_nan(None) if column.dtype.is_float() else column
    column = column.cast(pl.Int8) if column.dtype == pl.Boolean else column
    return column.rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
