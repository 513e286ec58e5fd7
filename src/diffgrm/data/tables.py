"""Read and check user tables: any path or frame in, two clean polars frames out."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from diffgrm.data.columns import shown_cell
from diffgrm.data.faults import ALL, Fault, Rows, fault, together
from diffgrm.data.frames import load_frame
from diffgrm.data.ids import spellable, whole
from diffgrm.data.times import read_times
from diffgrm.foundation.schema import Columns, DataError, bullet_list, did_you_mean, first_few, nearest

logger = logging.getLogger(__name__)

OF_EVENTS = (Columns.USER, Columns.ITEM, Columns.TIMESTAMP)
OF_ITEMS = (Columns.ITEM, Columns.TEXT, Columns.TITLE)
OURS = tuple(dict.fromkeys((*OF_EVENTS, *OF_ITEMS)))
COUNT, RECOMMENDABLE = "training_events", "_recommendable"  # columns that a model folder adds to the item table


def read_table(
    source: Any,
    columns: Mapping[str, str] | None = None,
    *,
    required: tuple[str, ...] = (),
    what: str = "table",
    renamable: bool = True,
) -> pl.DataFrame:
    """A table from a path or a frame, with columns renamed and the required ones checked.

    Args:
        source: a path, see :func:`diffgrm.data.files.read_file`, or a polars, pandas or arrow frame.
        columns: how the library's names are called in this table, for example ``{"user_id": "reviewerID"}``.
        required: columns that must be there after renaming.
        what: how messages call this table.
        renamable: whether who reads the message can give ``columns``.

    Raises:
        DataError: no such file, unknown format, missing, misnamed or repeated columns, or no rows.
    """
    frame = load_frame(source, what)
    wanted = {*required, *(columns or {}).values()}
    if repeated := [name for name in frame.columns if name in wanted and f"{name}_duplicated_0" in frame.columns]:
        raise DataError(f"the {what} has more than one column {repeated[0]!r}; keep one of them, or give it another name")
    if columns:
        renamings_for(columns, frame, what=f"the {what}", ours=columns)
        # A column that already bears one of the new names gives way.
        others = [c for c in frame.columns if c not in columns and c not in columns.values()]
        frame = frame.select(*(pl.col(old).alias(new) for new, old in columns.items()), *others)
    if missing := [name for name in required if name not in frame.columns]:
        hints = [f"expected column {name!r}{nearest(name, frame.columns)}" for name in missing]
        way = f"Rename with columns={{'{missing[0]}': 'YOUR_NAME'}} (command line: --column {missing[0]}=YOUR_NAME)."
        if not renamable:
            way = "Name one of these columns, or rename yours in the table; --column is not for it."
        raise DataError(f"the {what} has columns {frame.columns}, but:\n{bullet_list(hints)}\n{way}")
    if frame.height == 0:
        raise DataError(f"the {what} is empty: expected at least one row")
    return frame


def _renamed(columns: Mapping[str, str] | None) -> dict[str, str]:
    """What messages call renamed columns."""
    return {ours: f"{theirs} ({ours})" for ours, theirs in (columns or {}).items() if ours != theirs}


def renamings_for(
    columns: Mapping[str, str] | None,
    *tables: pl.DataFrame,
    what: str,
    ours: Collection[str] = OURS,
    elsewhere: Collection[str] = (),
    known: Collection[str] = (),
) -> list[dict[str, str]]:
    """Of each table, those renamings whose column it has.

    Args:
        columns: how the library's names are called in whichever of the tables has them.
        what: how messages call all the tables, such as ``the item table``.
        ours: names that columns of these tables may be given.
        elsewhere: those of them whose columns may be in a table that is not here.
        known: names of columns of other tables, which are passed over, so that one set of renamings does for every command.

    Raises:
        DataError: a name that is not ours, or a column that none of the tables has.
    """
    columns = columns or {}
    if unknown := sorted(set(columns) - {*ours, *known}):
        raise DataError(
            f"cannot rename to {unknown[0]!r}{nearest(unknown[0], ours)}: the columns of {what} are {', '.join(ours)}"
        )
    columns = {new: old for new, old in columns.items() if new in ours}
    there = list(dict.fromkeys(name for table in tables for name in table.columns))
    if missing := [old for new, old in columns.items() if old not in there and new not in elsewhere]:
        hints = [f"{name!r}{did_you_mean(name, there)}" for name in missing]
        raise DataError(f"there is no column to rename in {what}:\n{bullet_list(hints)}")
    return [{new: old for new, old in columns.items() if old in table.columns} for table in tables]


def read_interactions(
    source: Any, columns: Mapping[str, str] | None = None, time_format: str | None = None
) -> pl.DataFrame:
    """Events as ``user_id, item_id[, timestamp]``, checked, in order of time (ties keep the order of the rows).

    Timestamps may be numbers (any unit, the same throughout), dates or date-times, see :func:`read_times`; without the
    column, the rows of a user are taken to be in order. Other columns are left out.

    Args:
        time_format: how times in text are written, in the directives of ``strftime``; None is numbers or ISO.

    Raises:
        DataError: see :func:`read_table`; also null or empty ids, or timestamps that are null, unreadable, or readable in
            two ways.
    """
    frame = read_table(source, columns, required=(Columns.USER, Columns.ITEM), what="interaction table")
    frame, faults = checked_events(frame, time_format, called=_renamed(columns))
    refuse(faults, frame.height, "interaction table")
    return frame.sort(Columns.TIMESTAMP, maintain_order=True) if Columns.TIMESTAMP in frame.columns else frame


def checked_events(
    frame: pl.DataFrame,
    time_format: str | None,
    rows: Rows = ALL,
    as_text: Collection[str] = (),
    called: Mapping[str, str] | None = None,
) -> tuple[pl.DataFrame, list[Fault]]:
    """``user_id, item_id[, timestamp]`` in types of ours, and what is wrong with them.

    Args:
        frame: has the first two of these columns.
        rows: their numbers, where they are part of a longer table.
        as_text: ids that are text though all of these are whole numbers.
        called: what messages call columns of ids that have another name in the table.
    """
    timed = Columns.TIMESTAMP in frame.columns
    kept = [Columns.USER, Columns.ITEM, *([Columns.TIMESTAMP] if timed else [])]
    frame, faults = _checked_ids(frame.select(kept), (Columns.USER, Columns.ITEM), rows, as_text, called)
    if timed:
        times, more = read_times(frame[Columns.TIMESTAMP], time_format, rows)
        frame, faults = frame.with_columns(times.alias(Columns.TIMESTAMP)), faults + more
    elif time_format is not None:
        says = f"time_format is {time_format!r}, but there is no column {Columns.TIMESTAMP!r}"
        faults.append(Fault(says, name=says))
    return frame, faults


def refuse(faults: Iterable[Fault], height: int, what: str) -> None:
    """Tell all that is wrong with a table of ``height`` rows.

    Raises:
        DataError: there is something.
    """
    if problems := [found.text(height) for found in together(faults)]:
        raise DataError(f"the {what} has problems:\n" + bullet_list(problems))


def read_items(source: Any, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Items as ``item_id, text`` and whatever columns the table has besides; one row an item.

    Texts are cleaned: HTML tags and entities are taken out and white space folded. Columns that a model folder cannot keep
    are left out with a warning.

    Raises:
        DataError: see :func:`read_table`; also null, empty or repeated ids, and items without text.
    """
    mend = "give them at least a title, a category or their id as text"
    return read_texts(source, columns, Columns.ITEM, ("item", "items"), mend)


