"""Parquet files that are one table, larger than memory perhaps: what their footers say, and blocks of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import polars as pl

from diffgrm.data import mapped
from diffgrm.foundation.schema import DataError, bullet_list

DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError, ValueError)

T = TypeVar("T")


@dataclass(frozen=True)
class ParquetTable:
    """Files of this machine, whose rows are those of one table, file after file.

    Columns may stand in another order in each file, and types may differ as far as :func:`joined` joins them.

    Attributes:
        place: how messages call all of them.
        paths: of the files by the names in messages, in order; ``[ ] ? *`` in them mean themselves.
        what: how messages call the table.
    """

    place: str
    paths: Mapping[str, Path]
    what: str

    @cached_property
    def header(self) -> pl.DataFrame:
        """Columns of the first file, with types that hold those of all; without rows.

        Raises:
            DataError: a damaged file, columns that differ, or types that nothing holds.
        """
        return _concat(self.place, {name: pl.DataFrame(schema=schema) for name, schema in self._schemas.items()}, self.what)

    @cached_property
    def _schemas(self) -> dict[str, pl.Schema]:
        return {name: self._of(name, pl.LazyFrame.collect_schema) for name in self.paths}

    @cached_property
    def heights(self) -> dict[str, int]:
        """Rows of every file."""
        return {name: int(self._of(name, lambda rows: rows.select(pl.len()).collect().item())) for name in self.paths}

    @property
    def height(self) -> int:
        """Rows of the table."""
        return sum(self.heights.values())

    def stamps(self) -> list[tuple[str, int, int]]:
        """Path, size and time of every file: other stamps are another table."""
        found = [(path.resolve(), path.stat()) for path in self.paths.values()]
        return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]

    def frame(self) -> pl.DataFrame:
        """The table, in memory.

        Raises:
            DataError: a damaged file; else see :func:`joined`.
        """
        return joined(self.place, {name: self._of(name, pl.LazyFrame.collect) for name in self.paths}, self.what)

    def blocks(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Some columns of all rows, about :data:`diffgrm.data.mapped.BLOCK` rows each time.

        Raises:
            DataError: a damaged file, or these columns are of different kinds, see :func:`joined`.
        """
        _check_kinds(self.place, self._schemas, columns, self.what)
        waiting: list[pl.DataFrame] = []
        for piece in self._pieces(columns):
            waiting.append(piece)
            if sum(map(len, waiting)) >= mapped.BLOCK:
                yield pl.concat(waiting, rechunk=True)
                waiting = []
        if waiting:
            yield pl.concat(waiting, rechunk=True)

    def _pieces(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        types = pl.Schema([(column, self.header.schema[column]) for column in columns])
        for name, height in self.heights.items():
            for start in range(0, height, mapped.BLOCK):

                def read(rows: pl.LazyFrame, start: int = start) -> pl.DataFrame:
                    return rows.select(columns).slice(start, mapped.BLOCK).collect(engine="streaming")

                piece = self._of(name, read)
                yield piece if piece.schema == types else piece.cast(types)

    def _of(self, name: str, ask: Callable[[pl.LazyFrame], T]) -> T:
        """What one file answers."""
        path = self.paths[name].absolute()
        try:
            return ask(pl.scan_parquet(path, glob=False))
        except DAMAGE as error:
            raise DataError(f"the {self.what} file {self.paths[name]} could not be read: {error}") from error


def joined(place: str | Path, parts: Mapping[str, pl.DataFrame], what: str) -> pl.DataFrame:
    """The parts of a table one after the other, with the columns of the first, and types that hold those of all.

    Numbers of all widths are joined, and with texts; times and truth values only with their like, since as numbers they
    would be counts of units that nobody named.

    Args:
        place: how messages call all of them; parts: by their names in messages.

    Raises:
        DataError: columns or types that differ.
    """
    schemas = {name: part.schema for name, part in parts.items()}
    _check_kinds(place, schemas, _same_columns(place, schemas, what), what)
    return _concat(place, parts, what)


def _concat(place: str | Path, parts: Mapping[str, pl.DataFrame], what: str) -> pl.DataFrame:
    schemas = {name: part.schema for name, part in parts.items()}
    columns = _same_columns(place, schemas, what)
    try:
        return pl.concat([part.select(columns) for part in parts.values()], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        _check_kinds(place, schemas, columns, what)  # whose message names the column
        raise DataError(
            f"the parts of the {what} {place} differ in the types of their columns: {error}; give them the same"
        ) from error


def _same_columns(place: str | Path, schemas: Mapping[str, pl.Schema], what: str) -> list[str]:
    """The columns of the first part, which all have, in any order.

    Raises:
        DataError: they differ.
    """
    (first, wanted), *others = ((name, schema.names()) for name, schema in schemas.items())
    for name, found in others:
        if set(found) != set(wanted):
            raise DataError(
                f"the parts of the {what} {place} differ: {first} has the columns {wanted}, {name} has {found}; give them "
                "the same"
            )
    return wanted


def _check_kinds(place: str | Path, schemas: Mapping[str, pl.Schema], columns: Sequence[str], what: str) -> None:
    """Make sure that columns may be joined.

    Raises:
        DataError: with every column that is of several kinds.
    """
    if different := [told for column in columns if (told := _unlike(column, schemas))]:
        raise DataError(
            f"the parts of the {what} {place} differ in the types of their columns; give them the same:\n"
            f"{bullet_list(different)}"
        )


def _unlike(column: str, schemas: Mapping[str, pl.Schema]) -> str | None:
    """Two parts in which a column is of different kinds, in words; nothing but nulls is of every kind."""
    found = [(name, schema[column]) for name, schema in schemas.items() if schema[column] != pl.Null]
    for name, kind in found[1:]:
        first, wanted = found[0]
        if _kind(kind) != _kind(wanted):
            return f"{column}: {wanted} in {first}, {kind} in {name}"
    return None


def _kind(of: pl.DataType) -> object:
    """What types have in common that may be joined: times are of one kind whatever their unit, but not their time zone."""
    if isinstance(of, pl.Datetime):
        return pl.Datetime, of.time_zone
    return of.base_type() if of.is_temporal() or of == pl.Boolean else None
