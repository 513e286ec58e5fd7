"""What requests tell of histories, over the wire: events, the moment asked for, profiles of users."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from diffgrm.data.asking import is_number
from diffgrm.data.histories import HistoryEvent
from diffgrm.foundation.event_settings import EventSettings, TimeInput, spelled_value
from diffgrm.foundation.model_keys import misspelt
from diffgrm.foundation.plain_values import ID_SCHEMA, LONGEST_ID, ItemId, checked_id, unbroken
from diffgrm.foundation.schema import readable

MOST_COLUMNS = 64  # of which values of an event or of a user are told


def _moment(value: object) -> str | int | float:
    if isinstance(value, str) and len(value) <= LONGEST_ID:
        return unbroken(value)
    if is_number(value):
        return value  # type: ignore[return-value]
    raise ValueError("a time is a text in ISO, such as 2024-01-31T09:30:00, or a finite number")


_MOMENT_SCHEMA = {"anyOf": [{"type": "string", "maxLength": LONGEST_ID}, {"type": "number"}]}
Moment = Annotated[str | int | float, PlainValidator(_moment), WithJsonSchema(_MOMENT_SCHEMA)]


def _category(value: object) -> str | None:
    return spelled_value(value if isinstance(value, bool) or value is None or is_number(value) else checked_id(value))


def _values(value: object) -> dict[str, str | None]:
    if not isinstance(value, dict) or len(value) > MOST_COLUMNS:
        raise ValueError(f"values stand in one object, by at most {MOST_COLUMNS} columns")
    return {str(checked_id(name)): _category(one) for name, one in value.items()}


_CATEGORY_SCHEMA = {
    "anyOf": [{"type": "string", "maxLength": LONGEST_ID}, *({"type": kind} for kind in ("number", "boolean", "null"))]
}
_VALUES_SCHEMA = {
    "type": "object",
    "maxProperties": MOST_COLUMNS,
    "propertyNames": {"maxLength": LONGEST_ID},
    "additionalProperties": _CATEGORY_SCHEMA,
}
Profile = Annotated[dict[str, str | None], PlainValidator(_values), WithJsonSchema(_VALUES_SCHEMA)]


class Message(BaseModel):
    """A body in which a misspelt field is an error, and so is a value of another type: ``"5"``, 5.0 and true are not 5."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Told(BaseModel):
    """What the model is told of histories besides their items; requests have to tell the times, and may tell the rest.

    Of what it is told nothing, requests tell nothing, but times, by which histories are in order whatever the model is.
    """

    types: Annotated[list[str], Field(description="types of events, that of the first where an event tells none")]
    times: Annotated[
        list[TimeInput], Field(description="what it is told of times; where there are some, every event needs a time")
    ]
    at: Annotated[bool, Field(description="whether the moment asked for counts")]
    event_columns: Annotated[dict[str, list[str]], Field(description="columns of events, with the values told apart")]
    user_columns: Annotated[dict[str, list[str]], Field(description="columns of users, with the values told apart")]

    @classmethod
    def of(cls, settings: EventSettings) -> Told:
        """What the section ``events`` of a recipe says."""
        columns = {
            name: {column: list(values) for column, values in getattr(settings, name).items()}
            for name in ("event_columns", "user_columns")
        }
        return cls(types=list(settings.types), times=list(settings.time_inputs), at=settings.asks_when, **columns)


class GivenEvent(Message):
    """An event of a history, where more than its item is told."""

    item_id: ItemId
    type: Annotated[str | None, BeforeValidator(_category), Field(description="its type, of models that know types")] = None
    time: Annotated[Moment | None, Field(description="when it was: ISO (UTC without offset), or a number; in order")] = None
    values: Annotated[Profile, Field(description="by columns that the model is told of")] = {}


def entry(value: object) -> str | HistoryEvent:
    """An event of a history: an id, or an object that tells more.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, dict):
        return str(checked_id(value))
    try:
        given = GivenEvent.model_validate(value)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {_said(e)}" for e in error.errors())
        raise ValueError(f"an id is no object, and this object is no event of a history: {said}") from None
    return HistoryEvent(given.item_id, given.type, given.time, given.values)


def _said(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"there is no such key{misspelt(GivenEvent, error['loc'])}"
    return readable(error)


_EVENT_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["item_id"],
    "properties": {
        "item_id": ID_SCHEMA,
        "type": _CATEGORY_SCHEMA,
        "time": {"anyOf": [*_MOMENT_SCHEMA["anyOf"], {"type": "null"}]},
        "values": _VALUES_SCHEMA,
    },
}
Entry = Annotated[Any, PlainValidator(entry), WithJsonSchema({"anyOf": [*ID_SCHEMA["anyOf"], _EVENT_SCHEMA]})]
At = Annotated[
    Moment | None,
    Field(
        description="of models that are told of times: the moment asked for, in ISO (UTC without offset), as a number like "
        "the timestamps, or now; null: that of the newest event of each history"
    ),
]
