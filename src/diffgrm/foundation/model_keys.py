"""The keys that a pydantic model takes at a place within it, for hints on misspelt ones."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from diffgrm.foundation.schema import did_you_mean


def misspelt(kind: Any, place: Sequence[str | int]) -> str:
    """A hint for the key at the end of a place, of which a model has none: see :func:`did_you_mean`; empty if unsure.

    Args:
        kind: of the whole.
        place: keys and numbers that lead to the key, as pydantic tells where an error is.
    """
    for part in place[:-1]:
        kind = _inside(_bare(kind), part)
    fields = _fields(_bare(kind))
    return did_you_mean(str(place[-1]), fields) if fields else ""


def _bare(kind: Any) -> Any:
    """A type without what is said besides, and without null."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next((one for one in get_args(kind) if one is not type(None)), None)
    return kind


def _fields(kind: Any) -> dict[str, Any]:
    """The types of a model's fields by the keys that they are given by; none of what is no model."""
    if not isinstance(kind, type) or not issubclass(kind, BaseModel):
        return {}
    return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}


def _inside(kind: Any, part: str | int) -> Any:
    """The type of a field, or of what a list or mapping holds."""
    held = [one for one in get_args(kind) if one is not Ellipsis]
    return _fields(kind).get(str(part), held[-1] if held else None)
