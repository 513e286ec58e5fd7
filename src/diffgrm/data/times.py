"""Times as users write them: numbers, ISO dates and date-times, or a format that they name; and as seconds from 1970."""

from __future__ import annotations

import logging
import re

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.faults import ALL, Fault, Rows, fault

logger = logging.getLogger(__name__)

ISO = (
    r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})"
    r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?)? ?(Z|UTC|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?$"
)
DAY_MONTH = [  # what may be read both ways
    f"{first}{mark}{second}{mark}%Y{clock}"
    for mark in ("/", ".", "-")
    for first, second in (("%d", "%m"), ("%m", "%d"))
    for clock in ("", " %H:%M", " %H:%M:%S")
]
A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # has so many of these units
A_DAY = 86400  # has so many seconds
FIRST, LAST = -62_135_596_800, 253_402_300_799  # seconds from 1970 of the first and last moment that dates have
DIRECTIVE = r"%[-_0]?([a-zA-Z%])"  # one without a width
UNREAD = {  # directives that polars reads and passes over, or takes for something else, and what to write
    "Z": "names of zones tell no offset; write offsets and %z, or, where all rows have one name, that name in place of %Z",
    "f": "the digits would be read as nanoseconds; write %.f in place of .%f (%S%.f reads 07.5), or %6f for six digits",
}
FIRST_YEAR = 1000  # polars takes 19 for the year 19 where a format has %Y
REMEDY = (
    "write numbers or ISO (2024-01-31, 2024-01-31T09:30:00; an offset in all rows or in none), or name the format, for "
    "example time_format='%m/%d/%Y %I:%M:%S %p' (command line: --time-format)"
)


def read_times(
    column: pl.Series, time_format: str | None = None, rows: Rows = ALL, others: pl.Series | None = None
) -> tuple[pl.Series, list[Fault]]:
    """Times that can be put in order, and what is wrong with the column.

    Args:
        column: numbers of any unit, dates, date-times, or texts: numbers, ISO, or days and months in an order that the
            column itself shows (a 31 can only be a day).
        time_format: how texts (or whole numbers such as 20240131) are written, in the directives of ``strftime``.
        rows: their numbers, where the column is part of a longer one; see :func:`whole_column`.
        others: what else the longer one holds, whatever that is. Where the column can be read in several ways, those are
            left that read all of the others that any of them reads.
    """
    column = column.rechunk()  # of a series with an empty chunk, polars formats no texts: it panics
    if column.dtype == pl.Null:
        return column, [_unreadable(column, column.is_null(), rows)] if len(column) else []
    if column.dtype in (pl.Categorical, pl.Enum) or (time_format is not None and column.dtype.is_integer()):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        texts = column.str.strip_chars()
        others = texts.clear() if others is None else others.cast(pl.String).str.strip_chars()
        if time_format is None:
            found, problem = _from_texts(texts, others)
        elif (problem := _unread(time_format)) is None:
            found = _parsed(texts, time_format)
        else:
            found = texts
        if problem is not None:
            return found, [Fault(problem, name=problem)]
        if found.null_count():
            return found, [_unreadable(column, found.is_null(), rows, time_format)]
    elif time_format is not None:
        says = f"time_format is {time_format!r}, but timestamp has type {column.dtype} already; leave it out"
        return column, [Fault(says, name=says)]
    else:
        found = column
    if not (found.dtype.is_numeric() or found.dtype in (pl.Date, pl.Datetime, pl.Duration)):
        says = f"timestamp has type {found.dtype}; expected numbers, dates or date-times"
        return found, [Fault(says, name=says)]
    bad = found.is_null() | (~found.is_finite() if found.dtype.is_float() else False)
    return found, [_unreadable(column, bad, rows)] if bad.any() else []


def in_seconds(times: np.ndarray, kind: pl.DataType | None, unit: str) -> np.ndarray:
    """[N] int64 seconds from 1970, rounded down.

    Args:
        times: numbers; kind: what they are of (dates and date-times know their unit, and are in UTC).
        unit: of plain numbers: s, ms, us, ns or day.

    >>> in_seconds(np.array([1500, -1]), pl.Datetime("ms"), "s").tolist(), in_seconds(np.array([1.5]), None, "day").tolist()
    ([1, -1], [129600])
    """
    if kind == pl.Date:
        unit = "day"
    elif isinstance(kind, pl.Datetime | pl.Duration):
        unit = kind.time_unit
    if unit == "s" and times.dtype == np.int64:
        return times
    found = mapped.room(len(times), np.int64)
    for start in range(0, len(times), mapped.BLOCK):
        block = times[start : start + mapped.BLOCK]
        block = block if block.dtype.kind == "f" else block.astype(np.int64)
        scaled = block * A_DAY if unit == "day" else block // A_SECOND[unit]
        found[start : start + mapped.BLOCK] = np.floor(scaled)
    return found


