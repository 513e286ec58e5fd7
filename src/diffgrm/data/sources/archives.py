"""What publishers send: packed files, and what is wrong with them."""

from __future__ import annotations

import ast
import gzip
import io
import itertools
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import polars as pl

from diffgrm.foundation.schema import DiffGRMError, DownloadError

Parsed = TypeVar("Parsed")
FAULTS = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    pl.exceptions.PolarsError,
)
ROWS = 1 << 20  # rows that are held as Python objects at once


@contextmanager
def reading(path: Path, what: str, remedy: str = "delete it and try again") -> Iterator[None]:
    """Says of whatever goes wrong inside which file cannot be read, and the way out.

    Raises:
        DownloadError: the file is damaged, or another one.
    """
    try:
        yield
    except DiffGRMError:
        raise
    except FAULTS as error:
        raise DownloadError(f"{path} is damaged, or not {what} ({error!r}); {remedy}") from error


def told(table: pl.DataFrame, columns: Iterable[str] | None = None) -> pl.DataFrame:
    """A table whose rows all tell some columns; a row that is cut off does not, and no reader of all supported says so.

    Args:
        columns: None: all.

    Raises:
        ValueError: some do not.
    """
    chosen = table.columns if columns is None else columns
    if lacking := [name for name in chosen if table[name].null_count()]:
        row = table[lacking[0]].is_null().arg_max()
        raise ValueError(f"row {row} has no {lacking[0]!r}")
    return table


def csv_table(content: bytes, types: Mapping[str, type[pl.DataType]], lacking: Iterable[str] = ()) -> pl.DataFrame:
    """The named columns of a CSV file with a header.

    Args:
        lacking: columns that rows may lack.

    Raises:
        ValueError: the header or a row lacks one. Errors of polars: other content.
    """
    header = pl.read_csv(io.BytesIO(content), n_rows=0, infer_schema=False).columns
    if missing := [name for name in types if name not in header]:  # which some versions take from another column
        raise ValueError(f"there is no column {missing[0]!r} among {', '.join(header)}")
    table = pl.read_csv(io.BytesIO(content), schema_overrides=types).select(list(types))
    return told(table, [name for name in types if name not in tuple(lacking)])


def gzip_records(path: Path, parse: Callable[[str], Parsed], what: str) -> Iterator[Parsed]:
    """What ``parse`` makes of every line of a packed text file.

    Raises:
        DownloadError: see :func:`reading`.
    """
    with reading(path, what), gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(parse, file)


@contextmanager
def member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """One file of a zip or tar archive (packed or not), opened, in whatever folder of the archive it lies.

    Nothing is unpacked to the disk.

    Raises:
        KeyError: there is none of that name.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            for place in packed.namelist():
                if PurePosixPath(place).name == name:
                    with packed.open(place) as file:
                        yield file
                    return
    else:
        with tarfile.open(path, "r:*") as tape:
            for entry in tape:  # one after the other: a packed archive is read up to the file that is wanted
                if entry.isfile() and PurePosixPath(entry.name).name == name:
                    opened = tape.extractfile(entry)
                    assert opened is not None  # it is a file
                    yield opened
                    return
    raise KeyError(f"there is no file {name} in the archive")


def read_member(path: Path, name: str) -> bytes:
    """The bytes of one file of an archive; see :func:`member`."""
    with member(path, name) as file:
        return file.read()


def table_of(rows: Iterable[tuple[Any, ...]], names: Sequence[str]) -> pl.DataFrame:
    """A table of many rows, of which only some are held as Python objects at once."""
    rows = iter(rows)
    blocks = [pl.DataFrame(schema=dict.fromkeys(names, pl.Null))]
    while block := list(itertools.islice(rows, ROWS)):
        blocks.append(pl.DataFrame(block, list(names), orient="row", infer_schema_length=None))
    return pl.concat(blocks, how="vertical_relaxed")


def loose_json(line: str) -> Any:
    """A line that is JSON, or the Python literal that older files have in its place.

    >>> loose_json("{u'id': u'7', 'early': True}") == loose_json('{"id": "7", "early": true}')
    True
    """
    try:
        return json.loads(line)
    except ValueError:
        return ast.literal_eval(line.strip())
