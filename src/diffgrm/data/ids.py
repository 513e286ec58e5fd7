"""Ids of items and users: how they match, and the forms in which lists of them are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.frames import as_series, is_frame, load_frame
from diffgrm.foundation import forks
from diffgrm.foundation.schema import Columns, DataError, did_you_mean, first_few

WHOLE_NUMBER = r"^(0|-?[1-9][0-9]*)$"  # as Python spells it
DIGITS = {"Float16": 11, "Float32": 24, "Float64": 53}  # binary digits of floats


class IdMap:
    """External ids <-> positions 0..N-1. Ids are all text or all whole numbers.

    >>> ids = IdMap(pl.Series(["a", "b"]))
    >>> ids.positions(["b", "nowhere"]), ids.ids([1])
    (array([ 1, -1]), ['b'])
    """

    def __init__(self, ids: pl.Series) -> None:
        forks.check()
        self._ids = ids.rename("id")

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def series(self) -> pl.Series:
        """All ids in order of position."""
        return self._ids

    @property
    def dtype(self) -> pl.DataType:
        """``pl.String`` or ``pl.Int64``."""
        return self._ids.dtype

    def positions(self, ids: Iterable[Any] | pl.Series) -> np.ndarray:
        """Positions [N] int64 of ids, -1 where unknown; an id matches by its spelling, see :func:`spelled`."""
        forks.check()
        wanted = spelled(ids, self.dtype).rename("id")
        if len(wanted) == 0 or len(self) == 0:
            return np.full(len(wanted), -1, np.int64)
        hashes, positions = self._by_hash
        asked = _hashes(wanted)
        place, order = np.empty(len(asked), np.int64), np.argsort(asked)  # neighbours in memory one after the other
        place[order] = np.searchsorted(hashes, asked[order]).clip(max=len(hashes) - 1)
        found = positions[place]
        same = (self._ids.gather(found) == wanted).fill_null(False).to_numpy()
        if len(clash := np.flatnonzero(~same & (hashes[place] == asked))):  # another id has the same hash
            table = pl.DataFrame({"id": self._ids, "position": np.arange(len(self))})
            joined = wanted.gather(clash).to_frame().join(table, on="id", how="left", maintain_order="left")
            found[clash] = joined["position"].fill_null(-1).to_numpy()
            same[clash] = True
        return np.where(same, found, -1)

    @cached_property
    def _by_hash(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all ids, sorted, and the position of each: found faster than texts are compared or tables joined."""
        hashes = _hashes(self._ids)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def ids(self, positions: Iterable[int] | np.ndarray) -> list[Any]:
        """External ids at positions."""
        return self.gather(np.asarray(positions)).to_list()

    def gather(self, positions: np.ndarray) -> pl.Series:
        """External ids at positions, as a series."""
        return self._ids.gather(np.asarray(positions, dtype=np.int64))


def _hashes(ids: pl.Series) -> np.ndarray:
    """[N] uint64, equal for equal ids within this process."""
    return ids.hash().to_numpy()


def is_id(value: Any) -> bool:
    """Whether a value is an id: a text or a whole number, and not a truth value."""
    return isinstance(value, str | int | np.integer) and not isinstance(value, bool)


def user_ids_of(users: Iterable[Any]) -> pl.Series:
    """Users whom somebody tells by name, as a column of ids.

    Raises:
        DataError: ids of several kinds, or none, or half of a surrogate pair.
    """
    users = list(users)
    if not all(map(is_id, users)) or len({isinstance(user, str) for user in users}) > 1:
        kinds = sorted({type(user).__name__ for user in users})
        raise DataError(f"user ids must be all text or all whole numbers, found {kinds}")
    if broken := [repr(user) for user in users if isinstance(user, str) and not is_unicode(user)]:
        raise DataError(f"the user id {first_few(broken)} holds half of a surrogate pair; ids are whole characters")
    return pl.Series(Columns.USER, users)


