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
from diffgrm.foundation.storage import read_parquet, regular

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
        size, (rows, values, unpacked) = regular(path).stat().st_size, claimed_sizes(path)
        with path.open("rb") as file:
            kinds = pl.read_parquet_schema(file).values()
        for kind in kinds:  # nulls of an array are one value in the file, and as many as it is wide in memory
            unpacked = max(unpacked, _places(kind) * (rows if isinstance(kind, pl.Array) else values))
        if rows > MOST_ROWS * size or unpacked > MOST_BYTES[0] * size + MOST_BYTES[1]:
            raise DataError(f"it says that it has {rows:,} rows, and {unpacked:,} bytes once it is read, in {size:,} bytes")
        return read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, DataError, SizeError, OSError) as error:
        raise ModelFolderError(f"{path} is damaged: {error}") from error


def claimed_sizes(path: Path) -> tuple[int, int, int]:
    """Rows of a parquet file, values of all its columns, and bytes that those take once they are read, as it says.

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
            chunks = [_chunk_sizes(file, chunk[3], widest, size) for group in footer[4] for chunk in group[1]]
        except SizeError:
            raise
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise SizeError(f"its footer, or a page, does not hold what it should: {error!r}") from error
    return rows, sum(values for values, _ in chunks), sum(unpacked for _, unpacked in chunks)


def _places(kind: Any) -> int:
    """Values that one of a type may stand for, as far as the type tells: those of arrays, of structures the most."""
    if isinstance(kind, pl.Struct):
        return max((_places(field.dtype) for field in kind.fields), default=1)
    width = kind.size if isinstance(kind, pl.Array) else 1
    return width * _places(kind.inner) if isinstance(kind, pl.Array | pl.List) else width


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