def read_texts(
    source: Any, columns: Mapping[str, str] | None, key: str, called: tuple[str, str], mend: str
) -> pl.DataFrame:
    """Rows that have an id and a text, as of items: see :func:`read_items`.

    Args:
        key: the column of the ids.
        called: what a row is in messages, and several of them.
        mend: what helps rows without text.
    """
    what, many = called
    frame = read_table(source, columns, required=(key, Columns.TEXT), what=f"{what} table")
    frame, problems = with_ids(_keepable(frame, key, what), (key,), _renamed(columns))
    ids = frame[key]
    repeated = ids.filter(ids.is_duplicated() & ids.is_not_null()).unique(maintain_order=True)
    if repeated.len():
        problems.append(
            f"{repeated.len()} {what} ids have more than one row (expected one each): {first_few(repeated)}; "
            f"keep one with .unique('{key}')"
        )
    texts = [clean_text(text) for text in _as_text(frame[Columns.TEXT], what)]
    bare = [item for item, text in zip(ids, texts, strict=True) if not text]
    if bare:
        problems.append(f"{len(bare)} {many} have no text: {first_few(bare)}; {mend}")
    if problems:
        raise DataError(f"the {what} table has problems:\n" + bullet_list(problems))
    return frame.with_columns(pl.Series(Columns.TEXT, texts, pl.String))


