"""Tables of model folders, which are read once their sizes are known.

A parquet file of some kilobytes can say that it has billions of values, which repeat or are nulls, and a reader would make
them all. What it says is in its footer and in the header of every page: Thrift structures in the compact protocol, of which
only sizes are taken here (https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from diffgrm.foundation import forks
from diffgrm.foundation.schema import DataError, ModelFolderError
from diffgrm.foundation.storage import read_parquet, refusal, regular, write_parquet

MOST_ROWS = 16  # a byte; ids that count up, the same text for all, take a third of a byte a row
MOST_BYTES = 2**12, 2**28  # in memory, for each byte of the file, and beside those
MAGIC = b"PAR1"
DEEPEST = 16  # structures in one another; a footer has 8
HEADERS = 2**12, 2**26  # bytes read at first, and at most, for the header of a page, which may hold the greatest value
WIDTHS = {
    0: 1,
    1: 4,
    2: 8,
    3: 12,
    4: 4,
    5: 8,
    6: 16,
}  # bytes of a value in memory, by physical type; 6: texts, by reference
FIXED = 7  # physical type of values whose width the schema tells

Fields = dict[int, Any]  # of a structure, by their numbers


class SizeError(ValueError):
    """A file is no parquet file, or what it says of sizes contradicts itself."""


def read_table(path: Path) -> pl.DataFrame:
    """A table of a model folder or an export.

    Raises:
        ModelFolderError: no file, a damaged one, or one that says that it is larger than a file of its size is.
        DiffGRMError: see :func:`diffgrm.foundation.forks.check`.
    """
    forks.check()
    try:
        check_sizes(regular(path))
        return read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, DataError, SizeError, OSError) as error:
        found = error.__cause__ if isinstance(error, DataError) and isinstance(error.__cause__, Exception) else error
        raise ModelFolderError(f"{path} {refusal(found) or f'is damaged: {error}'}") from error


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table of a model folder or an export, such that :func:`read_table` reads it.

    Raises:
        OSError: it cannot be written, or would be refused.
    """
    write_parquet(table, path)
    try:
        check_sizes(path)
    except SizeError:  # arrays in lists that repeat one another; what is not compressed is as large as it says
        write_parquet(table, path, compressed=False)
        try:
            check_sizes(path)
        except SizeError as error:
            raise OSError(
                f"{path.name} would be refused when it is loaded: {error}; leave out columns of arrays in lists"
            ) from error


def check_sizes(path: Path) -> None:
    """Make sure that a parquet file does not say that it is larger than one of its size is.

    Raises:
        SizeError: it does, or is no parquet file. OSError, PolarsError: it cannot be read.
    """
    size, (rows, longest, unpacked) = path.stat().st_size, claimed_sizes(path)
    with path.open("rb") as file:
        kinds = pl.read_parquet_schema(file).values()
    unpacked += sum(_places(kind, rows, longest) for kind in kinds)
    if rows > MOST_ROWS * size or unpacked > MOST_BYTES[0] * size + MOST_BYTES[1]:
        raise SizeError(f"it says that it has {rows:,} rows, and {unpacked:,} bytes once it is read, in {size:,} bytes")


