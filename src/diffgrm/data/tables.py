"""Read and check user tables: any path or frame in, two clean polars frames out."""

from __future__ import annotations

import gzip
import html
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from diffgrm.foundation.schema import Columns, DataError, bullet_list, did_you_mean, first_few

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".ndjson.gz")


def read_table(
    source: Any,
    columns: Mapping[str, str] | None = None,
    *,
    required: tuple[str, ...] = (),
    what: str = "table",
) -> pl.DataFrame:
    """A table from a path or a frame, with columns renamed and the required ones checked.

    Args:
        source: a path (parquet, csv, tsv, jsonl; the text forms also gzipped), or a polars, pandas or arrow frame.
            Id-like columns of text files stay text, so ``007`` keeps its zeros.
        columns: how the library's names are called in this table, for example ``{"user_id": "reviewerID"}``.
        required: columns that must be there after renaming.
        what: how messages call this table.

    Raises:
        DataError: no such file, unknown format, missing or misnamed columns, or no rows.
    """
    frame = load_frame(source, what)
    if columns:
        if missing := [old for old in columns.values() if old not in frame.columns]:
            hints = [f"{old!r}{did_you_mean(old, frame.columns)}" for old in missing]
            raise DataError(f"the {what} has no column to rename:\n{bullet_list(hints)}")
        # A column that already bears one of the new names gives way.
        others = [c for c in frame.columns if c not in columns and c not in columns.values()]
        frame = frame.select(*(pl.col(old).alias(new) for new, old in columns.items()), *others)
    if missing := [name for name in required if name not in frame.columns]:
        hints = [f"expected column {name!r}{did_you_mean(name, frame.columns)}" for name in missing]
        raise DataError(
            f"the {what} has columns {frame.columns}, but:\n{bullet_list(hints)}\n"
            f"Rename with columns={{'{missing[0]}': 'YOUR_NAME'}} (command line: --column {missing[0]}=YOUR_NAME)."
        )
    if frame.height == 0:
        raise DataError(f"the {what} is empty: expected at least one row")
    return frame


def load_frame(source: Any, what: str = "table") -> pl.DataFrame:
    """A path or a frame of any library as a polars frame, as it is.

    Raises:
        DataError: no such file, unknown format, a damaged file, or something that is not a table.
    """
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if isinstance(source, str | Path):
        return _load_path(Path(source), what)
    kind = type(source).__module__.partition(".")[0]
    if kind == "pandas":
        return pl.from_pandas(source)
    if kind == "pyarrow":
        frame = pl.from_arrow(source)
        if isinstance(frame, pl.DataFrame):
            return frame
    raise DataError(f"cannot read a {what} from {type(source).__name__}; give a path or a polars, pandas or arrow table")


def _load_path(path: Path, what: str) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"there is no {what} file {path}")
    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            return pl.read_parquet(path)
        if name.endswith((".csv", ".tsv")):
            separator = "\t" if name.endswith(".tsv") else ","
            return pl.read_csv(path, separator=separator, infer_schema=False)
        if name.endswith((".jsonl", ".ndjson")):
            content = path.read_bytes()
            content = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
            return pl.read_ndjson(content, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"the {what} file {path} could not be read: {error}") from error
    raise DataError(f"the {what} file {path.name} has an unknown format; known: {', '.join(SUFFIXES)}")


def renamings_for(frame: pl.DataFrame, columns: Mapping[str, str]) -> dict[str, str]:
    """Those renamings whose column the table has."""
    return {ours: theirs for ours, theirs in columns.items() if theirs in frame.columns}


