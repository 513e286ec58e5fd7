"""What stands before the app: which names it answers to, methods, bounds on bodies and their time, headers for browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffgrm.apps.serving.problems import METHODS, Problem
from diffgrm.apps.serving.settings import Bounds

ANY_HOST = "*"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CLIENT_GONE = 499  # nobody gets it; it is what is counted
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Methods:
    """ASGI middleware: HEAD is GET without a body, and methods that nobody knows are one and the same to metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method = scope["method"]
        if method != "HEAD":
            return await self.app(scope if method in METHODS else {**scope, "method": "OTHER"}, receive, send)

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        return await self.app({**scope, "method": "GET"}, receive, send_without_body)


class Guard:
    """ASGI middleware: a request reaches the app if it names this host, once its body is there, whole and not too large.

    Args:
        hosts: names and addresses that requests may be made to, so that no page of another site reaches this server by a
            name that leads here; ``"*"`` is any.
    """

    def __init__(self, app: ASGIApp, limits: Bounds, hosts: Collection[str]) -> None:
        self.app, self.limits = app, limits
        self.hosts = {_plain(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check_host(scope)
            body = await self._body(scope, receive)
        except Problem as problem:
            return await problem.response()(scope, receive, send_with_headers)
        if body is None:
            return await Response(status_code=CLIENT_GONE)(scope, receive, send)
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await self.app(scope, replay, send_with_headers)

    def _check_host(self, scope: Scope) -> None:
        given = Headers(scope=scope).getlist("host")
        if ANY_HOST not in self.hosts and (len(given) != 1 or _plain(_without_port(given[0])) not in self.hosts):
            raise Problem(421, "this server does not answer to the host that the request names (--allow-host NAME)")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        limit = self.limits.body_bytes
        too_large = Problem(413, f"the body is larger than {limit:,} bytes", headers={"Connection": "close"})
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            seconds = f"{self.limits.body_seconds:g}"
            raise Problem(
                408, f"the body took longer than {seconds} s to arrive", headers={"Connection": "close"}
            ) from None


def _without_port(host: str) -> str:
    """The name or address of a Host header.

    >>> _without_port("Shop.example:8000"), _without_port("[::1]:8000"), _without_port("::1")
    ('Shop.example', '[::1]', '::1')
    """
    name, colon, port = host.rpartition(":")
    bare = ":" in name and not name.endswith("]")  # an address of version 6 without brackets
    return name if colon and port.isdecimal() and not bare else host


def _plain(host: str) -> str:
    """A name in small letters without its last dot, an address of version 6 without its brackets."""
    return host.lower().removesuffix(".").removeprefix("[").removesuffix("]")
