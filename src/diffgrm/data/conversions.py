"""Values as those of a column that is there already, where nothing of them is changed or lost.

Columns of a user's own table (:func:`as_kind`) may have another type, as the same things come in another format: whole
numbers of other sizes, numbers with gaps that pandas has as floats, numbers as texts of a CSV. Values of a message in JSON
(:func:`misfit`, :func:`column_of_kind`) have types of their own, and no other spelling is taken for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.columns import shown_cell
from diffgrm.data.ids import whole
from diffgrm.foundation.schema import first_few

TEXTS = (pl.String, pl.Categorical, pl.Enum)
FOUND = {
    bool: "a truth value",
    str: "a text",
    int: "a whole number",
    float: "a number with a point",
    list: "a list",
    dict: "an object",
}


class _UnfitError(Exception):
    """A column has values that the type does not hold as they are."""


def as_kind(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """A column as another type.

    ======================  ==================================================================
    type                    takes, besides its own values
    ======================  ==================================================================
    whole numbers           whole numbers that fit, of any number type; texts that spell them
    floats, decimals        numbers that it tells from others; texts that spell finite numbers
    truth values            the texts ``true`` and ``false``
    texts                   numbers and times, as polars spells them
    dates and times         each other, where nothing is cut off
    lists, structs          lists and structs of such numbers, or of the very type
    ======================  ==================================================================

    Raises:
        ValueError: a value is of another kind or would be changed; with the first one.
    """
    if _fits(column, kind):
        return _converted(column, kind)
    fitting, unfit = 0, len(column)  # so many rows from the beginning fit, and do not
    while unfit - fitting > 1:
        half = (fitting + unfit) // 2
        fitting, unfit = (half, unfit) if _fits(column[:half], kind) else (fitting, half)
    row = fitting
    raise ValueError(
        f"{column.name} is {shown_cell(column, row)} in row {row}; expected values of type {kind}, or leave the column out "
        f"(it has type {column.dtype})"
    )


def _fits(column: pl.Series, kind: pl.DataType) -> bool:
    try:
        _converted(column, kind)
    except (_UnfitError, pl.exceptions.PolarsError):
        return False
    return True


def _converted(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """The column in that type.

    Raises:
        _UnfitError: it does not hold the values as they are.
        PolarsError: likewise.
    """
    if column.dtype == kind:
        return column
    if column.null_count() == len(column):
        return pl.Series(column.name, [None] * len(column), kind)
    if kind.is_nested() or column.dtype.is_nested():
        _check_nested(column, kind)
        return pl.Series(column.name, column.to_list(), kind, strict=False)
    if column.dtype in TEXTS:
        return _read(column.cast(pl.String), kind)
    if kind in TEXTS and (column.dtype.is_numeric() or column.dtype.is_temporal()):
        return column.cast(kind)
    if kind.is_numeric() and column.dtype.is_numeric():
        return _number(column, kind)
    if kind.is_temporal() and _tell_alike(kind, column.dtype):
        return _unchanged(column, column.cast(kind))
    raise _UnfitError


def _tell_alike(one: Any, other: Any) -> bool:
    """Whether two types of times tell the same thing: both moments, in zones or in none, or days."""
    moments = (pl.Date, pl.Datetime)
    if one in moments and other in moments:
        zones = [getattr(kind, "time_zone", None) is not None for kind in (one, other)]
        return zones[0] == zones[1]
    return bool(one.base_type() == other.base_type())


def _check_nested(column: pl.Series, kind: pl.DataType) -> None:
    """Check values of which at least one side is lists or structs, whose numbers may be of other sizes.

    Raises:
        _UnfitError: they do not fit.
    """
    found: Any = column.dtype
    if found == kind or column.null_count() == len(column):
        return
    if isinstance(found, pl.List | pl.Array) and isinstance(kind, pl.List | pl.Array):
        if isinstance(kind, pl.Array) and set(column.drop_nulls().cast(pl.List(found.inner)).list.len()) - {kind.size}:
            raise _UnfitError
        inner = column.drop_nulls().cast(pl.List(found.inner)).explode()
        return _check_nested(inner.drop_nulls(), kind.inner)  # type: ignore[arg-type]
    if isinstance(found, pl.Struct) and isinstance(kind, pl.Struct):
        kinds: dict[str, Any] = {field.name: field.dtype for field in kind.fields}
        for field in found.fields:
            if field.name not in kinds:
                raise _UnfitError
            _check_nested(column.struct.field(field.name), kinds[field.name])
    elif found.is_numeric() and kind.is_numeric() and not kind.is_decimal() and not found.is_decimal():
        _number(column, kind)
    elif (found in TEXTS and kind in TEXTS) or (found.is_temporal() and kind.is_temporal()):
        _converted(column.drop_nulls(), kind)
    else:
        raise _UnfitError


def _number(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """Numbers as those of another type."""
    if column.dtype.is_float() and kind.is_float():  # which round, so that the shorter is the same number as written
        found = column.cast(kind)
        if (found.is_infinite() & column.is_finite()).any():
            raise _UnfitError
        return found
    if column.dtype.is_float() and kind.is_integer() and not whole(column):
        raise _UnfitError
    return _unchanged(column, column.cast(kind))


def _read(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """Texts as what they spell, as text tables have nothing else."""
    if kind in TEXTS:
        return column.cast(kind)
    if kind == pl.Boolean:
        small = column.str.to_lowercase()
        if not small.drop_nulls().is_in(["true", "false"]).all():
            raise _UnfitError
        return small == "true"
    if not kind.is_numeric():
        raise _UnfitError
    found = column.cast(kind)
    if kind.is_decimal():
        _unchanged(column.cast(pl.Float64), found)
    elif kind.is_float():
        if not found.drop_nulls().is_finite().all():
            raise _UnfitError
        numbers = column.cast(pl.Int64, strict=False)
        _unchanged(numbers, pl.select(pl.when(numbers.is_not_null()).then(found)).to_series())
    return found


def _unchanged(column: pl.Series, found: pl.Series) -> pl.Series:
    """What was found, if it is the column again when it goes back to its type.

    Raises:
        _UnfitError: it is not.
    """
    if not found.cast(column.dtype, strict=False).eq_missing(column).all():
        raise _UnfitError
    return found


def misfit(value: Any, kind: Any) -> str | None:
    """What is wrong with a value of JSON for a column; None: nothing, it is held as it is.

    >>> misfit(True, pl.Int64()), misfit(3, pl.Float64()), misfit([1], pl.List(pl.String()))
    ('is a truth value; expected a whole number that Int64 holds', None, 'holds a whole number; expected a list of texts')
    """
    if value is None or _is_of(value, kind):
        return None
    what, inner = FOUND[type(value)], getattr(kind, "inner", None)
    if isinstance(value, list) and inner is not None and (unfit := [v for v in value if misfit(v, inner)]):
        return f"holds {FOUND[type(unfit[0])]}; expected {_described(kind)}"
    return f"is {what}; expected {_described(kind)}"


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is one of a type, which holds it as it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == pl.Boolean:
        return isinstance(value, bool)
    if isinstance(kind, pl.Enum):
        return isinstance(value, str) and value in kind.categories
    if kind in TEXTS:
        return isinstance(value, str)
    if kind.is_integer():
        return number and isinstance(value, int) and value in _range(kind)
    if kind.is_float():
        return number and _float_holds(value, np.float32 if kind == pl.Float32 else np.float64)
    if kind.is_decimal():
        return number and _decimal_holds(value, kind)
    if isinstance(kind, pl.Array):
        return isinstance(value, list) and len(value) == kind.size and not any(misfit(v, kind.inner) for v in value)
    if isinstance(kind, pl.List):
        return isinstance(value, list) and not any(misfit(v, kind.inner) for v in value)
    if isinstance(kind, pl.Struct):
        kinds = {field.name: field.dtype for field in kind.fields}
        return isinstance(value, dict) and all(n in kinds and not misfit(v, kinds[n]) for n, v in value.items())
    return False


def _range(kind: pl.DataType) -> range:
    bits = int("".join(filter(str.isdigit, str(kind))))
    return range(2**bits) if kind.is_unsigned_integer() else range(-(2 ** (bits - 1)), 2 ** (bits - 1))


def _float_holds(value: int | float, kind: Any) -> bool:
    """Whether a type of floats has a whole number, or a number of that size."""
    with np.errstate(over="ignore"):
        found = float(kind(value))
    return math.isfinite(found) and (isinstance(value, float) or int(found) == value)


def _decimal_holds(value: int | float, kind: Any) -> bool:
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    behind = max(0, -int(exponent))
    return behind <= kind.scale and len(digits) + max(0, int(exponent)) - behind <= (kind.precision or 38) - kind.scale


def _described(kind: Any, many: bool = False) -> str:
    """What a column takes, or lists in it."""
    a, s = ("", "s") if many else ("a ", "")
    if kind == pl.Boolean:
        return "true or false"
    if isinstance(kind, pl.Enum):
        return f"{'' if many else 'one of '}{first_few(map(repr, kind.categories))}"
    if kind in TEXTS:
        return f"{a}text{s}"
    if kind.is_numeric():
        exactly = " exactly" if kind.is_decimal() else ""
        return f"{a}{'whole ' if kind.is_integer() else ''}number{s} that {kind} holds{exactly}"
    if isinstance(kind, pl.List | pl.Array):
        size = f"{kind.size} " if isinstance(kind, pl.Array) else ""
        return f"{a}list{s} of {size}{_described(kind.inner, many=True)}"
    if isinstance(kind, pl.Struct):
        return f"{'' if many else 'an '}object{s} with " + ", ".join(
            f"{f.name}: {_described(f.dtype)}" for f in kind.fields
        )
    return f"null, for JSON has no values of type {kind}"


def column_of_kind(name: str, values: Sequence[Any], kind: pl.DataType) -> pl.Series:
    """Values of JSON, none of them a :func:`misfit`, as a column of a type."""
    if kind.is_decimal():
        values = [None if value is None else Decimal(repr(value)) for value in values]
    return pl.Series(name, values, kind, strict=False)