def spelled(ids: Iterable[Any] | pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids [N] as a catalogue of ``dtype`` (text or Int64) spells them; null where it has no such spelling.

    ``7`` and ``"7"`` are one id; ``"007"``, ``"+7"``, ``7.9``, ``True``, a time and None are none of them. A column of
    floats all of which are whole (as pandas makes of whole numbers with gaps) counts as whole numbers; a single float does
    not.

    >>> spelled([7, "7", "007", 7.0, True, None], pl.Int64()).to_list()
    [7, 7, None, None, None, None]
    """
    series = as_series(ids)
    found = _texts_and_numbers(list(ids)) if series is None else _whole_numbers(series)
    if found.dtype.is_integer():
        return found.cast(dtype, strict=False)
    if found.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return pl.Series([None] * len(found), dtype=dtype)
    found = found.cast(pl.String)
    if dtype == pl.String:
        return found
    numbers = found.str.contains(WHOLE_NUMBER)
    return pl.select(pl.when(numbers).then(found).cast(dtype, strict=False)).to_series()


def id_order(ids: pl.Series) -> np.ndarray:
    """Places [N] of ids in the order in which items are numbered: whole numbers by size; texts shorter ones first, then by
    their characters.

    >>> id_order(pl.Series(["10", "b", "9", "a"])).tolist()
    [2, 3, 1, 0]
    """
    by = [pl.col("id").str.len_chars(), pl.col("id")] if ids.dtype == pl.String else [pl.col("id")]
    return ids.rename("id").to_frame().with_row_index("place").sort(by)["place"].cast(pl.Int64).to_numpy()


def whole(column: pl.Series) -> bool:
    """Whether all values of a column of floats are whole numbers (nulls aside) that floats tell apart."""
    return bool(((column.round() == column) & (column.abs() < spellable(column.dtype))).all())


def spellable(kind: pl.DataType) -> float:
    """Floats of a type whose size is below it are the whole numbers that they seem to be.

    >>> spellable(pl.Float32()) == 2**24, spellable(pl.Float64()) == 2**53
    (True, True)
    """
    return 2.0 ** DIGITS[str(kind)]


def values(source: Iterable[Any]) -> list[Any]:
    """The values of a list or column; whole numbers where a column of floats holds only such."""
    series = as_series(source)
    return list(source) if series is None else _whole_numbers(series).to_list()


def _whole_numbers(column: pl.Series) -> pl.Series:
    return column.cast(pl.Int64) if column.dtype.is_float() and whole(column) else column


def _texts_and_numbers(ids: list[Any]) -> pl.Series:
    kinds = set(map(type, ids))
    if kinds <= {str} or kinds <= {int}:
        try:
            return pl.Series(ids, dtype=pl.String if kinds <= {str} else pl.Int64)
        except (OverflowError, TypeError, UnicodeEncodeError):  # beyond 64 bits; half a surrogate pair, which is no text
            pass
    texts = [str(value) if is_id(value) else None for value in ids]
    return pl.Series([None if text is None or not is_unicode(text) else text for text in texts], dtype=pl.String)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: half of a surrogate pair, as JSON can spell it, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def id_list(source: Any, column: str, what: str) -> list[Any]:
    """Ids in any form in which they are given.

    Args:
        source: one id; a list, tuple, set, iterator, array or series of ids; a frame with the column; or the path of such
            a table as a ``Path`` (a text is always an id).
        column: of the ids in a frame or file.
        what: how messages call the list.

    Raises:
        DataError: anything else, and lists that hold something else.
    """
    if is_id(source):
        return [source]
    if isinstance(source, Path) or is_frame(source):
        source = _column(load_frame(source, repr(what)), column, what)
    elif isinstance(source, bytes | bytearray | Mapping | bool) or not isinstance(source, Iterable):
        raise DataError(
            f"{what!r} is {source!r}; expected one id, a list, set, array or series of ids, a table with the column "
            f"{column!r}, or the pathlib.Path of one"
        )
    ids = values(source)
    if strange := [(place, value) for place, value in enumerate(ids) if not is_id(value)]:
        places = first_few(f"{value!r} (place {place})" for place, value in strange)
        raise DataError(
            f"{what!r} holds {len(strange)} values that are not ids: {places}; ids are texts or whole numbers, in one flat "
            "list; leave out or mend the others"
        )
    return ids


def _column(frame: pl.DataFrame, column: str, what: str) -> pl.Series:
    if column not in frame.columns:
        raise DataError(
            f"{what!r} is a table with the columns {frame.columns}; expected {column!r}"
            f"{did_you_mean(column, frame.columns)}; rename that column, or give the column itself"
        )
    return frame[column]


def known_positions(ids: IdMap, source: Any, column: str, what: str) -> tuple[np.ndarray, list[Any]]:
    """Positions of the ids that are known, and the ids that are not; forms and errors as of :func:`id_list`."""
    given = id_list(source, column, what)
    positions = ids.positions(given)
    return positions[positions >= 0], [value for value, place in zip(given, positions, strict=True) if place < 0]
