"""Parquet files that are one table, larger than memory perhaps: what their footers say, and blocks of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import polars as pl

from diffgrm.data import mapped
from diffgrm.foundation.schema import DataError

DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError, ValueError)

T = TypeVar("T")


@dataclass(frozen=True)
class ParquetTable:
    """Files of this machine, whose rows are those of one table, file after file.

    Columns may stand in another order in each file, and types may differ as far as one type holds them all.

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
            DataError: a damaged file, or columns or types that differ.
        """
        schemas = {name: self._of(name, pl.LazyFrame.collect_schema) for name in self.paths}
        check_same_columns(self.place, {name: schema.names() for name, schema in schemas.items()}, self.what)
        names = next(iter(schemas.values())).names()
        return self._joined([pl.DataFrame(schema=schema).select(names) for schema in schemas.values()])

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
            DataError: see :attr:`header`.
        """
        tables = {name: self._of(name, pl.LazyFrame.collect) for name in self.paths}
        check_same_columns(self.place, {name: table.columns for name, table in tables.items()}, self.what)
        names = next(iter(tables.values())).columns
        return self._joined([table.select(names) for table in tables.values()])

    def blocks(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Some columns of all rows, about :data:`diffgrm.data.mapped.BLOCK` rows each time.

        Raises:
            DataError: a damaged file.
        """
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

    def _joined(self, tables: list[pl.DataFrame]) -> pl.DataFrame:
        try:
            return pl.concat(tables, how="vertical_relaxed")
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"the parts of the {self.what} {self.place} differ in the types of their columns: {error}; give them the "
                "same"
            ) from error


def check_same_columns(place: str | Path, columns: Mapping[str, list[str]], what: str) -> None:
    """Make sure that all parts of a table have the same columns, in any order.

    Args:
        columns: of each part, by its name.

    Raises:
        DataError: they differ.
    """
    (first, wanted), *more = columns.items()
    for name, found in more:
        if set(found) != set(wanted):
            raise DataError(
                f"the parts of the {what} {place} differ: {first} has the columns {wanted}, {name} has {found}; give them "
                "the same"
            )
