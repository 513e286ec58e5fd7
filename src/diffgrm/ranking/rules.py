"""Rules: what people want of a list besides what is likeliest, as one value.

A list under rules is defined on the ranking of a user, that is all items that the user may get (``only``, ``without``,
``where``, the history), best score first:

1. ``where`` is a filter as ``only`` is: the search is among the items that meet it.
2. ``boosts`` are added to scores, in the units of the recommender's scores (log-probabilities of generated items; of item
   scores, what its scorers say). An addition is well defined for any score; a factor would lower items of negative score.
3. ``pins`` stand at their places. One that the user may not get leaves its place to the ranking; those of places behind the
   end of the list stand at its end, in their order.
4. ``minimum`` holds places free for the best items of a set, so that at least ``count`` of the list are of it.
5. Place by place, the best item is taken that is not there yet and that ``caps`` still allow; with ``diversity`` the one of
   largest maximal marginal relevance (Carbonell and Goldstein, 1998), as far as it is among the best ``depth`` items:

       (1 - diversity) * relevance(i) - diversity * max over items j of the list so far of similarity(i, j)

   Their relevance is their score, brought to 0..1 among them; that scaling is our reading, for the paper's relevance is a
   similarity. The similarity is the one that ``similar_items`` goes by. Pins are in the list from the beginning.

No item is passed over to make a list longer: with caps on several columns, another choice might have filled more places.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from diffgrm.foundation.model_keys import misspelt
from diffgrm.foundation.plain_values import ID_SCHEMA, LARGEST_NUMBER, LONGEST_ID, ItemId, Scalar
from diffgrm.foundation.schema import DataError, bullet_list, readable
from diffgrm.foundation.storage import regular
from diffgrm.foundation.yaml_text import LONGEST, YamlError, read_yaml, text_of

LAST_PLACE, DEEPEST = 1_000, 2**20
_PLACES = {"type": "object", "propertyNames": {"pattern": "^[1-9][0-9]{0,2}$|^1000$"}, "additionalProperties": ID_SCHEMA}


def _places(value: object) -> object:
    """Places as JSON writes them, which has only texts for keys, are numbers."""
    if not isinstance(value, Mapping):
        return value
    written = {str(place): place for place in range(1, LAST_PLACE + 1)}
    return {written.get(place, place) if isinstance(place, str) else place: item for place, item in value.items()}


Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]


class Rule(BaseModel):
    """A part of the rules: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Condition(Rule):
    """What a value of a column must be; a missing value meets no condition."""

    min: Annotated[Number | None, Field(description="numbers from this on")] = None
    max: Annotated[Number | None, Field(description="numbers up to this")] = None
    among: Annotated[
        tuple[Scalar, ...] | None,
        Field(
            alias="in",
            min_length=1,
            max_length=10_000,
            strict=False,
            description="one of these; of a list, any of its values",
        ),
    ] = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None and self.among is None:
            raise ValueError("a condition says nothing; give min, max or in")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}; no value is both")
        return self


Column = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Where = Annotated[dict[Column, Condition], Field(max_length=32)]
Items = Annotated[tuple[ItemId, ...], Field(max_length=10_000, strict=False)]


class Chosen(Rule):
    """Items by their ids, and those whose columns meet all conditions."""

    items: Annotated[Items, Field(description="items by their ids")] = ()
    where: Annotated[Where, Field(description="items whose columns meet all of these conditions")] = {}

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.items and not self.where:
            raise ValueError("no item is named; give items, or where with conditions on columns")
        return self


class Boost(Chosen):
    """What is added to the scores of some items."""

    by: Annotated[float, Field(ge=-1e6, le=1e6, description="what is added to the score, in its units; below 0 lowers")]

    @model_validator(mode="after")
    def _adds_something(self) -> Self:
        if self.by == 0:
            raise ValueError("by is 0, which changes no score; give another number, or leave the boost out")
        return self


class Minimum(Chosen):
    """How many items of a list must be of a set, as far as there are so many that the user may get."""

    count: Annotated[int, Field(ge=1, le=LAST_PLACE, description="items of the list, at least")]


