"""Connections: how many there may be, and how long one may keep the server waiting.

A connection whose client is waited for costs a descriptor and gives nothing, so it is what goes first: after a while, or as
soon as another one needs its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TypeVar

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from diffgrm.apps.serving.problems import Problem
from diffgrm.apps.serving.settings import Bounds

logger = logging.getLogger(__name__)

B = TypeVar("B", bound=Bounds)

BACKLOG = 128  # connections that the system holds until they are taken; so many are taken at once
SPARE = 64  # connections above the bound that are told so; those above them are closed without a word
RESERVED = SPARE + 2 * BACKLOG + 64  # descriptors for them, for some that are just being taken, and for files


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of a connection for which there is no place."""
    headers = {"Retry-After": "1", "Connection": "close"}
    await Problem(503, "too many connections are at work; come back later", headers=headers).response()(
        scope, receive, send
    )


class Connection(H11Protocol):
    """A connection with bounds on what its client may take.

    Uvicorn itself bounds the time between requests only, and forgets that bound at the first byte of the next one.
    """

    limits: Bounds
    _head: asyncio.TimerHandle | None = None  # ends a connection whose next request's head is not there in time
    _unread: asyncio.TimerHandle | None = None  # ends one whose client takes nothing of what it was sent
    _left = 0  # bytes that were not taken when the client was last looked at
    _since = 0.0  # when it was opened, or last answered

    @property
    def awaits_client(self) -> bool:
        """Whether no whole request is at work."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See :class:`asyncio.BaseProtocol`."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        self._since = self.loop.time()
        more = len(self.connections) - self.limits.connections
        if more > 0 and not self._make_room():
            self.app = refuse
            if more > SPARE:
                transport.abort()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.BaseProtocol`."""
        super().connection_lost(exc)
        for timer in (self._head, self._unread, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """See uvicorn; it waits for the next request now."""
        self._since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Some of an answer waits for the client to take it."""
        super().pause_writing()
        self._left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.limits.idle_seconds, self._look_at_unread)

    def resume_writing(self) -> None:
        """The client took all."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _watch_head(self) -> None:
        """Start the clock where a request's head is waited for, unless it runs; stop it where a request is there."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._head is not None:
                self._head.cancel()
                self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(self.limits.head_seconds, self.transport.abort)

    def _look_at_unread(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= self._left:
            self.transport.abort()
        else:
            self._left, self._unread = left, self.loop.call_later(self.limits.idle_seconds, self._look_at_unread)

    def _make_room(self) -> bool:
        """End the other connection that has awaited its client longest; whether there was one."""
        others = [c for c in self.connections if c is not self and isinstance(c, Connection) and c.awaits_client]
        oldest = min(others, key=lambda other: other._since, default=None)
        if oldest is None:
            return False
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True


def connections_within(limits: Bounds) -> type[Connection]:
    """The kind of connections of a server with these bounds."""
    return type("BoundedConnection", (Connection,), {"limits": limits})


def within_descriptors(limits: B) -> B:
    """The bounds with as many connections as this process has descriptors for, of which it first asks for enough."""
    with contextlib.suppress(ImportError):  # where there are no such bounds
        import resource

        few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = limits.connections + RESERVED
        if few != resource.RLIM_INFINITY and few < wanted:
            few = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
        if few != resource.RLIM_INFINITY and few < wanted:
            possible = max(few - RESERVED, few // 2)
            logger.warning("Only %d connections instead of %d: this process may open %d files (ulimit -n)",
                           possible, limits.connections, few)  # fmt: skip
            return limits.model_copy(update={"connections": possible})
    return limits
