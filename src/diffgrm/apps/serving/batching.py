"""Requests that wait for the model are answered together.

Batches are formed by ``async-batcher``: while the model works, requests gather; then as many as may be are taken at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
from async_batcher.batcher import AsyncBatcher

from diffgrm.apps.serving.live_folder import Version
from diffgrm.apps.serving.problems import Problem
from diffgrm.apps.serving.settings import Bounds
from diffgrm.foundation.schema import DiffGRMError

logger = logging.getLogger(__name__)

Ranked = list[tuple[Any, float | None]]
"""Item ids and scores, best first."""


class Expired(Exception):
    """Nobody waits for the answer any longer."""


@dataclass(frozen=True)
class Question(ABC):
    """A checked request for lists.

    Attributes:
        snapshot: the model to ask.
        asked: what each list is wanted for: histories, or queries.
        width: see :meth:`Version.with_width`.
        deadline: of ``time.monotonic``.
    """

    snapshot: Version[Any]
    asked: Sequence[Any]
    k: int
    width: str | None
    deadline: float

    @property
    def kind(self) -> tuple[Any, ...]:
        """Questions of one kind can be answered by one call."""
        return id(self.snapshot), self.k, self.width

    @abstractmethod
    def together(self, questions: Sequence[Any], progress: Callable[[int], None]) -> pl.DataFrame:
        """What the model finds for questions of this one's kind, this one among them.

        Returns:
            The number of a list among those of all questions, an id, its score, best first.
        """


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
            answers[number] = [next(lists) for _ in questions[number].asked]
    return answers


def _ask(questions: Sequence[Question]) -> Any:
    """An iterator over all lists of questions of one kind."""
    last_deadline = max(question.deadline for question in questions)

    def give_up(done: int) -> None:
        if time.monotonic() > last_deadline:
            raise Expired

    found = questions[0].together(questions, give_up)
    lists: list[Ranked] = [[] for question in questions for _ in question.asked]
    number, name, score = found.columns
    for place, one, value in found.select(number, name, pl.col(score).cast(pl.Float64)).iter_rows():
        lists[place].append((one, value))
    return iter(lists)


class _Batcher(AsyncBatcher[Question, "list[Ranked]"]):
    """Gathers questions and answers them in the model's thread."""

    def __init__(self, limits: Bounds, executor: ThreadPoolExecutor, sizes: Any) -> None:
        super().__init__(max_batch_size=limits.batch, max_queue_time=0, concurrency=1, executor=executor)
        self.sizes = sizes

    def process_batch(self, batch: list[Question]) -> list[Any]:  # type: ignore[override]
        self.sizes.observe(len(batch))
        return answer(batch)


class Engine:
    """The model's thread and its queue.

    Args:
        sizes: a Prometheus histogram of batch sizes.
        asked: what lists are made for, in words.
    """

    def __init__(self, limits: Bounds, sizes: Any, asked: str) -> None:
        self.limits, self.asked, self._sizes = limits, asked, sizes
        self.waiting = 0  # of what is asked
        self.begin()

    def begin(self) -> None:
        """Take questions; also those of an app that is started again after its end."""
        self._thread = ThreadPoolExecutor(1, "model")
        self._batcher = _Batcher(self.limits, self._thread, self._sizes)

    async def ask(self, question: Question) -> list[Ranked]:
        """The lists for a question.

        Raises:
            Problem: the queue is full (503), or it took too long (504).
            DiffGRMError: see the model.
        """
        with self._place(len(question.asked)):
            work = asyncio.ensure_future(self._batcher.process(question))
            return await _within(work, question.deadline - time.monotonic())

    async def run(self, function: Any, *arguments: Any) -> Any:
        """Something else that needs the model, in its thread; it counts as one list.

        Raises:
            Problem: as for :meth:`ask`.
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
        """Make sure that so many lists may be waited for; where none is, any number may.

        Raises:
            Problem: 503.
        """
        if self.waiting and self.waiting + size > self.limits.queue:
            told = f"too many {self.asked} are waiting for the model; come back later"
            raise Problem(503, told, headers={"Retry-After": "1"})

    @contextmanager
    def _place(self, size: int) -> Iterator[None]:
        """Room in the queue for so many lists, until they have been made.

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
