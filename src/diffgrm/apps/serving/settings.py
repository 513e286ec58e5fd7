"""What a server allows and how long it waits."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from diffgrm.foundation.schema import ordinary


class Bounds(BaseModel):
    """Bounds of any server. A request beyond one is refused with the bound named; nothing is cut off silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_bytes: Annotated[int, Field(ge=1, description="largest request body")] = 2**20
    k: Annotated[int, Field(ge=1, description="items asked for, for each history, or documents for each query")] = 100
    beam: Annotated[int, Field(ge=1, description="beam that a request may ask for")] = 256
    candidates: Annotated[int, Field(ge=1, description="candidates that a request may ask for")] = 256
    queue: Annotated[
        int,
        Field(
            ge=1,
            description="histories that wait for the model, or queries (a request for anything else counts as one), and "
            "changes that wait; more are told to come back later (503)",
        ),
    ] = 256
    batch: Annotated[int, Field(ge=2, description="waiting requests that are answered together")] = 32
    seconds: Annotated[
        float,
        Field(
            gt=0,
            description="a request that takes longer gets 504, and the model stops working on it; so does a change that "
            "waits longer for others; one that has begun is finished",
        ),
    ] = 10.0
    head_seconds: Annotated[
        float, Field(gt=0, description="a connection on which a request's head takes longer to arrive is closed")
    ] = 5.0
    idle_seconds: Annotated[
        float,
        Field(
            gt=0, description="a connection without a request, or whose client takes nothing of its answer, is closed then"
        ),
    ] = 5.0
    body_seconds: Annotated[float, Field(gt=0, description="a body that takes longer to arrive gets 408")] = 5.0
    reload_seconds: Annotated[float, Field(gt=0, description="time between looks for a newer model in the folder")] = 2.0
    connections: Annotated[
        int,
        Field(
            ge=1,
            description="open connections; one more takes the place of the one that waits for its client longest, "
            "or is told to come back later (503) where all are at work",
        ),
    ] = 1_024

    @field_validator("*")
    @classmethod
    def _check_numbers(cls, value: Any) -> Any:
        return ordinary(value)


class Limits(Bounds):
    """Bounds of a server of recommendations."""

    histories: Annotated[int, Field(ge=1, description="histories or users of one request")] = 64
    history: Annotated[int, Field(ge=1, description="items of one history")] = 1_000
    filter: Annotated[int, Field(ge=1, description="items in only and in without; ids and values in rules")] = 10_000
    deepest: Annotated[int, Field(ge=1, description="items of a ranking that are looked at for rules")] = 1_000
    changes: Annotated[int, Field(ge=1, description="items added, updated, removed or restored by one request")] = 1_000


class SearchLimits(Bounds):
    """Bounds of a server of a retriever of documents."""

    queries: Annotated[int, Field(ge=1, description="queries of one request")] = 64
