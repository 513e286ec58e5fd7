"""What goes over the wire. Bounds that a server can choose are checked by the server, not here."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from diffgrm.apps.serving.given import At, Entry, Message, Profile, Told
from diffgrm.foundation.plain_values import LONGEST_ID, WHOLE, WHOLE_SCHEMA, Id, ItemId, is_whole, unbroken
from diffgrm.ranking.rules import Rules

DEEPEST = 16  # lists and objects within one another in a value of an item's row


def _named(value: str) -> str:
    if not value:
        raise ValueError("is empty; every item needs an id")
    return value


def _text(value: object) -> str | int:
    if isinstance(value, str) and value:
        return unbroken(value)
    if isinstance(value, int) and is_whole(value):
        return value
    raise ValueError("every item needs a text, or a whole number")


def _digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError("is not a whole number, written in digits")
    return value


def _cell(value: object, depth: int = 0) -> object:
    """A value of an item's row.

    Raises:
        ValueError: a table would not hold it as it is.
    """
    if depth > DEEPEST:
        raise ValueError(f"lists and objects lie more than {DEEPEST} deep")
    if isinstance(value, str):
        unbroken(value)
    elif isinstance(value, int) and value not in WHOLE:
        raise ValueError("whole numbers have 64 bits; send larger ones as texts")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not a finite number; send null where there is none")
    elif isinstance(value, list | dict):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _cell(part, depth + 1)
    return value


def _shown(value: object) -> object:
    """A value as JSON has it: null for what is not a finite number, hex digits for bytes."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): _shown(inner) for name, inner in value.items()}
    return [_shown(inner) for inner in value] if isinstance(value, list) else value


_TEXT_SCHEMA = {"anyOf": [{"type": "string", "minLength": 1}, WHOLE_SCHEMA]}

AnsweredId = Annotated[
    str | int,
    Field(
        description="as the catalogue has it, a text or a whole number of 64 bits; JavaScript rounds those above 2^53, "
        "unless their digits are read as text, which requests take too"
    ),
]
Text = Annotated[str | int, PlainValidator(_text), WithJsonSchema(_TEXT_SCHEMA)]
Shown = Annotated[dict[str, Any], BeforeValidator(_shown)]
Cell = Annotated[Any, PlainValidator(_cell), WithJsonSchema({})]

Beam = Annotated[
    int | None,
    Field(ge=1, description="of models that search with a beam: partial SIDs that are kept; null is the model's setting"),
]
Candidates = Annotated[
    int | None,
    Field(ge=1, description="of models that rank candidates: items that are looked at; null is the model's setting"),
]


class RecommendRequest(Message):
    """Whose items are wanted, how many, and which are allowed."""

    histories: Annotated[
        list[list[Entry]] | None,
        Field(
            description="of each history item ids, oldest first, or objects that tell more of an event (item_id, type, "
            "time, values)",
            examples=[[["item 0", "item 15"]]],
        ),
    ] = None
    users: Annotated[
        list[Id] | None, Field(description="instead of histories: users of the events that the server was started with")
    ] = None
    k: Annotated[int, Field(ge=1, description="items for each history")] = 10
    exclude_seen: Annotated[bool, Field(description="leave out what is in the history")] = True
    only: Annotated[
        list[ItemId] | None, Field(description="items that may be recommended; null is all", examples=[None])
    ] = None
    without: Annotated[
        list[ItemId] | None, Field(description="items that may not be recommended", examples=[["item 27"]])
    ] = None
    rules: Annotated[
        Rules | None,
        Field(description="what else is wanted of the lists; null: the server's own rules, if it has some; {}: nothing"),
    ] = None
    beam: Beam = None
    candidates: Candidates = None
    on_empty: Annotated[
        Literal["error", "skip"], Field(description="histories without a known item: an error, or an empty list")
    ] = "error"
    titles: Annotated[bool, Field(description="with the items' titles")] = False
    at: At = None
    profiles: Annotated[
        list[Profile] | None,
        Field(
            description="of models that are told of users: what is known of the user of each history, by columns; null: "
            "what the model keeps of users, and nothing of others",
            examples=[None],
        ),
    ] = None

    @model_validator(mode="after")
    def _one_of(self) -> RecommendRequest:
        if (self.histories is None) == (self.users is None):
            raise ValueError("give either histories or users")
        return self


class RankedItem(BaseModel):
    """A recommended item."""

    item_id: AnsweredId
    score: Annotated[
        float | None,
        Field(
            description="of the method, larger is better; for generated items a log-probability; null: rules brought the "
            "item, and no search scored it beside the others"
        ),
    ]
    title: str | None = None


class RankedList(BaseModel):
    """The answer for one history or user."""

    user: Annotated[str | int, Field(description="the user, or the number of the history from 0")]
    items: list[RankedItem]
    unknown: Annotated[
        int, Field(description="items of the history that the catalogue does not have, and that were passed over")
    ] = 0


