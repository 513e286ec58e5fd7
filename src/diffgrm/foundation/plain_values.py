"""Ids and single values as JSON and YAML have them, checked where they come in."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from diffgrm.foundation.shown import visible

LONGEST_SHOWN = 60  # characters of a key or a value that a message shows
LONGEST_ID = 256  # characters
WHOLE = range(-(2**63), 2**63)  # whole numbers that a table holds
LARGEST_NUMBER = 2**53  # up to which floats tell whole numbers apart


def read_json(content: str | bytes) -> Any:
    """A JSON value in which no object says a key twice; NaN and infinities are numbers here, as in Python.

    >>> read_json('{"k": 3, "k": 1}')
    Traceback (most recent call last):
    ValueError: an object says the key 'k' twice; say it once

    Raises:
        ValueError: it is none, with what is wrong and where.
    """
    try:
        return json.loads(content, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("lists and objects lie too deep within one another") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object says the key {visible(repr(twice[:LONGEST_SHOWN]))} twice; say it once")
    return found


def is_whole(value: object) -> bool:
    """Whether a value is a whole number of 64 bits, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and value in WHOLE


def unbroken(value: str) -> str:
    """A text that is UTF-8 when written.

    Raises:
        ValueError: it is not.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair; send whole characters") from None
    return value


def checked_id(value: object) -> str | int:
    """An id as JSON has it.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and len(value) <= LONGEST_ID:
        return unbroken(value)
    if isinstance(value, int) and is_whole(value):
        return value
    raise ValueError(f"an id is a text of at most {LONGEST_ID} characters or a whole number of 64 bits")


def _scalar(value: object) -> str | int | float | bool:
    if isinstance(value, str) and len(value) <= LONGEST_ID:
        return unbroken(value)
    if isinstance(value, bool) or _is_number(value):
        return value  # type: ignore[return-value]
    raise ValueError(f"a value is a text of at most {LONGEST_ID} characters, a truth value, or a number up to 2^53")


def _is_number(value: object) -> bool:
    """Whether JSON can tell a number from its neighbours; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


WHOLE_SCHEMA = {"type": "integer", "minimum": WHOLE.start, "maximum": WHOLE.stop - 1}
ID_SCHEMA = {"anyOf": [{"type": "string", "maxLength": LONGEST_ID}, WHOLE_SCHEMA]}
_NUMBER_SCHEMA = {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
_SCALAR_SCHEMA = {"anyOf": [{"type": "string", "maxLength": LONGEST_ID}, {"type": "boolean"}, _NUMBER_SCHEMA]}

Id = Annotated[str | int, PlainValidator(checked_id), WithJsonSchema(ID_SCHEMA)]
ItemId = Annotated[Id, AfterValidator(str)]  # which catalogues of whole numbers understand too
Scalar = Annotated[str | int | float | bool, PlainValidator(_scalar), WithJsonSchema(_SCALAR_SCHEMA)]