def _keepable(frame: pl.DataFrame, key: str, what: str) -> pl.DataFrame:
    """A table without the columns that cannot be written with a model; categories and nothing but nulls as text."""
    ours = (key, Columns.TEXT)
    left_out = {n: f"type {t}" for n, t in frame.schema.items() if n not in ours and not _is_keepable(t)}
    left_out |= {name: "a name of the library's own" for name in (COUNT, RECOMMENDABLE) if name in frame.columns}
    if left_out:
        told = ", ".join(f"{name!r} ({why})" for name, why in left_out.items())
        logger.warning("columns of the %s table that a model cannot keep are left out: %s", what, told)
    as_text = [n for n, t in frame.schema.items() if n not in left_out and t in (pl.Categorical, pl.Enum, pl.Null)]
    return frame.drop(left_out).with_columns(pl.col(as_text).cast(pl.String))


def _is_keepable(kind: Any) -> bool:
    if isinstance(kind, pl.Struct):
        return bool(kind.fields) and all(_is_keepable(field.dtype) for field in kind.fields)
    if isinstance(kind, pl.List | pl.Array):
        return _is_keepable(kind.inner)
    return kind != pl.Object


def _as_text(column: pl.Series, what: str) -> Iterator[str | None]:
    """A column of texts, numbers, or (lists of) lists of them, as texts."""
    kind: Any = column.dtype
    while isinstance(kind, pl.List | pl.Array):
        kind = kind.inner
    if kind in (pl.Binary, pl.Object) or isinstance(kind, pl.Struct):
        raise DataError(f"the {what} table's text has type {column.dtype}; expected text, or lists of texts")
    if kind == column.dtype:
        yield from (column.fill_nan(None) if column.dtype.is_float() else column).cast(pl.String)
    else:
        yield from (" ".join(_leaves(value)) for value in column.to_list())


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)


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


def with_ids(
    frame: pl.DataFrame, id_columns: tuple[str, ...], called: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, list[str]]:
    """The table with ids as Int64 or text, and what is wrong with them; ``called`` as in :func:`checked_events`."""
    frame, faults = _checked_ids(frame, id_columns, called=called)
    return frame, [found.text(frame.height) for found in faults]


def _checked_ids(
    frame: pl.DataFrame,
    id_columns: tuple[str, ...],
    rows: Rows = ALL,
    as_text: Collection[str] = (),
    called: Mapping[str, str] | None = None,
) -> tuple[pl.DataFrame, list[Fault]]:
    """The table with ids as Int64 or text, and what is wrong with them."""
    faults: list[Fault] = []
    for name in id_columns:
        column, more = _ids(frame[name], (called or {}).get(name, name), rows, name in as_text)
        frame, faults = frame.with_columns(column), faults + more
    return frame, faults


def _ids(column: pl.Series, name: str, rows: Rows, as_text: bool) -> tuple[pl.Series, list[Fault]]:
    faults, remedy = list[Fault](), "drop or fill them"
    column = as_ids(column, as_text)
    if column.null_count():
        faults.append(fault(f"{name} is null", remedy, column.is_null(), rows))
    if column.dtype == pl.String:
        empty = (column.str.strip_chars() == "").fill_null(False)
        if empty.any():
            faults.append(fault(f"{name} is empty", remedy, empty, rows))
    elif column.dtype != pl.Int64:
        if column.dtype != pl.Null and len(column):
            odd = column.is_not_null()
            if column.dtype.is_float():
                odd &= (column != column.round()) | (column.is_not_nan() & (column.abs() >= spellable(column.dtype)))
            row = int(odd.arg_true().head(1).sum())
            expected = f"expected text or whole numbers (row {rows[row]} holds {shown_cell(column, row)}; cast it first)"
            says = f"{name} has type {column.dtype}"
            faults.append(Fault(f"{says}; {expected}", name=says))
        column = pl.Series(column.name, [None] * len(column), pl.String)
    return column, faults


def as_ids(column: pl.Series, as_text: bool = False) -> pl.Series:
    """A column of ids as Int64 or text; one of other things as it is."""
    if column.dtype.is_float() and whole(column.fill_nan(None)):  # pandas makes floats of whole numbers with gaps
        return column.fill_nan(None).cast(pl.Int64)
    if column.dtype.is_integer():
        return column.cast(pl.String if as_text or not fits(column) else pl.Int64)
    return column.cast(pl.String) if column.dtype in (pl.Categorical, pl.Enum) else column


def fits(numbers: pl.Series) -> bool:
    """Whether whole numbers fit into Int64."""
    return numbers.cast(pl.Int64, strict=False).null_count() == numbers.null_count()
