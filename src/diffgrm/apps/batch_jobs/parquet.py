"""Tables of parquet files, larger than memory: what is in them by their footers, and any rows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import polars as pl

from diffgrm.data.files import ADDRESS, PARQUET, parquet_files, part_names, place_of
from diffgrm.foundation.schema import DataError, DiffGRMError, bullet_list

SHOWN = 5  # problems that a message names
Plan = list[list[list[int]]]  # of every piece, file, start and stop of its slices


@dataclass(frozen=True)
class Slice:
    """Rows ``start`` to ``stop`` of file number ``file``."""

    file: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.stop - self.start


@dataclass(frozen=True)
class ParquetFiles:
    """A parquet file, a folder of them or a pattern (see :func:`diffgrm.data.files.parquet_files`), or an address of a file
    or folder for fsspec; workers need to reach it too.

    Attributes:
        place: the path, absolute, or the address.
        names: of the files, as their file system knows them, in order.
        what: how messages call the table.
    """

    place: str
    names: tuple[str, ...]
    what: str

    @classmethod
    def at(cls, source: str | Path, what: str) -> ParquetFiles:
        """List the files.

        Raises:
            DataError: nothing is there, other files than parquet, or whatever the file system says.
        """
        place = place_of(source)
        if isinstance(place, Path):
            if (table := parquet_files(place, what)) is None:
                raise _other_format(source)
            return cls(str(place.absolute()), tuple(str(path.absolute()) for path in table.paths.values()), what)
        try:
            system, path = fsspec.url_to_fs(place)
            if system.isfile(path):
                if not path.lower().endswith(PARQUET):
                    raise _other_format(source)
                return cls(place, (path,), what)
            if not system.isdir(path):
                raise DataError(f"there is no {what} {source}; give a parquet file, or a folder of them")
            entries = {entry["name"].rstrip("/"): entry["type"] == "file" for entry in system.ls(path, detail=True)}
        except DataError:
            raise
        except ImportError as error:
            raise DataError(f"the {what} {place} needs a package more: {error}; or copy the files here first") from error
        except Exception as error:  # every file system of fsspec has errors of its own
            raise DataError(f"the {what} {place} cannot be listed: {type(error).__name__}: {error}") from error
        inside = {name.rsplit("/", 1)[-1]: is_file for name, is_file in entries.items() if name != path.rstrip("/")}
        folder = path.rstrip("/")
        return cls(place, tuple(f"{folder}/{name}" for name in part_names(place, inside, what)), what)

    @cached_property
    def _system(self) -> Any:
        return fsspec.url_to_fs(self.place)[0] if ADDRESS.fullmatch(self.place) else fsspec.filesystem("file")

    def __getstate__(self) -> dict[str, Any]:
        """Connections stay in their process."""
        return {name: getattr(self, name) for name in ("place", "names", "what")}

    def stamps(self) -> list[list[str | int]]:
        """Name, size and time (or the store's tag) of every file: other stamps are other files."""
        infos = [self._system.info(name) for name in self.names]
        tags = [info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") for info in infos]
        return [
            [name.rsplit("/", 1)[-1], int(info.get("size") or 0), str(tag)]
            for name, info, tag in zip(self.names, infos, tags, strict=True)
        ]

    def read(self, part: Slice, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Some rows of a file.

        Args:
            columns: None is all.

        Raises:
            DataError: the file is damaged, or has not these columns any more.
            DiffGRMError: it cannot be read now.
        """
        with self._opened(part.file) as file:
            groups: list[int] = []
            first, end = 0, 0
            for number in range(file.num_row_groups):
                begin, end = end, end + file.metadata.row_group(number).num_rows
                if begin < part.stop and end > part.start:
                    first = begin if not groups else first
                    groups.append(number)
            table = file.read_row_groups(groups, columns=None if columns is None else list(columns))
            frame = pl.from_arrow(table.slice(part.start - first, part.rows))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def footers(self) -> Footers:
        """What the files say of themselves.

        Raises:
            DataError: not one of them can be read, or there is no row.
            DiffGRMError: one cannot be read now, whole or not.
        """
        rows: list[int] = []
        schemas: dict[str, pl.Schema] = {}
        damaged: dict[str, str] = {}
        for number, name in enumerate(self.names):
            try:
                with self._opened(number) as file:
                    empty = pl.from_arrow(file.schema_arrow.empty_table())
                    rows.append(file.metadata.num_rows)
            except DataError as error:
                rows.append(0)
                damaged[name] = str(error)
            else:
                assert isinstance(empty, pl.DataFrame)
                schemas[name] = empty.schema
        if not schemas:
            raise DataError(f"no file of the {self.what} {self.place} can be read:\n{first_problems([*damaged.values()])}")
        if not sum(rows):
            raise DataError(f"the {self.what} {self.place} is empty: expected at least one row")
        return Footers(rows, schemas, damaged)

    def unusable(self, problems: Sequence[str]) -> DataError:
        """The error for files or rows that cannot be used."""
        return DataError(
            f"{len(problems)} parts of the {self.what} {self.place} could not be used:\n{first_problems(problems)}\nMend "
            "them and begin in a new folder, or leave out damaged files and rows with on_error='skip' (command line: "
            "--on-error skip)"
        )

    def none_usable(self, problems: Sequence[str]) -> DataError:
        """The error where all that could not be used was left out, and nothing remains."""
        return DataError(
            f"no part of the {self.what} {self.place} could be used:\n{first_problems(problems)}\nMend them and begin "
            "anew, or with more partitions (command line: --partitions), since rows are left out by the piece"
        )

    @contextmanager
    def _opened(self, number: int) -> Iterator[Any]:
        """A file for as long as the block reads it.

        Raises:
            DataError: what it holds is the reason that it cannot be read.
            DiffGRMError: the disk, the network or the rights are, so that another run may do better.
            MemoryError: there is not memory enough, of which pyarrow has an error of its own.
        """
        import pyarrow
        import pyarrow.parquet

        name = self.names[number]
        try:
            with self._system.open(name, "rb") as handle, pyarrow.parquet.ParquetFile(handle) as file:
                yield file
        except MemoryError:
            raise
        except (
            *(pyarrow.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException),
            *(OSError, EOFError, KeyError, ValueError),
        ) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):  # not pyarrow's own
                raise DiffGRMError(
                    f"{name} could not be read: {str(error).strip()}; it may be whole: see to the disk, the network or the "
                    "rights to it, and give the same command again"
                ) from error
            raise DataError(f"{name} is damaged, or no parquet file: {str(error).strip()}") from error


@dataclass(frozen=True)
class Footers:
    """What files say of themselves.

    Attributes:
        rows: of every file, 0 where it is damaged.
        schemas: columns of the files that can be read, by their names.
        damaged: what is wrong with the others, by their names.
    """

    rows: list[int]
    schemas: dict[str, pl.Schema]
    damaged: dict[str, str]

    @property
    def row(self) -> pl.DataFrame:
        """One row of nulls, with the columns of the first file."""
        return pl.DataFrame(schema=next(iter(self.schemas.values()))).clear(1)

    @property
    def problems(self) -> list[str]:
        """What is wrong with files."""
        return list(self.damaged.values())

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The damaged files as a setting of a job, if there are any: with others, it is another job."""
        return {"damaged": [name.rsplit("/", 1)[-1] for name in self.damaged]} if self.damaged else {}

    def skipped(self, rows: Sequence[tuple[int, str]]) -> dict[str, Any]:
        """What a job left out: files, and rows of others with what is wrong with them."""
        problems = [*self.problems, *(problem for _, problem in rows)]
        return {"files": len(self.damaged), "rows": sum(count for count, _ in rows), "problems": problems}

    def check_same(self, columns: Sequence[str], what: str) -> None:
        """Make sure that some columns are the same in all files.

        Raises:
            DataError: they differ, with the files.
        """
        (first, wanted), *others = self.schemas.items()
        for name, schema in others:
            pairs = ((column, wanted.get(column, "absent"), schema.get(column, "absent")) for column in columns)
            if different := [f"{column}: {mine} in {first}, {its} in {name}" for column, mine, its in pairs if mine != its]:
                raise DataError(
                    f"the files of the {what} differ; give them the same columns and types:\n{bullet_list(different)}"
                )


def cut(rows: Sequence[int], pieces: int) -> list[list[Slice]]:
    """Files cut and put together, in order, to so many pieces, of which none has two rows more than another.

    >>> [[(s.file, s.start, s.stop) for s in slices] for slices in cut([5, 1], 2)]
    [[(0, 0, 3)], [(0, 3, 5), (1, 0, 1)]]
    """
    found: list[list[Slice]] = []
    file, start, (least, more) = 0, 0, divmod(sum(rows), pieces)
    for number in range(pieces):
        room, slices = least + (number < more), []
        while room:
            stop = min(rows[file], start + room)
            if stop > start:
                slices.append(Slice(file, start, stop))
            room, start = room - (stop - start), stop
            if start == rows[file]:
                file, start = file + 1, 0
        found.append(slices)
    return found


def planned(pieces: Sequence[Sequence[Slice]]) -> Plan:
    """Slices as a plan keeps them in JSON."""
    return [[[part.file, part.start, part.stop] for part in piece] for piece in pieces]


def read_slices(
    piece: Sequence[Sequence[int]], read: Callable[[Slice], pl.DataFrame], skip: bool
) -> tuple[list[pl.DataFrame], list[tuple[int, str]]]:
    """The tables of a piece of a plan; and the rows that were left out, with what is wrong with them.

    Args:
        skip: leave out what cannot be read.

    Raises:
        DataError: it cannot be read, and ``skip`` is false.
    """
    frames, skipped = [], []
    for part in (Slice(*numbers) for numbers in piece):
        try:
            frames.append(read(part))
        except DataError as error:
            if not skip:
                raise
            skipped.append((part.rows, str(error)))
    return frames, skipped


def _other_format(source: str | Path) -> DataError:
    return DataError(
        f"batch jobs read parquet files, found {source}; write it as parquet, for example with "
        'polars.scan_csv("x.csv").sink_parquet("x.parquet")'
    )


def first_problems(problems: Sequence[str]) -> str:
    """The first of many problems, a line each."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return bullet_list([*problems[:SHOWN], *more])
