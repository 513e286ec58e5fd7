"""What goes over the wire where documents are searched for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from diffgrm.apps.serving.given import Message
from diffgrm.apps.serving.messages import AnsweredId, Beam, Candidates, FilledDigit, PartialSid, Shown
from diffgrm.data.tables import clean_text
from diffgrm.foundation.plain_values import unbroken


def _query(value: object) -> str:
    if not isinstance(value, str) or not clean_text(unbroken(value)):
        raise ValueError("a query is a text with something in it")
    return value


QueryText = Annotated[str, PlainValidator(_query), WithJsonSchema({"type": "string", "minLength": 1})]


class SearchRequest(Message):
    """What is asked, and how many documents are wanted."""

    queries: Annotated[list[QueryText], Field(min_length=1, examples=[["what is asked"]])]
    k: Annotated[int, Field(ge=1, description="documents for each query")] = 10
    beam: Beam = None
    candidates: Candidates = None
    titles: Annotated[bool, Field(description="with the documents' titles")] = False


class FoundDocument(BaseModel):
    """A document that was found."""

    doc_id: AnsweredId
    score: Annotated[float, Field(description="log-probability, larger is better")]
    title: str | None = None


class FoundList(BaseModel):
    """The answer to one query."""

    query: Annotated[int, Field(description="number of the query, from 0")]
    documents: list[FoundDocument]


class SearchAnswer(BaseModel):
    """Lists in the order of the request."""

    model: Annotated[str, Field(description="version of the model that answered")]
    lists: list[FoundList]


class ExplainSearchRequest(Message):
    """The query whose list is to be explained."""

    query: QueryText
    k: Annotated[int, Field(ge=1, le=20)] = 5
    beam: Beam = None
    candidates: Candidates = None
    show: Annotated[int, Field(ge=1, le=64, description="partial SIDs shown of each step")] = 8


class ExplainedDocument(FoundDocument):
    """A document and the digits that led to it, in the order in which they were filled."""

    digits: list[FilledDigit]


class ExplainSearchAnswer(BaseModel):
    """How a list was found."""

    model: str
    n_digits: int
    codebook_size: int
    note: Annotated[str, Field(description="what confidences of digits leave unsaid of how the list came about; or empty")]
    documents: list[ExplainedDocument]
    beams: Annotated[list[list[PartialSid]], Field(description="for each step the best partial SIDs, best first")]


class RetrieverAnswer(BaseModel):
    """The retriever that answers."""

    model: str
    documents: int
    explains: Annotated[bool, Field(description="whether POST /explain is there for it")]
    beam: Annotated[int | None, Field(description="the model's own beam, where it searches with one")]
    candidates: Annotated[int | None, Field(description="the model's own number of candidates, where it ranks some")]
    limits: dict[str, float]
    facts: Annotated[Shown, Field(description="of the fit, but for hashes of its queries")]
