"""Files of semantic IDs, as others publish them and as we write them.

``.parquet``: a row an item, ``item_id`` and a list of digits in a column of its own (a file may hold several sets), or the
columns ``digit_0``, ``digit_1``... of ``diffgrm tokenize``. ``.json``: one object {item: digits}. Digits are whole numbers
from 0, or tokens such as ``<a_12>`` (LC-Rec, arXiv 2311.09049), where every digit has letters of its own. JSON is UTF-8,
with or without a byte order mark.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.ids import is_unicode
from diffgrm.foundation.schema import Columns, DataError, bullet_list, did_you_mean, first_few
from diffgrm.foundation.storage import atomic_file, read_parquet, write_parquet
from diffgrm.semantic_ids.tokenizers.base import LARGEST, MOST_DIGITS

COLUMN = "semantic_id"  # the lists of digits, where no other column is named
TOKEN = r"^<([A-Za-z]+)_([0-9]{1,6})>$"
MOST_BYTES, MOST_ITEMS = 2**30, 2**26  # of a file


@dataclass(frozen=True)
class SidTable:
    """The semantic IDs of some items.

    Attributes:
        items: [N] ids, each once, as the file spells them.
        codes: [N, n] int32, digits from 0 to 65535; rows may repeat.
    """

    items: pl.Series
    codes: np.ndarray


def read_sids(path: Path, column: str | None = None) -> SidTable:
    """Read the semantic IDs of a file.

    Args:
        column: of a parquet file; None: ``semantic_id``, else ``digit_0``, ``digit_1``...  Items without a value have none.

    Raises:
        DataError: no such file or format, or no such column; repeated items, digits that are none, or semantic IDs of
            different lengths or of more than 64 digits, all problems of the digits at once.
    """
    if not (os.path.lexists(path) and path.is_file()):  # the first of which no name is too long for
        raise DataError(f"there is no file of semantic IDs {path}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DataError(f"{path} has {size:,} bytes; expected at most {MOST_BYTES:,}: leave out what is not needed of it")
    if path.suffix == ".parquet":
        return _from_parquet(path, column)
    if path.suffix != ".json":
        raise DataError(f"{path.name}: semantic IDs are read from .parquet or .json")
    if column is not None:
        raise DataError(f"{path.name} has no columns, so there is no column {column!r} in it; leave the column out")
    return _from_json(path)


def write_sids(items: pl.Series, codes: np.ndarray, path: Path) -> None:
    """Write semantic IDs so that :func:`read_sids` reads them, whole or not at all.

    Args:
        items: [N] ids.
        codes: [N, n].
        path: ``.parquet`` (item_id, semantic_id) or ``.json``, where ids are texts.

    Raises:
        DataError: another format. OutputError: it could not be written.
    """
    if path.suffix not in (".parquet", ".json"):
        raise DataError(f"cannot write {path.name}: expected .parquet or .json")
    rows = codes.tolist()
    with atomic_file(path) as temporary:
        if path.suffix == ".parquet":
            digits = pl.Series(COLUMN, rows, dtype=pl.List(pl.Int32))
            write_parquet(pl.DataFrame([items.rename(Columns.ITEM), digits]), temporary)
        else:
            lines = ",\n".join(f"{json.dumps(str(item))}: {row}" for item, row in zip(items, rows, strict=True))
            temporary.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _from_parquet(path: Path, column: str | None) -> SidTable:
    try:
        with path.open("rb") as file:
            count = pl.scan_parquet(file).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path} is not a parquet file that can be read: {error}") from error
    if count > MOST_ITEMS:
        raise DataError(f"{path} says that it has {count:,} rows; expected at most {MOST_ITEMS:,}")
    table = read_parquet(path)
    if Columns.ITEM not in table.columns:
        raise DataError(f"{path} has the columns {table.columns}; expected {Columns.ITEM!r}, and a column of digits")
    if column is None and COLUMN not in table.columns and (spread := _digit_columns(path, table)):
        table = table.with_columns(table.select(pl.concat_list(spread)).to_series().alias(COLUMN))
    name = column or COLUMN
    if name not in table.columns:
        others = [c for c in table.columns if c != Columns.ITEM]
        raise DataError(f"{path} has no column {name!r}{did_you_mean(name, others)}; name the one of the digits")
    table = table.filter(pl.col(name).is_not_null())
    digits, items = table[name], table[Columns.ITEM]
    if not isinstance(digits.dtype, pl.List | pl.Array):
        raise DataError(f"{path}: column {name!r} has type {digits.dtype}; expected lists of digits")
    digits = digits.arr.to_list() if isinstance(digits.dtype, pl.Array) else digits
    lengths = digits.list.len().to_numpy()
    return _checked(path, items, digits.filter(digits.list.len() > 0).explode(), lengths)


def _digit_columns(path: Path, table: pl.DataFrame) -> list[str]:
    """The columns ``digit_0``, ``digit_1``... of a table that has them, in order.

    Raises:
        DataError: one is missing, or there twice as in ``digit_0``, ``digit_00``, or holds lists.
    """
    found = sorted((int(name[6:]), name) for name in table.columns if re.fullmatch(r"digit_[0-9]+", name))
    places, names = [place for place, _ in found], [name for _, name in found]
    if twice := [name for place, name in found if places.count(place) > 1]:
        raise DataError(f"{path} has the columns {first_few(twice)} for one digit; give each digit one column")
    if lacking := [f"digit_{place}" for place in range(len(found)) if place not in places]:
        raise DataError(f"{path} has {len(found)} columns of digits, but no {first_few(lacking)}; number them from 0 on")
    if lists := [name for name in names if isinstance(table.schema[name], pl.List | pl.Array)]:
        raise DataError(
            f"{path}: column {lists[0]!r} has type {table.schema[lists[0]]}; expected a digit a row, or name the column of "
            "all digits"
        )
    return names


def _from_json(path: Path) -> SidTable:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(pairs, _Pairs):
        raise DataError(f"{path}: expected one object {{item: digits}}, found a {type(pairs).__name__}")
    if strange := [item for item, digits in pairs if type(digits) is not list]:
        raise DataError(
            f"{path}: {len(strange)} items have no list of digits: {first_few(strange)}; expected {{item: [12, 7, ...]}}"
        )
    flat = [digit for _, digits in pairs for digit in digits]
    texts = [item for item, _ in pairs] + [digit for digit in flat if isinstance(digit, str)]
    if broken := [repr(text) for text in texts if not is_unicode(text)]:
        raise DataError(f"{path}: {first_few(broken)}: half of a surrogate pair is no text; mend it, or leave it out")
    kinds = {type(digit) for digit in flat}
    if kinds not in (set(), {int}, {str}):
        names = ", ".join(sorted("object" if kind is _Pairs else kind.__name__ for kind in kinds))
        raise DataError(f"{path}: its digits are {names}; expected whole numbers, or tokens such as '<a_12>'")
    if kinds == {int}:  # of any size; what is out of range stays so, and fits
        flat = [max(-1, min(digit, LARGEST)) for digit in flat]
    lengths = np.array([len(digits) for _, digits in pairs], dtype=np.int64)
    items = pl.Series([item for item, _ in pairs], dtype=pl.String)
    return _checked(path, items, pl.Series(flat, dtype=pl.String if kinds == {str} else pl.Int64), lengths)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys, those too that stand there twice."""


