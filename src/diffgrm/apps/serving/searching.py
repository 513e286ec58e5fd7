"""Routes that find documents, and the retriever that they ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import polars as pl
from fastapi import APIRouter
from prometheus_client import Gauge

from diffgrm.apps.serving import search_messages as m
from diffgrm.apps.serving.answers import beams_of, filled_of
from diffgrm.apps.serving.batching import Question
from diffgrm.apps.serving.live_folder import LiveFolder, Version, titles_of
from diffgrm.apps.serving.model_server import ModelServer
from diffgrm.apps.serving.problems import BODY_ERRORS, problem_responses
from diffgrm.apps.serving.settings import SearchLimits
from diffgrm.apps.serving.strict import StrictRoute
from diffgrm.data.tables import clean_text
from diffgrm.foundation.schema import Columns, RecipeError
from diffgrm.recommenders.documents import DocumentRetriever
from diffgrm.recommenders.parts import part_of
from diffgrm.recommenders.texts import TextVectors
from diffgrm.semantic_ids.embeddings.precomputed import Precomputed

ASKED_IN_FIT = "asked_in_fit"  # hashes that would tell which queries were learnt from

Retriever = Version[DocumentRetriever]


class LiveRetriever(LiveFolder[Retriever]):
    """The newest good retriever of a folder.

    Raises:
        RecipeError: its embedding is precomputed, so that it cannot read what is asked; else see :class:`LiveFolder`.
    """

    def _load(self) -> DocumentRetriever:
        return DocumentRetriever.load(self.folder, trust_code=self.trust_code)

    def _snapshot(self, saved: DocumentRetriever, name: str) -> Retriever:
        if isinstance(part_of(saved.parts, "texts", TextVectors).encoder, Precomputed):
            raise RecipeError(
                "embedding.name = precomputed has no vectors of queries that are asked over HTTP; search in Python or with "
                "diffgrm documents search, or fit with an embedding that reads texts"
            )
        retriever, table = saved.variant(self.overrides), saved.catalogue.table
        asked = next(filter(clean_text, table[Columns.TEXT]), None)  # &lt;p&gt; was read as <p>, which is empty when asked
        if asked is not None:
            retriever.search(asked, k=1)  # makes the tables, so that no request waits for them
        return Version(name, saved, retriever, titles_of(table))


class SearchServer(ModelServer):
    """A retriever of documents."""

    asked: ClassVar[str] = "queries"
    live: LiveRetriever
    limits: SearchLimits

    def __init__(self, live: LiveRetriever, limits: SearchLimits) -> None:
        super().__init__(live, limits)
        documents = Gauge("diffgrm_documents", "Documents that may be found", registry=self.registry)
        documents.set_function(lambda: len(live.current.titles))


class Queries(Question):
    """A checked request for documents, for texts."""

    def together(self, questions: Sequence[Queries], progress: Callable[[int], None]) -> pl.DataFrame:
        """See :meth:`Question.together`."""
        texts = [text for question in questions for text in question.asked]
        found: pl.DataFrame = self.snapshot.with_width(self.width).search(texts, self.k, progress=progress)
        return found.select(Columns.QUERY, Columns.DOCUMENT, Columns.SCORE)


def searching(server: SearchServer) -> APIRouter:
    """Documents for queries, explanations, the retriever."""
    router = APIRouter(route_class=StrictRoute, tags=["documents"], responses=BODY_ERRORS | problem_responses(503, 504))

    @router.post("/search")
    async def search(body: m.SearchRequest) -> m.SearchAnswer:
        """The k best documents for each query."""
        snapshot, deadline = server.live.current, time.monotonic() + server.limits.seconds
        server.check_k(snapshot, body.k)
        width = server.width(snapshot, body)
        server.bound("queries", len(body.queries), server.limits.queries, "the number of queries")
        lists = await server.engine.ask(Queries(snapshot, body.queries, body.k, width, deadline))
        return m.SearchAnswer(
            model=snapshot.version,
            lists=[
                m.FoundList(query=number, documents=_found(snapshot, documents, body.titles))
                for number, documents in enumerate(lists)
            ],
        )

    @router.post("/explain")
    async def explain(body: m.ExplainSearchRequest) -> m.ExplainSearchAnswer:
        """How the k best documents for a query were found: digit by digit, and what else the beam held."""
        snapshot = server.live.current
        server.check_k(snapshot, body.k)
        width = server.width(snapshot, body)
        return await server.engine.run(_explain, snapshot, body, width)

    return router


def about(server: SearchServer) -> APIRouter:
    """The retriever."""
    router = APIRouter(route_class=StrictRoute, tags=["server"], responses=problem_responses(422))

    @router.get("/model")
    def model() -> m.RetrieverAnswer:
        """What answers, and what it allows."""
        snapshot = server.live.current
        return m.RetrieverAnswer(
            model=snapshot.version,
            documents=len(snapshot.titles),
            explains=snapshot.model.explains,
            **snapshot.widths,
            limits=server.limits.model_dump(),
            facts={name: value for name, value in snapshot.saved.facts.items() if name != ASKED_IN_FIT},
        )

    return router


def _explain(snapshot: Retriever, body: m.ExplainSearchRequest, width: str | None) -> m.ExplainSearchAnswer:
    retriever = snapshot.with_width(width)
    filled = filled_of(retriever.explain(body.query, body.k))
    found = retriever.search(body.query, body.k)
    documents = _found(snapshot, list(found.select(Columns.DOCUMENT, Columns.SCORE).iter_rows()), titles=True)
    return m.ExplainSearchAnswer(
        model=snapshot.version,
        n_digits=retriever.semantic_ids.n_digits,
        codebook_size=retriever.semantic_ids.codebook_size,
        note=retriever.explanation_note(),
        documents=[
            m.ExplainedDocument(**document.model_dump(), digits=filled.get(rank, []))
            for rank, document in enumerate(documents, start=1)
        ],
        beams=beams_of(retriever.beams(body.query, body.k, show=body.show)),
    )


def _found(snapshot: Retriever, documents: Sequence[tuple[Any, Any]], titles: bool) -> list[m.FoundDocument]:
    names: Sequence[Any] = [None] * len(documents)
    if titles:
        positions = snapshot.model.documents.positions([document for document, _ in documents])
        names = snapshot.titles.gather(positions).to_list()
    return [
        m.FoundDocument(doc_id=document, score=score, title=name)
        for (document, score), name in zip(documents, names, strict=True)
    ]
