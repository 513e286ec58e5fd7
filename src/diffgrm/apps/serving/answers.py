"""Routes that ask the model."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from fastapi import APIRouter

from diffgrm.apps.semantic_ids import semantic_ids_of
from diffgrm.apps.serving import messages as m
from diffgrm.apps.serving.batching import Question, Ranked
from diffgrm.apps.serving.live import Snapshot
from diffgrm.apps.serving.problems import BODY_ERRORS, Problem, field_problem, problem_responses
from diffgrm.apps.serving.server import Server
from diffgrm.apps.serving.strict import StrictRoute
from diffgrm.data.histories import HistoryEvent
from diffgrm.foundation.schema import Columns
from diffgrm.ranking.rules import Rules
from diffgrm.recommenders.capabilities import Explains, explaining


@dataclass(frozen=True)
class Histories(Question):
    """A checked request for recommendations, for histories that hold a known item each.

    Attributes:
        rules: of the lists.
        at: the moment asked for, in a form that ``recommend`` takes; None: at the newest event of each history.
        profiles: of each history, what is known of its user; None: nothing.
    """

    exclude_seen: bool
    only: tuple[Any, ...] | None
    without: tuple[Any, ...] | None
    rules: Rules | None
    at: Any = None
    profiles: Sequence[Mapping[str, Any]] | None = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """See :attr:`Question.kind`."""
        return *super().kind, self.exclude_seen, self.only, self.without, self.rules

    def together(self, questions: Sequence[Histories], progress: Callable[[int], None]) -> pl.DataFrame:
        """See :meth:`Question.together`."""
        found: pl.DataFrame = self.snapshot.with_width(self.width).recommend(
            [history for question in questions for history in question.asked],
            self.k,
            exclude_seen=self.exclude_seen,
            only=self.only,
            without=self.without,
            rules=self.rules,
            progress=progress,
            **_besides(questions),
        )
        return found.select(Columns.USER, Columns.ITEM, Columns.SCORE)


def _besides(questions: Sequence[Histories]) -> dict[str, Any]:
    """What is told of the histories of all questions, by their numbers."""
    at: dict[int, Any] = {}
    profiles: dict[int, Mapping[str, Any]] = {}
    first = 0
    for question in questions:
        numbers = range(first, first + len(question.asked))
        if question.at is not None:
            at |= dict.fromkeys(numbers, question.at)
        if question.profiles is not None:
            profiles |= zip(numbers, question.profiles, strict=True)
        first = numbers.stop
    return {"at": at or None, "profiles": profiles or None}


def answers(server: Server) -> APIRouter:
    """Recommendations, similar items, explanations."""
    router = APIRouter(
        route_class=StrictRoute, tags=["recommendations"], responses=BODY_ERRORS | problem_responses(503, 504)
    )

    @router.post("/recommend")
    async def recommend(body: m.RecommendRequest) -> m.RecommendAnswer:
        """The k best items for each history or user."""
        snapshot, deadline = server.live.current, time.monotonic() + server.limits.seconds
        server.check_k(snapshot, body.k)
        width = server.width(snapshot, body)
        only, without = server.filters(snapshot, body)
        rules = server.rules(snapshot, body)
        names, given = server.histories(snapshot, body)
        histories = _known_items(snapshot, given)
        empty = {number for number, history in enumerate(histories) if not history}
        if empty and body.on_empty == "error":
            field = "histories" if body.histories is not None else "users"
            wrong = {f"#/{field}/{number}": "has no item that the catalogue knows" for number in sorted(empty)}
            raise Problem(422, f"{len(empty)} histories hold no known item; on_empty: skip gives empty lists", wrong)
        asked = [number for number in range(len(histories)) if number not in empty]
        besides = server.besides(snapshot, body, histories) if asked else {"at": None, "profiles": None}
        profiles = besides["profiles"]
        lists: dict[int, Ranked] = {}
        if asked:
            question = Histories(
                snapshot,
                [histories[number] for number in asked],
                body.k,
                width,
                deadline,
                body.exclude_seen,
                only,
                without,
                rules,
                besides["at"],
                None if profiles is None else [profiles[number] for number in asked],
            )
            lists = dict(zip(asked, await server.engine.ask(question), strict=True))
        return m.RecommendAnswer(
            model=snapshot.version,
            lists=[
                m.RankedList(
                    user=name,
                    items=_ranked(snapshot, lists.get(number, []), body.titles),
                    unknown=len(given[number]) - len(histories[number]),
                )
                for number, name in enumerate(names)
            ],
        )

    @router.post("/similar")
    async def similar(body: m.SimilarRequest) -> m.SimilarAnswer:
        """The items most like one."""
        snapshot = server.live.current
        server.check_k(snapshot, body.k)
        if snapshot.model.items.positions([body.item_id])[0] < 0:
            raise field_problem("#/item_id", "is not in the catalogue")
        found = await server.engine.run(snapshot.model.similar_items, body.item_id, body.k)
        items = list(found.select(Columns.ITEM, pl.col(Columns.SCORE).cast(pl.Float64)).iter_rows())
        return m.SimilarAnswer(model=snapshot.version, items=_ranked(snapshot, items, body.titles))

    @router.post("/explain")
    async def explain(body: m.ExplainRequest) -> m.ExplainAnswer:
        """How the k best items of a history were found, rules aside: digit by digit, and what else the beam held."""
        snapshot = server.live.current
        server.check_k(snapshot, body.k)
        width = server.width(snapshot, body)
        server.bound("history", len(body.history), server.limits.history, "the length of the history")
        if not isinstance(snapshot.model, Explains):
            raise Problem(422, f"{snapshot.model.recipe.recommender!r} fills no digits; only masked diffusion does")
        history = _known_items(snapshot, [body.history])[0]
        if not history:
            raise field_problem("#/history", "has no item that the catalogue knows")
        at = server.moment(snapshot, body.at)
        return await server.engine.run(_explain, snapshot, history, body, at, width, server.live.rules is not None)

    return router


def _explain(
    snapshot: Snapshot,
    history: list[Any],
    body: m.ExplainRequest,
    at: datetime.datetime | None,
    width: str | None,
    rules_aside: bool,
) -> m.ExplainAnswer:
    recommender = snapshot.with_width(width)
    explains, sids = explaining(recommender), semantic_ids_of(recommender)
    assert sids is not None
    asked: dict[str, Any] = {"exclude_seen": body.exclude_seen}
    asked |= {"at": at, "profiles": None if body.profile is None else {0: body.profile}}
    found = recommender.recommend([history], body.k, **asked)
    digits = explains.explain(history, body.k, **asked)
    beams = explains.beams(history, body.k, show=body.show, **asked)
    items = _ranked(snapshot, list(found.select(Columns.ITEM, Columns.SCORE).iter_rows()), titles=True)
    filled = filled_of(digits)
    return m.ExplainAnswer(
        model=snapshot.version,
        n_digits=sids.n_digits,
        codebook_size=sids.codebook_size,
        note=explains.explanation_note(),
        rules_aside=rules_aside,
        items=[
            m.ExplainedItem(**item.model_dump(), digits=filled.get(rank, [])) for rank, item in enumerate(items, start=1)
        ],
        beams=beams_of(beams),
    )


def filled_of(digits: pl.DataFrame) -> dict[int, list[m.FilledDigit]]:
    """The digits of an explanation by the rank of what they lead to."""
    filled: dict[int, list[m.FilledDigit]] = {}
    for row in digits.iter_rows(named=True):
        filled.setdefault(row[Columns.RANK], []).append(m.FilledDigit.model_validate(row))
    return filled


def beams_of(beams: pl.DataFrame) -> list[list[m.PartialSid]]:
    """The partial SIDs of each step."""
    return [
        [m.PartialSid(**row) for row in rows.select("digits", Columns.SCORE).iter_rows(named=True)]
        for _, rows in beams.group_by("step", maintain_order=True)
    ]


def _known_items(snapshot: Snapshot, histories: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The items of each history that the catalogue has."""
    given = [entry for history in histories for entry in history]
    ids = [entry.item if isinstance(entry, HistoryEvent) else entry for entry in given]
    positions = snapshot.model.items.positions(ids)
    known = iter((positions >= 0).tolist())
    return [[item for item in history if next(known)] for history in histories]


def _ranked(snapshot: Snapshot, items: Ranked, titles: bool) -> list[m.RankedItem]:
    names: Sequence[Any] = [None] * len(items)
    if titles and items:
        names = snapshot.titles.gather(snapshot.model.items.positions([item for item, _ in items])).to_list()
    return [m.RankedItem(item_id=i, score=score, title=name) for (i, score), name in zip(items, names, strict=True)]