def _checked(path: Path, items: pl.Series, flat: pl.Series, lengths: np.ndarray) -> SidTable:
    """The table of N items, of which the digits [sum of lengths] stand one after the other.

    Raises:
        DataError: see :func:`read_sids`.
    """
    problems = []
    if not len(items):
        raise DataError(f"{path} has no semantic ID of any item")
    if items.null_count():
        problems.append(f"{items.null_count()} rows have no {Columns.ITEM}; leave them out")
    if (twice := items.filter(items.is_duplicated()).drop_nulls().unique(maintain_order=True)).len():
        problems.append(f"{len(twice)} items stand there more than once: {first_few(twice)}; keep one of each")
    n = int(lengths[0])
    if (lengths != n).any():
        other = int((lengths != n).argmax())
        problems.append(
            f"semantic IDs have {lengths.min()} to {lengths.max()} digits, as of {items[0]} ({n}) and {items[other]} "
            f"({lengths[other]}); expected as many for every item"
        )
    elif not 1 <= n <= MOST_DIGITS:
        problems.append(f"semantic IDs have {n} digits; expected 1 to {MOST_DIGITS}")
    if problems:
        raise DataError(f"{path} cannot be used:\n" + bullet_list(problems))
    if flat.dtype == pl.String:
        return SidTable(items, _of_tokens(path, items, flat, n))
    if not flat.dtype.is_integer():
        raise DataError(f"{path}: its digits are of type {flat.dtype}; expected whole numbers, or tokens such as '<a_12>'")
    return SidTable(items, _in_range(path, items, flat, n))


def _in_range(path: Path, items: pl.Series, flat: pl.Series, n: int) -> np.ndarray:
    flat = flat.cast(pl.Int64, strict=False)  # beyond 64 bits: null
    fits = flat.is_between(0, LARGEST - 1).fill_null(False).to_numpy().reshape(-1, n).all(1)
    if not fits.all():
        strange = items.filter(pl.Series(~fits))
        raise DataError(
            f"{path}: {len(strange)} items have digits that are empty, below 0 or above {LARGEST - 1}: "
            f"{first_few(strange)}; digits count from 0"
        )
    return flat.cast(pl.Int32).to_numpy().reshape(-1, n)


def _of_tokens(path: Path, items: pl.Series, flat: pl.Series, n: int) -> np.ndarray:
    parts = flat.str.extract_groups(TOKEN).struct
    letters, digits = parts[0], parts[1]
    if (unread := letters.is_null()).any():
        raise DataError(
            f"{path}: {unread.sum()} digits are no tokens: {first_few(map(repr, flat.filter(unread)))}; expected such as "
            "'<a_12>', or whole numbers"
        )
    for place in range(n):
        if len(used := letters.gather_every(n, place).unique().sort()) > 1:
            raise DataError(
                f"{path}: digit {place} is written with the letters {first_few(used)}; expected one for each digit, as in "
                "<a_12>, <b_7>, <c_0>"
            )
    return _in_range(path, items, digits, n)