def whole_column(kind: pl.DataType, time_format: str | None) -> bool:
    """Whether how times are written is only told by all of them: texts without a format."""
    return time_format is None and kind in (pl.String, pl.Categorical, pl.Enum)


def _unreadable(column: pl.Series, bad: pl.Series, rows: Rows, time_format: str | None = None) -> Fault:
    values, if_all = column.filter(bad).unique(maintain_order=True), ""
    if time_format is not None and len(given := values.drop_nulls()):
        first = given[0].strip()
        if_all = f"no timestamp reads as time_format={time_format!r}: the first is {first!r}; {REMEDY}"
    return fault("timestamp is null or unreadable", REMEDY, bad, rows, map(repr, values.to_list()), if_all)


def _unread(time_format: str) -> str | None:
    """What is wrong with a format of which a part would be passed over; None: nothing."""
    for name in re.findall(DIRECTIVE, time_format):
        if name in UNREAD:
            return f"time_format={time_format!r} has %{name}: {UNREAD[name]}"
    return None


def _parsed(texts: pl.Series, time_format: str) -> pl.Series:
    try:
        found = texts.str.to_datetime(time_format, strict=False)
    except pl.exceptions.PolarsError:
        return pl.Series([None] * len(texts), dtype=pl.Datetime)
    return pl.select(pl.when(found.dt.year() >= FIRST_YEAR).then(found)).to_series()


def _from_texts(texts: pl.Series, others: pl.Series) -> tuple[pl.Series, str | None]:
    """The reading that reads the most rows, whole numbers before decimal ones before ISO; or why it cannot be chosen."""
    plain = pl.select(pl.when(texts.str.contains(r"^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$")).then(texts)).to_series()
    readings = [plain.cast(pl.Int64, strict=False), plain.cast(pl.Float64, strict=False), _iso(texts)]
    best = min(readings, key=pl.Series.null_count)
    by_format = {name: _parsed(texts, name) for name in DAY_MONTH} if best.null_count() == len(texts) else {}
    fewest = min(map(pl.Series.null_count, by_format.values()), default=len(texts))
    fitting = {name: found for name, found in by_format.items() if found.null_count() == fewest < len(texts)}
    if not fitting:
        return best, None
    read = pl.DataFrame({name: _parsed(others, name).is_not_null() for name in fitting})
    settled = [name for name in fitting if read[name].equals(read.max_horizontal())]
    first, *more = (fitting[name] for name in settled or fitting)
    if any(not first.equals(other) for other in more):
        names = " and as ".join(repr(name) for name in fitting)
        return first, (
            f"timestamp can be read as {names}: the first is {texts.drop_nulls()[0]!r}; say which with time_format= "
            "(command line: --time-format), or write ISO (2024-01-31)"
        )
    if fewest == 0:
        logger.info("times are read as %s", next(iter(settled or fitting)))
    return first, None


def _iso(texts: pl.Series) -> pl.Series:
    """Dates and date-times; those with an offset in UTC. Texts without an offset are null where others have one."""
    part = texts.to_frame("text").select(pl.col("text").str.extract_groups(ISO).struct.unnest())
    year, month, day, hour, minute, second, offset = (pl.col(name) for name in part.columns)
    clock = pl.format("{}:{}:{}", hour.fill_null("0"), minute.fill_null("00"), second.fill_null("00"))
    moment = pl.format("{}-{}-{} {}", year, month, day, clock).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False)
    signed = offset.str.replace(":", "", literal=True).str.replace("^(Z|UTC)$", "+0000")
    minutes = signed.str.slice(1, 2).cast(pl.Int32) * 60 + signed.str.slice(3, 2).cast(pl.Int32)
    shift = pl.duration(minutes=pl.when(signed.str.starts_with("-")).then(-minutes).otherwise(minutes))
    if part[part.columns[-1]].null_count() == len(texts):
        return part.select(moment).to_series()
    return part.select(pl.when(offset.is_not_null()).then(moment - shift)).to_series()
