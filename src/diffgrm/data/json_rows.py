"""Tables written as JSON: an object a line, or one list of objects."""

from __future__ import annotations

import json
import re
from typing import Any

import polars as pl

from diffgrm.data.columns import frame_of
from diffgrm.data.delimited import SHOWN, utf8
from diffgrm.foundation.schema import DataError, bullet_list

HALF_A_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)  # an escaped surrogate without its other half
FIRST_LINE = re.compile(rb"\s*([^\n]*)\s*")  # and the blank ones around it


def read_json_rows(content: bytes, where: str) -> pl.DataFrame:
    """A table of objects, one a line (blank lines are passed over) or in one list.

    Values that polars cannot hold (numbers beyond 128 bits, several kinds in one column) become text.

    Args:
        where: how messages call the file.

    Raises:
        DataError: what is not JSON, or not objects, with the lines.
    """
    content = utf8(content, where)
    listed = content.lstrip().startswith(b"[")
    if not listed and content.strip():
        if _is_one_object(content):
            raise DataError(
                f"{where} is one JSON object that holds the whole table; expected one object a line, or one list of "
                'objects, as pandas writes with frame.to_json("x.jsonl", orient="records", lines=True)'
            )
        try:
            if HALF_A_PAIR.search(content) is None:  # polars reads one as a NUL, and loses it
                return pl.read_ndjson(content, infer_schema_length=None)
        except pl.exceptions.PolarsError:
            pass  # Python tells which line it is, or reads what polars cannot
    return frame_of(_list(content, where) if listed else _lines(content, where))


def _is_one_object(content: bytes) -> bool:
    """Whether this is one object over several lines, or one that has no plain value, as every row with an id has."""
    first = FIRST_LINE.match(content)
    assert first is not None
    alone = first.end() == len(content)
    if not alone and first[1].rstrip().endswith(b"}"):
        return False
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and not (alone and any(not isinstance(v, list | dict) for v in found.values()))


def _list(content: bytes, where: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not a JSON list: {error}") from error
    if strange := [place for place, row in enumerate(rows) if not isinstance(row, dict)]:
        raise DataError(
            f"{where} is a JSON list, but its entry {strange[0]} is {rows[strange[0]]!r:.60}; expected an object a row"
        )
    return rows


def _lines(content: bytes, where: str) -> list[dict[str, Any]]:
    rows, problems = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number} is not JSON: {error}")
        else:
            if isinstance(row, dict):
                rows.append(row)
            else:
                problems.append(f"line {number} is {row!r:.60}; expected an object, {{column: value}}")
    if problems:
        more = [f"and {len(problems) - SHOWN} lines more"] if len(problems) > SHOWN else []
        raise DataError(
            f"{where} could not be read (expected a JSON object a line, or one list of objects):\n"
            + bullet_list(problems[:SHOWN] + more)
        )
    return rows
