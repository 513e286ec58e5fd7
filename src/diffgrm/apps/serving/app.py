"""The HTTP app of a saved model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from prometheus_fastapi_instrumentator import Instrumentator

from diffgrm.apps.serving.answers import answers
from diffgrm.apps.serving.guard import Guard
from diffgrm.apps.serving.items import catalogue
from diffgrm.apps.serving.live import LiveModel, UserHistories
from diffgrm.apps.serving.problems import describe_problems
from diffgrm.apps.serving.server import Server
from diffgrm.apps.serving.settings import Limits
from diffgrm.apps.serving.status import status

EXPLORER = Path(__file__).parent / "explorer"
PAGE_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

ASK_AGAIN = {"Cache-Control": "no-cache"}


def create_app(
    live: LiveModel, limits: Limits | None = None, *, token: str | None = None, users: UserHistories | None = None
) -> FastAPI:
    """The app that answers for a model.

    Args:
        token: whoever sends it as a bearer token may change the catalogue; None: nobody may.
        users: histories of users who can be asked for by id.
    """
    limits = limits or Limits()
    server = Server(live, limits, token, users)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.tell_version()
        watching = asyncio.create_task(server.watch())
        yield
        watching.cancel()
        await server.engine.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="diffgrm",
        description="Recommendations from a saved diffgrm model. Errors are RFC 9457 problem details.",
        lifespan=lifespan,
    )
    describe_problems(app)
    app.add_middleware(Guard, limits=limits)
    instruments = Instrumentator(registry=server.registry, excluded_handlers=["/metrics"]).instrument(app)
    instruments.expose(app, include_in_schema=False)
    app.state.server = server
    for routes in (answers, catalogue, status):
        app.include_router(routes(server))
    _page(app)
    return app


def _page(app: FastAPI) -> None:
    """The explorer."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(EXPLORER / "index.html", headers={"Content-Security-Policy": PAGE_POLICY} | ASK_AGAIN)

    app.mount("/explorer", _PageFiles(directory=EXPLORER), name="explorer")


class _PageFiles(StaticFiles):
    """The page's files; a browser asks whether they changed, so that they are of one version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(ASK_AGAIN)
        return response
