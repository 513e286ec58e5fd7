"""What is meant by a value that YAML has read, where a type hint says what may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic_core import PydanticCustomError

from diffgrm.foundation.yaml_text import spelled


def as_meant(value: Any, hint: Any) -> Any:
    """A value as the text that it was written as, where a hint allows that text; and no truth value for a number.

    >>> as_meant(True, Literal["on", "off"]), as_meant(True, bool), as_meant((1, 2), tuple[int, ...])
    ('on', True, (1, 2))

    Raises:
        PydanticCustomError: a truth value, alone or in a list or mapping, where a hint allows numbers and none of those.
    """
    value = spelled(value, hint)
    kinds = set(_kinds(hint))
    if kinds & {int, float} and not kinds & {bool, Any} and any(isinstance(one, bool) for one in _single(value)):
        # the word that pydantic has for what a function refuses would stand before the message
        raise PydanticCustomError("number", "expected a number, found a truth value (true, false, yes, no, on or off)")
    return value


def _kinds(hint: Any) -> Iterator[Any]:
    """The plain types that a hint is made of."""
    if get_origin(hint) is Literal:
        yield from map(type, get_args(hint))
    elif inner := get_args(hint):
        for part in inner:
            yield from _kinds(part)
    else:
        yield hint


def _single(value: Any) -> Iterator[Any]:
    """The single values in a value."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _single(one)
    else:
        yield value