def claimed_sizes(path: Path) -> tuple[int, int, int]:
    """Rows of a parquet file, values of its longest column, and bytes that all take once they are read, as it says.

    In a row group any column may be the longest: nothing says whether a reader tells columns by place or by name.

    Raises:
        SizeError: no parquet file. OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        length, magic = int.from_bytes(file.read(4), "little"), file.read()
        if magic != MAGIC or length > size - 12:
            raise SizeError("it does not end as a parquet file does")
        file.seek(size - 8 - length)
        try:
            footer = _Thrift(file.read(length)).structure()
            widest = max(leaf.get(2, 0) for leaf in footer[2])
            rows = max(footer[3], sum(group[3] for group in footer[4]))
            # Columns do not overlap; where they did, every byte could be walked as often as the footer has columns.
            if sum(abs(chunk[3][7]) for group in footer[4] for chunk in group[1]) > size:
                raise SizeError("its columns together are longer than it")
            groups = [[_chunk_sizes(file, chunk[3], widest, size) for chunk in group[1]] for group in footer[4]]
        except SizeError:
            raise
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise SizeError(f"its footer, or a page, does not hold what it should: {error!r}") from error
    longest = sum(max((values for values, _ in group), default=0) for group in groups)
    return rows, longest, sum(unpacked for group in groups for _, unpacked in group)


def _places(kind: Any, count: int, values: int, in_array: bool = False) -> int:
    """Values in the arrays of a column, at most: a null array is one value in the file, in memory as many as it is wide.

    Args:
        count: of values of this type, at most; values: of the column in the file, which bound the values of its lists.
    """
    if isinstance(kind, pl.Struct):
        return sum(_places(field.dtype, count, values, in_array) for field in kind.fields)
    if isinstance(kind, pl.Array):
        return _places(kind.inner, count * kind.size, values, in_array=True)
    return count * in_array + (_places(kind.inner, values, values) if isinstance(kind, pl.List) else 0)


def _chunk_sizes(file: BinaryIO, chunk: Fields, widest: int, size: int) -> tuple[int, int]:
    """Values of one column of a row group, and their bytes.

    Args:
        widest: of the schema's values of fixed width; size: of the file.
    """
    start: int = chunk[11] if 11 in chunk else chunk[9]  # of a dictionary, if there is one
    values = raw = 0
    end = start + chunk[7]
    if not len(MAGIC) <= start <= min(end, chunk[9]) or end > size:
        raise SizeError("a column lies outside of it")
    while start < end:
        page, length = _page(file, start, end)
        if page[2] < 0 or page[3] < 0:
            raise SizeError("a page is shorter than nothing")
        values += max(page[kind][1] for kind in (5, 7, 8) if kind in page)  # of data, of a dictionary, of newer data
        raw += page[2]
        start += length + page[3]
    values = max(values, chunk[5])
    return values, values * (widest if chunk[1] == FIXED else WIDTHS[chunk[1]]) + max(raw, chunk[6])


def _page(file: BinaryIO, start: int, end: int) -> tuple[Fields, int]:
    """The header of a page, and its length."""
    length, most = HEADERS[0], min(HEADERS[1], end - start)
    while True:
        file.seek(start)
        thrift = _Thrift(file.read(min(length, most)))
        try:
            return thrift.structure(), thrift.place
        except SizeError:
            if length >= most:
                raise
        length *= 2  # so that all that is read is some times what the header takes


class _Thrift:
    """Reads the compact protocol.

    Attributes:
        place: of the next byte.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def structure(self, depth: int = 0) -> Fields:
        """A structure as its fields; of those of which nothing is taken, too."""
        found, number = Fields(), 0
        while head := self._bytes(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > DEEPEST:
            raise SizeError("it is nested too deeply")
        if kind in (1, 2, 3):
            return self._bytes(1)[0]
        if kind in (4, 5, 6):
            return self._number()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._natural())
        if kind in (9, 10):
            head = self._bytes(1)[0]
            count = self._natural() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15, depth + 1) for _ in range(self._at_most(count))]
        if kind == 12:
            return self.structure(depth)
        raise SizeError(f"it has a value of the kind {kind}, of which parquet knows nothing")

    def _number(self) -> int:
        found = self._natural()
        return (found >> 1) ^ -(found & 1)

    def _natural(self) -> int:
        found, shift = 0, 0
        while shift < 64:
            byte = self._bytes(1)[0]
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
        raise SizeError("it has a number of more than 64 bits")

    def _bytes(self, count: int) -> bytes:
        start = self.place
        self.place += self._at_most(count)
        return self._data[start : self.place]

    def _at_most(self, count: int) -> int:
        """A count of bytes, or of values that take at least one, of which so many are left."""
        if count > len(self._data) - self.place:
            raise SizeError("it ends within its footer or the header of a page")
        return count