class Rules(Rule):
    """What people want of a list besides what is likeliest."""

    where: Annotated[Where, Field(description="only items whose columns meet all of these conditions")] = {}
    caps: Annotated[
        dict[Column, Annotated[int, Field(ge=1, le=LAST_PLACE)]],
        Field(
            max_length=16, description="column -> most items of the list with the same value; missing values are not capped"
        ),
    ] = {}
    boosts: Annotated[
        tuple[Boost, ...],
        Field(max_length=100, strict=False, description="items to lift or lower; where several match, their sum"),
    ] = ()
    pins: Annotated[
        dict[Annotated[int, Field(ge=1, le=LAST_PLACE)], ItemId],
        BeforeValidator(_places),
        WithJsonSchema(_PLACES),
        Field(description="place of the list (from 1) -> the item that stands there"),
    ] = {}
    pin_seen: Annotated[bool, Field(description="pin items of the user's history too")] = False
    minimum: Annotated[Minimum | None, Field(description="at least so many of the list are of a set")] = None
    diversity: Annotated[
        float, Field(ge=0, le=1, description="what likeness to items above counts for beside the score; 0: nothing")
    ] = 0.0
    depth: Annotated[
        int,
        Field(
            ge=1,
            le=DEEPEST,
            description="best items of the ranking that diversity chooses from, and boosts where the search itself cannot",
        ),
    ] = 100
    deepest: Annotated[
        int | None,
        Field(ge=1, le=DEEPEST, description="most items of the ranking that are looked at to fill a list; null: all"),
    ] = None
    _used_by: ClassVar[dict[str, tuple[str, ...]]] = {"depth": ("diversity", "boosts"), "pin_seen": ("pins",)}

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        changed = {name for name in type(self).model_fields if getattr(self, name) != type(self).model_fields[name].default}
        problems = [
            f"{name} = {getattr(self, name)} does nothing without {' or '.join(users)}; leave it out"
            for name, users in self._used_by.items()
            if name in changed and not changed & set(users)
        ]
        if self.deepest is not None and self.deepest < self.depth and "depth" in changed:
            problems.append(f"deepest = {self.deepest} is less than depth = {self.depth}; raise it, or lower depth")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """As :func:`read_rules` reads it again; the same text for the same rules."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    @property
    def sets(self) -> dict[str, Chosen]:
        """All sets of items, by where they stand."""
        named: dict[str, Chosen] = {f"boosts.{place}": boost for place, boost in enumerate(self.boosts)}
        return named if self.minimum is None else {**named, "minimum": self.minimum}

    @property
    def size(self) -> int:
        """Ids and values that are named, with repeats."""
        conditions = [*self.where.values(), *(found for chosen in self.sets.values() for found in chosen.where.values())]
        ids = len(self.pins) + sum(len(chosen.items) for chosen in self.sets.values())
        return ids + sum(len(condition.among or ()) for condition in conditions)


def read_rules(source: Any) -> Rules | None:
    """Rules in any form in which they are given; None where they ask for nothing, as a file may not.

    >>> read_rules({"where": {"stock": {"min": 3}}, "caps": {"brand": 2}, "pins": {"1": "item 27"}}).to_json()
    '{"where":{"stock":{"min":3.0}},"caps":{"brand":2},"pins":{"1":"item 27"}}'

    Args:
        source: rules, a mapping of them, the path of a YAML or JSON file, or None.

    Raises:
        DataError: anything else, a file that cannot be read or holds no rules, or rules that cannot be; all problems at
            once.
    """
    if isinstance(source, str | Path):
        found = _given(_file(Path(source)))
        if found is None:
            raise DataError(f"the file {source} holds no rules; write some, or give no file")
        return found
    return _given(source)


def _given(source: Any) -> Rules | None:
    """Rules of a mapping, or as they are."""
    if source is None:
        return None
    if not isinstance(source, Rules):
        if not isinstance(source, Mapping):
            raise DataError(
                f"rules are {type(source).__name__}; expected diffgrm.Rules, a mapping of them, or the path of a YAML file"
            )
        try:
            source = Rules.model_validate(dict(source))
        except ValidationError as error:
            problems = bullet_list(_problem(found) for found in error.errors())
            raise DataError(f"the rules have problems:\n{problems}") from None
    return source if source != Rules() else None


def _file(path: Path) -> Any:
    try:
        return read_yaml(text_of(regular(path, 4 * LONGEST)))
    except (OSError, YamlError) as error:
        raise DataError(f"the rules cannot be read from {path}: {error}") from error


def _problem(error: Mapping[str, Any]) -> str:
    """What pydantic found, with its place.

    >>> _problem({"type": "extra_forbidden", "loc": ("cap",), "msg": ""})
    "cap: there is no such rule; did you mean 'caps'?"
    """
    place = error["loc"]
    path = ".".join(map(str, place)) or "rules"
    if place and place[-1] == "[key]" and place[0] == "pins":
        return f"pins: {place[1]!r} is no place; expected a whole number from 1 to {LAST_PLACE:,}"
    if error["type"] != "extra_forbidden":
        return f"{path}: {readable(error)}"
    return f"{path}: there is no such rule{misspelt(Rules, place)}"
