"""Requests that wait for the model are answered together.

Batches are formed by ``async-batcher``: while the model works, requests gather; then as many as may be are taken at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
from async_batcher.batcher import AsyncBatcher

from diffgrm.apps.serving.live import Snapshot
from diffgrm.apps.serving.problems import Problem
from diffgrm.apps.serving.settings import Limits
from diffgrm.foundation.schema import Columns, DiffGRMError
from diffgrm.ranking.rules import Rules

logger = logging.getLogger(__name__)

Ranked = list[tuple[Any, float | None]]
"""Item ids and scores, best first."""


class Expired(Exception):
    """Nobody waits for the answer any longer."""


@dataclass(frozen=True)
class Question:
    """A checked request for recommendations.

    Attributes:
        snapshot: the model to ask.
        histories: each with a known item.
        rules: of the lists.
        width: see :meth:`Snapshot.with_width`.
        deadline: of ``time.monotonic``.
        at: the moment asked for, in a form that ``recommend`` takes; None: at the newest event of each history.
        profiles: of each history, what is known of its user; None: nothing.
    """

    snapshot: Snapshot
    histories: Sequence[Sequence[Any]]
    k: int
    exclude_seen: bool
    only: tuple[Any, ...] | None
    without: tuple[Any, ...] | None
    rules: Rules | None
    width: str | None
    deadline: float
    at: Any = None
    profiles: Sequence[Mapping[str, Any]] | None = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """Questions of one kind can be answered by one call."""
        return id(self.snapshot), self.k, self.exclude_seen, self.only, self.without, self.rules, self.width


def answer(questions: Sequence[Question]) -> list[list[Ranked] | Exception]:
    """The lists for every question, or why there are none."""
    answers: list[list[Ranked] | Exception] = [Expired()] * len(questions)
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for number, question in enumerate(questions):
        kinds.setdefault(question.kind, []).append(number)
    for numbers in kinds.values():
        waited_for = [number for number in numbers if questions[number].deadline > time.monotonic()]
        if not waited_for:
            continue
        try:
            lists = _ask([questions[number] for number in waited_for])
        except Exception as error:  # whatever it was: those who asked otherwise get their answers
            if not isinstance(error, DiffGRMError | Expired):
                logger.exception("The model failed")
            for number in waited_for:
                answers[number] = error
            continue
        for number in waited_for:
            answers[number] = [next(lists) for _ in questions[number].histories]
    return answers


def _ask(questions: Sequence[Question]) -> Any:
    """An iterator over the lists of all histories of questions of one kind."""
    first, last_deadline = questions[0], max(question.deadline for question in questions)

    def give_up(done: int) -> None:
        if time.monotonic() > last_deadline:
            raise Expired

    histories = [history for question in questions for history in question.histories]
    found = first.snapshot.with_width(first.width).recommend(
        histories,
        first.k,
        exclude_seen=first.exclude_seen,
        only=first.only,
        without=first.without,
        rules=first.rules,
        progress=give_up,
        **_besides(questions),
    )
    lists: list[Ranked] = [[] for _ in histories]
    for user, item, score in found.select(Columns.USER, Columns.ITEM, pl.col(Columns.SCORE).cast(pl.Float64)).iter_rows():
        lists[user].append((item, score))
    return iter(lists)


def _besides(questions: Sequence[Question]) -> dict[str, Any]:
    """What is told of the histories of all questions, by their numbers."""
    at: dict[int, Any] = {}
    profiles: dict[int, Mapping[str, Any]] = {}
    first = 0
    for question in questions:
        numbers = range(first, first + len(question.histories))
        if question.at is not None:
            at |= dict.fromkeys(numbers, question.at)
        if question.profiles is not None:
            profiles |= zip(numbers, question.profiles, strict=True)
        first = numbers.stop
    return {"at": at or None, "profiles": profiles or None}


class _Batcher(AsyncBatcher[Question, "list[Ranked]"]):
    """Gathers questions and answers them in the model's thread."""

    def __init__(self, limits: Limits, executor: ThreadPoolExecutor, sizes: Any) -> None:
        super().__init__(max_batch_size=limits.batch, max_queue_time=0, concurrency=1, executor=executor)
        self.sizes = sizes

    def process_batch(self, batch: list[Question]) -> list[Any]:  # type: ignore[override]
        self.sizes.observe(len(batch))
        return answer(batch)


class Engine:
    """The model's thread and its queue.

    Args:
        sizes: a Prometheus histogram of batch sizes.
    """

    def __init__(self, limits: Limits, sizes: Any) -> None:
        self.limits, self._sizes = limits, sizes
        self.waiting = 0  # histories
        self.begin()

    def begin(self) -> None:
        """Take questions; also those of an app that is started again after its end."""
        self._thread = ThreadPoolExecutor(1, "model")
        self._batcher = _Batcher(self.limits, self._thread, self._sizes)

    async def recommend(self, question: Question) -> list[Ranked]:
        """The lists for a question.

        Raises:
            Problem: the queue is full (503), or it took too long (504).
            DiffGRMError: see :meth:`Recommender.recommend`.
        """
        with self._place(len(question.histories)):
            work = asyncio.ensure_future(self._batcher.process(question))
            return await _within(work, question.deadline - time.monotonic())

    async def run(self, function: Any, *arguments: Any) -> Any:
        """Something else that needs the model, in its thread; it counts as one history.

        Raises:
            Problem: as for :meth:`recommend`.
        """
        deadline = time.monotonic() + self.limits.seconds

        def call() -> Any:
            if time.monotonic() > deadline:
                raise Expired
            return function(*arguments)

        with self._place(1):
            work = asyncio.get_running_loop().run_in_executor(self._thread, call)
            return await _within(work, self.limits.seconds)

    def check_room(self, size: int = 1) -> None:
        """Make sure that so many histories may wait; where none does, any number may.

        Raises:
            Problem: 503.
        """
        if self.waiting and self.waiting + size > self.limits.queue:
            told = "too many histories are waiting for the model; come back later"
            raise Problem(503, told, headers={"Retry-After": "1"})

    @contextmanager
    def _place(self, size: int) -> Iterator[None]:
        """Room in the queue for so many histories, until they have been answered.

        Raises:
            Problem: there is none (503), or the answer took too long (504).
        """
        self.check_room(size)
        self.waiting += size
        try:
            yield
        except (TimeoutError, Expired):
            raise Problem(504, f"the answer took longer than {self.limits.seconds:g} s; ask for fewer") from None
        finally:
            self.waiting -= size

    async def close(self) -> None:
        """Answer what is waiting, then end."""
        await self._batcher.stop()
        self._thread.shutdown(wait=True)


async def _within(work: asyncio.Future[Any], seconds: float) -> Any:
    """The result of work, which goes on if it takes longer or if nobody wants it any more.

    The batcher must not see a cancelled request: it would leave the rest of the batch without answers.

    Raises:
        TimeoutError: it takes longer.
    """
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.wait_for(asyncio.shield(work), seconds)
