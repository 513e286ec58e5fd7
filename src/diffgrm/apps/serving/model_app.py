"""What every server's app is made of: the guard before it, errors, metrics, its description."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse
from fastapi_offline import FastAPIOffline
from prometheus_fastapi_instrumentator import Instrumentator

from diffgrm import __version__
from diffgrm.apps.serving.guard import Guard, Methods
from diffgrm.apps.serving.model_server import ModelServer
from diffgrm.apps.serving.problems import describe_problems, problem_responses

EXPLORER = Path(__file__).parent / "explorer"
PAGE_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
ASK_AGAIN = {"Cache-Control": "no-cache"}


def app_of(
    server: ModelServer, routers: Iterable[APIRouter], pages: Mapping[str, str], what: str, hosts: Collection[str]
) -> FastAPI:
    """The app of a server.

    Args:
        pages: files of the explorer's folder, by their paths.
        what: it gives, in words.
        hosts: names and addresses, without ports, that requests may be made to; ``"*"`` is any.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.begin()
        watching = asyncio.create_task(server.watch())
        yield
        watching.cancel()
        await server.close()

    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would send clients to whatever host they name
        title="diffgrm",
        version=__version__,
        description=f"{what} Errors are RFC 9457 problem details. Parameters and fields that a route does not have, and "
        "those that stand twice, are errors.",
        lifespan=lifespan,
        responses=problem_responses(421),
    )
    describe_problems(app)
    app.add_middleware(Guard, limits=server.limits, hosts=hosts)
    instruments = Instrumentator(registry=server.registry, excluded_handlers=["/metrics"]).instrument(app)
    instruments.expose(app, include_in_schema=False)
    app.add_middleware(Methods)  # the outermost
    app.state.server = server
    for router in routers:
        app.include_router(router)
    for path, name in pages.items():
        app.add_api_route(path, _page(EXPLORER / name), include_in_schema=False)
    return app


def _page(file: Path) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return FileResponse(file, headers={"Content-Security-Policy": PAGE_POLICY} | ASK_AGAIN)

    return page
