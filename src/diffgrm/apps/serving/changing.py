"""Changes of the catalogue wait for each other, in a thread of their own, so that requests go on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from diffgrm.apps.serving.problems import Problem
from diffgrm.apps.serving.settings import Limits

T = TypeVar("T")


class Changes:
    """The thread of changes and its queue. A change waits as long as a request may take; once begun, it is finished."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.begin()

    def begin(self) -> None:
        """Take changes; also those of an app that is started again after its end."""
        self.waiting = 0
        self._ending = False
        self._thread = ThreadPoolExecutor(1, "changes")

    async def run(self, change: Callable[[], T]) -> T:
        """What a change gives.

        Raises:
            Problem: the queue is full or the server ends (503), or it waited too long (504); nothing has changed then.
        """
        if self._ending:
            raise _ends()
        if self.waiting >= self.limits.queue:
            raise Problem(503, "too many changes are waiting; come back later", headers={"Retry-After": "1"})
        self.waiting += 1
        work = self._thread.submit(change)
        result = asyncio.wrap_future(work)
        try:
            await asyncio.wait([result], timeout=self.limits.seconds)
            if work.cancelled():
                raise _ends()
            if work.cancel():
                raise Problem(
                    504, f"others were changed for {self.limits.seconds:g} s; nothing has changed, try again later"
                )
        finally:
            self.waiting -= 1
        return await result

    def end(self) -> None:
        """Finish the change under way, and refuse those that wait and all that come."""
        self._ending = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End, once the change under way is finished."""
        self.end()
        self._thread.shutdown(wait=True)


def _ends() -> Problem:
    return Problem(503, "the server ends; nothing has changed, come back later", headers={"Retry-After": "5"})