def read_interactions(source: Any, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Events as ``user_id, item_id[, timestamp]``, checked, in order of time (ties keep the order of the rows).

    Timestamps may be numbers (any unit, the same throughout), dates or date-times; without the column, the rows of
    a user are taken to be in order. Other columns are left out.

    Raises:
        DataError: see :func:`read_table`; also null ids, or timestamps that are null or cannot be ordered.
    """
    frame = read_table(source, columns, required=(Columns.USER, Columns.ITEM), what="interaction table")
    kept = [Columns.USER, Columns.ITEM] + [c for c in (Columns.TIMESTAMP,) if c in frame.columns]
    frame = frame.select(kept)
    problems = _id_problems(frame, (Columns.USER, Columns.ITEM))
    if Columns.TIMESTAMP in frame.columns:
        frame, more = _ordered_timestamps(frame)
        problems += more
    if problems:
        raise DataError("the interaction table has problems:\n" + bullet_list(problems))
    frame = _normalise_ids(frame, (Columns.USER, Columns.ITEM))
    return frame.sort(Columns.TIMESTAMP, maintain_order=True) if Columns.TIMESTAMP in frame.columns else frame


def read_items(source: Any, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Items as ``item_id, text`` and whatever columns the table has besides; one row an item.

    Texts are cleaned: HTML tags and entities are taken out and white space folded.

    Raises:
        DataError: see :func:`read_table`; also null or repeated ids, and items without text.
    """
    frame = read_table(source, columns, required=(Columns.ITEM, Columns.TEXT), what="item table")
    problems = _id_problems(frame, (Columns.ITEM,))
    repeated = frame.filter(frame[Columns.ITEM].is_duplicated())[Columns.ITEM].unique(maintain_order=True)
    if repeated.len():
        problems.append(
            f"{repeated.len()} item ids have more than one row (expected one each): {first_few(repeated)}; "
            "keep one with .unique('item_id')"
        )
    texts = [clean_text(text) for text in _as_text(frame[Columns.TEXT])]
    bare = [item for item, text in zip(frame[Columns.ITEM], texts, strict=True) if not text]
    if bare:
        problems.append(
            f"{len(bare)} items have no text: {first_few(bare)}; give them at least a title, a category or their id as text"
        )
    if problems:
        raise DataError("the item table has problems:\n" + bullet_list(problems))
    return _normalise_ids(frame.with_columns(pl.Series(Columns.TEXT, texts, pl.String)), (Columns.ITEM,))


def _as_text(column: pl.Series) -> pl.Series:
    """A column of texts, numbers, or lists of texts, as texts."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return column.cast(pl.List(pl.String), strict=False).list.join(" ", ignore_nulls=True)
    if column.dtype in (pl.Binary, pl.Object) or isinstance(column.dtype, pl.Struct):
        raise DataError(f"the item table's text has type {column.dtype}; expected text, or lists of texts")
    return column.cast(pl.String)


def clean_text(text: str | None) -> str:
    """Text without HTML and with single spaces; ``""`` for nothing.

    >>> clean_text("<b>Salt &amp; Pepper</b><br/>  shaker ")
    'Salt & Pepper shaker'
    """
    if text is None:
        return ""
    if "<" in text or "&" in text:
        text = html.unescape(re.sub(r"</?[a-zA-Z!][^<>]*>", " ", text))
    return " ".join(text.split())


def _id_problems(frame: pl.DataFrame, id_columns: tuple[str, ...]) -> list[str]:
    problems = []
    for name in id_columns:
        column = frame[name]
        if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical) or column.dtype == pl.Enum):
            problems.append(f"{name} has type {column.dtype}; expected text or whole numbers (cast it first)")
        elif nulls := column.null_count():
            rows = column.is_null().arg_true()
            problems.append(f"{name} is null in {nulls} rows (rows {first_few(rows)}); drop or fill them")
    return problems


def _normalise_ids(frame: pl.DataFrame, id_columns: tuple[str, ...]) -> pl.DataFrame:
    # Unsigned 64-bit ids may not fit into Int64, so they become text.
    number = {name: frame[name].dtype.is_integer() and frame[name].dtype != pl.UInt64 for name in id_columns}
    return frame.with_columns(pl.col(name).cast(pl.Int64 if number[name] else pl.String) for name in id_columns)


def _ordered_timestamps(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    column = frame[Columns.TIMESTAMP]
    if column.dtype == pl.String:
        column = _timestamps_from_text(column)
        frame = frame.with_columns(column.alias(Columns.TIMESTAMP))
    if not (column.dtype.is_numeric() or column.dtype.is_temporal()):
        return frame, [f"timestamp has type {column.dtype}; expected numbers, dates or date-times"]
    bad = column.is_null() | (column.is_nan() if column.dtype.is_float() else False)
    if bad.any():
        rows = bad.arg_true()
        return frame, [f"timestamp is null or unreadable in {rows.len()} rows (rows {first_few(rows)})"]
    return frame, []


def _timestamps_from_text(column: pl.Series) -> pl.Series:
    for parse in (
        lambda: column.cast(pl.Int64),
        lambda: column.cast(pl.Float64),
        lambda: column.str.to_datetime(),
        lambda: column.str.to_date().cast(pl.Datetime),
    ):
        try:
            return parse()
        except pl.exceptions.PolarsError:
            continue
    return column
