"""The HTTP app of a saved model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from prometheus_fastapi_instrumentator import Instrumentator

from diffgrm import __version__
from diffgrm.apps.serving.answers import answers
from diffgrm.apps.serving.guard import LOOPBACK, Guard, Methods
from diffgrm.apps.serving.items import catalogue
from diffgrm.apps.serving.live import LiveModel, UserHistories
from diffgrm.apps.serving.problems import describe_problems, problem_responses
from diffgrm.apps.serving.server import Server
from diffgrm.apps.serving.settings import Limits
from diffgrm.apps.serving.status import status

EXPLORER = Path(__file__).parent / "explorer"
PAGE_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGES = {"/": "index.html", "/docs": "docs.html"}

ASK_AGAIN = {"Cache-Control": "no-cache"}


def create_app(
    live: LiveModel,
    limits: Limits | None = None,
    *,
    token: str | None = None,
    users: UserHistories | None = None,
    hosts: Collection[str] = LOOPBACK,
) -> FastAPI:
    """The app that answers for a model.

    Args:
        token: whoever sends it as a bearer token may change the catalogue; None: nobody may.
        users: histories of users who can be asked for by id.
        hosts: names and addresses, without ports, that requests may be made to; ``"*"`` is any.

    Raises:
        DataError: a token that cannot be sent over HTTP, or is too short to be one.
    """
    limits = limits or Limits()
    server = Server(live, limits, token, users)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.tell_version()
        server.engine.begin()
        server.changes.begin()
        watching = asyncio.create_task(server.watch())
        yield
        watching.cancel()
        server.changes.close()
        await server.engine.close()

    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would send clients to whatever host they name
        title="diffgrm",
        version=__version__,
        description="Recommendations from a saved diffgrm model. Errors are RFC 9457 problem details. Parameters and "
        "fields that a route does not have, and those that stand twice, are errors.",
        lifespan=lifespan,
        responses=problem_responses(421),
    )
    describe_problems(app)
    app.add_middleware(Guard, limits=limits, hosts=hosts)
    instruments = Instrumentator(registry=server.registry, excluded_handlers=["/metrics"]).instrument(app)
    instruments.expose(app, include_in_schema=False)
    app.add_middleware(Methods)  # the outermost
    app.state.server = server
    for routes in (answers, catalogue, status):
        app.include_router(routes(server))
    _pages(app)
    return app


def _pages(app: FastAPI) -> None:
    """The explorer, and the description of all routes."""
    for path, name in PAGES.items():
        app.add_api_route(path, _page(EXPLORER / name), include_in_schema=False)
    app.mount("/explorer", _PageFiles(directory=EXPLORER), name="explorer")


def _page(file: Path) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return FileResponse(file, headers={"Content-Security-Policy": PAGE_POLICY} | ASK_AGAIN)

    return page


class _PageFiles(StaticFiles):
    """The page's files; a browser asks whether they changed, so that they are of one version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(ASK_AGAIN)
        return response
