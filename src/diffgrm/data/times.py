"""Times as users write them: numbers, ISO dates and date-times, or a format that they name."""

from __future__ import annotations

import logging

import polars as pl

from diffgrm.foundation.schema import first_few

logger = logging.getLogger(__name__)

ISO = (
    r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})"
    r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?)? ?(Z|UTC|[+-]\d{2}:?\d{2})?$"
)
DAY_MONTH = [  # what may be read both ways
    f"{first}{mark}{second}{mark}%Y{clock}"
    for mark in ("/", ".", "-")
    for first, second in (("%d", "%m"), ("%m", "%d"))
    for clock in ("", " %H:%M", " %H:%M:%S")
]
FIRST_YEAR = 1000  # polars takes 19 for the year 19 where a format has %Y
REMEDY = (
    "write numbers or ISO (2024-01-31, 2024-01-31T09:30:00; an offset in all rows or in none), or name the format, for "
    "example time_format='%m/%d/%Y %I:%M:%S %p' (command line: --time-format)"
)


def read_times(column: pl.Series, time_format: str | None = None) -> tuple[pl.Series, list[str]]:
    """Times that can be put in order, and what is wrong with the column.

    Args:
        column: numbers of any unit, dates, date-times, or texts: numbers, ISO, or days and months in an order that the
            column itself shows (a 31 can only be a day).
        time_format: how texts (or whole numbers such as 20240131) are written, in the directives of ``strftime``.
    """
    if column.dtype == pl.Null:
        return column, [_unreadable(column, column.is_null())]
    if column.dtype in (pl.Categorical, pl.Enum) or (time_format is not None and column.dtype.is_integer()):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        texts = column.str.strip_chars()
        found, problem = _in_format(texts, time_format) if time_format is not None else _from_texts(texts)
        if problem is None and found.null_count():
            problem = _unreadable(column, found.is_null())
        if problem is not None:
            return found, [problem]
    elif time_format is not None:
        return column, [f"time_format is {time_format!r}, but timestamp has type {column.dtype} already; leave it out"]
    else:
        found = column
    if not (found.dtype.is_numeric() or found.dtype in (pl.Date, pl.Datetime, pl.Duration)):
        return found, [f"timestamp has type {found.dtype}; expected numbers, dates or date-times"]
    bad = found.is_null() | (~found.is_finite() if found.dtype.is_float() else False)
    return found, [_unreadable(column, bad)] if bad.any() else []


def _unreadable(column: pl.Series, bad: pl.Series) -> str:
    rows = bad.arg_true()
    values = first_few(repr(value) for value in column.filter(bad).unique(maintain_order=True))
    return f"timestamp is null or unreadable in {rows.len()} rows (rows {first_few(rows)}): {values}; {REMEDY}"


def _in_format(texts: pl.Series, time_format: str) -> tuple[pl.Series, str | None]:
    found, rows = _parsed(texts, time_format), texts.drop_nulls()
    if found.null_count() == len(found) and len(rows):
        return found, f"no timestamp reads as time_format={time_format!r}: the first is {rows[0]!r}; {REMEDY}"
    return found, None


def _parsed(texts: pl.Series, time_format: str) -> pl.Series:
    try:
        found = texts.str.to_datetime(time_format, strict=False)
    except pl.exceptions.PolarsError:
        return pl.Series([None] * len(texts), dtype=pl.Datetime)
    return pl.select(pl.when(found.dt.year() >= FIRST_YEAR).then(found)).to_series()


def _from_texts(texts: pl.Series) -> tuple[pl.Series, str | None]:
    """The reading that reads the most rows, whole numbers before decimal ones before ISO; or why it cannot be chosen."""
    plain = pl.select(pl.when(texts.str.contains(r"^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$")).then(texts)).to_series()
    readings = [plain.cast(pl.Int64, strict=False), plain.cast(pl.Float64, strict=False), _iso(texts)]
    best = min(readings, key=pl.Series.null_count)
    by_format = {name: _parsed(texts, name) for name in DAY_MONTH} if best.null_count() == len(texts) else {}
    fewest = min(map(pl.Series.null_count, by_format.values()), default=len(texts))
    fitting = {name: found for name, found in by_format.items() if found.null_count() == fewest < len(texts)}
    if not fitting:
        return best, None
    first, *others = fitting.values()
    if any(not first.equals(other) for other in others):
        names = " and as ".join(repr(name) for name in fitting)
        return first, (
            f"timestamp can be read as {names}: the first is {texts.drop_nulls()[0]!r}; say which with time_format= "
            "(command line: --time-format), or write ISO (2024-01-31)"
        )
    if fewest == 0:
        logger.info("times are read as %s", next(iter(fitting)))
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
