"""Ids and single values as JSON and YAML have them, checked where they come in."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

LONGEST_ID = 256  # characters
WHOLE = range(-(2**63), 2**63)  # whole numbers that a table holds
LARGEST_NUMBER = 2**53  # up to which floats tell whole numbers apart


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