class RecommendAnswer(BaseModel):
    """Lists in the order of the request."""

    model: Annotated[str, Field(description="version of the model that answered")]
    lists: list[RankedList]


class SimilarRequest(Message):
    """Whose neighbours are wanted."""

    item_id: ItemId
    k: Annotated[int, Field(ge=1)] = 10
    titles: bool = False


class SimilarAnswer(BaseModel):
    """The items most like one."""

    model: str
    items: list[RankedItem]


class ExplainRequest(Message):
    """Whose list is to be explained."""

    history: Annotated[
        list[Entry], Field(description="item ids, oldest first, or objects that tell more of an event", min_length=1)
    ]
    k: Annotated[int, Field(ge=1, le=20)] = 5
    exclude_seen: bool = True
    beam: Beam = None
    candidates: Candidates = None
    show: Annotated[int, Field(ge=1, le=64, description="partial SIDs shown of each step")] = 8
    at: At = None
    profile: Annotated[Profile | None, Field(description="what is known of the user, by columns")] = None


class FilledDigit(BaseModel):
    """One digit of an item's SID, and how it was filled."""

    step: Annotated[int, Field(description="from 1")]
    digit: Annotated[int, Field(description="from 0")]
    code: int
    confidence: Annotated[float, Field(description="probability of the code, given what was known before the step")]
    rival: Annotated[int, Field(description="the likeliest other code")]
    rival_confidence: float
    items_left: Annotated[int, Field(description="items that may be recommended and fit what is known after the step")]


class ExplainedItem(RankedItem):
    """A recommended item and the digits that led to it, in the order in which they were filled."""

    digits: list[FilledDigit]


class PartialSid(BaseModel):
    """A place of the beam after a step."""

    digits: Annotated[list[int | None], Field(description="codes; null is not yet known")]
    score: float


class ExplainAnswer(BaseModel):
    """How a list was found."""

    model: str
    n_digits: int
    codebook_size: int
    note: Annotated[str, Field(description="what confidences of digits leave unsaid of how the list came about; or empty")]
    rules_aside: Annotated[bool, Field(description="the server has rules: they have a say in its lists, and none here")]
    items: list[ExplainedItem]
    beams: Annotated[list[list[PartialSid]], Field(description="for each step the best partial SIDs, best first")]


class CatalogueItem(BaseModel):
    """An item of the catalogue."""

    item_id: AnsweredId
    title: str | None
    recommendable: Annotated[bool, Field(description="false: removed")]
    events: Annotated[int, Field(description="training events")]


class ItemDetails(CatalogueItem):
    """An item with its whole row and its semantic ID."""

    row: Annotated[Shown, Field(description="the item table's row")]
    semantic_id: list[int] | None


class ItemsQuery(BaseModel):
    """Parameters of a search; a misspelt one is an error."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(max_length=LONGEST_ID, description="words that the title or text must hold; or an id")] = ""
    limit: Annotated[int, BeforeValidator(_digits), Field(ge=1, le=100)] = 20


class ItemsAnswer(BaseModel):
    """Items that a search found."""

    model: str
    total: Annotated[int, Field(description="items that were found, of which the first are listed")]
    items: list[CatalogueItem]


class ItemRow(BaseModel):
    """A row of the item table; it may have the other columns that the table has."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Cell]

    item_id: Annotated[ItemId, AfterValidator(_named)]
    text: Text


class NewItems(Message):
    """Rows of the item table."""

    items: Annotated[
        list[ItemRow],
        Field(
            min_length=1,
            examples=[[{"item_id": "new 1", "text": "a soft red scarf of merino wool"}]],
        ),
    ]


class ChangedItems(NewItems):
    """New rows of known items."""

    semantic_ids: Annotated[
        Literal["keep", "move"],
        Field(description="keep: semantic IDs stay (a text was corrected); move: made anew from the new text"),
    ]


class ItemIds(Message):
    """Items by their ids."""

    item_ids: Annotated[list[ItemId], Field(min_length=1, examples=[["item 27"]])]


class CatalogueAnswer(BaseModel):
    """The catalogue after a change."""

    model: str
    catalogue_version: int
    items: int
    recommendable: int


class ModelAnswer(BaseModel):
    """The model that answers."""

    model: str
    recommender: str
    items: int
    recommendable: int
    catalogue_version: int
    explains: Annotated[bool, Field(description="whether POST /explain is there for it")]
    beam: Annotated[int | None, Field(description="the model's own beam, where it searches with one")]
    candidates: Annotated[int | None, Field(description="the model's own number of candidates, where it ranks some")]
    told: Told
    limits: dict[str, float]
    facts: Shown


class Status(BaseModel):
    """How the server is."""

    status: Literal["ok"] = "ok"


class Ready(Status):
    """The server is ready, with this model."""

    model: str
