"""Arrays that may be larger than memory: in files that the operating system maps, and reads and drops as it needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from diffgrm.foundation.schema import OutputError
from diffgrm.foundation.storage import cache_folder

BLOCK = 2**20  # rows, or values, that are worked on at once
IN_MEMORY = 2**22  # values of an array that is kept in memory; longer ones lie in files


def room(length: int, dtype: Any = np.int64) -> np.ndarray:
    """An array to write to: in memory or, where it is long, in a file without a name, which goes when the array does.

    The file lies in the cache folder (``$DIFFGRM_CACHE``), or in that of temporary files where there is none to write to.

    Raises:
        OutputError: the disk has no room for it.
    """
    if length <= IN_MEMORY:
        return np.empty(length, dtype)
    with tempfile.TemporaryFile(dir=_scratch()) as file:
        return _mapped(file, length, dtype)


def stored(path: Path, length: int, dtype: Any) -> np.ndarray:
    """An array to write to that is a new file.

    Raises:
        OutputError: the disk has no room for it.
    """
    with path.open("w+b") as file:
        return _mapped(file, length, dtype)


def read(path: Path, length: int, dtype: Any) -> np.ndarray:
    """What :func:`stored` made, not to be written to.

    Raises:
        ValueError: the file has another size.
        OSError: it cannot be read.
    """
    if path.stat().st_size != length * np.dtype(dtype).itemsize:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; expected {length} times {np.dtype(dtype).itemsize}")
    return np.memmap(path, dtype, "r", shape=(length,))


def row_blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """First row and the row after the last of neighbouring rows that hold :data:`BLOCK` values together, or are one row.

    Args:
        offsets: [rows + 1] where the values of each row begin, and where the last ones end.
    """
    first, rows = 0, len(offsets) - 1
    while first < rows:
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK, side="right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


def _mapped(file: IO[bytes], length: int, dtype: Any) -> np.ndarray:
    size = length * np.dtype(dtype).itemsize
    try:
        if hasattr(os, "posix_fallocate"):  # what the disk has no room for would end the process when it is written
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise OutputError(
            f"there is no room for {size:,} bytes of events: {error.strerror or error}; make room, or name a folder on "
            "another disk in DIFFGRM_CACHE"
        ) from error
    return np.memmap(file, dtype, "r+", shape=(length,))  # type: ignore[call-overload, no-any-return]


def _scratch() -> Path | None:
    """A folder for files without a name; None is that of the system."""
    if (cache := cache_folder()) is None:
        return None
    try:
        (cache / "events").mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return cache / "events" if os.access(cache / "events", os.W_OK) else None
