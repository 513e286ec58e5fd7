"""The HTTP app of a saved retriever of documents."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import FastAPI

from diffgrm.apps.serving.guard import LOOPBACK
from diffgrm.apps.serving.model_app import app_of
from diffgrm.apps.serving.searching import LiveRetriever, SearchServer, about, searching
from diffgrm.apps.serving.settings import SearchLimits
from diffgrm.apps.serving.status import status

PAGES = {"/docs": "docs.html", "/explorer/docs.js": "docs.js", "/explorer/icon.svg": "icon.svg"}


def create_search_app(
    live: LiveRetriever, limits: SearchLimits | None = None, *, hosts: Collection[str] = LOOPBACK
) -> FastAPI:
    """The app that finds documents. None of its routes changes anything, so that none asks for a token.

    Args:
        hosts: see :func:`diffgrm.apps.serving.app.create_app`.
    """
    server = SearchServer(live, limits or SearchLimits())
    routers = searching(server), status(server), about(server)
    return app_of(server, routers, PAGES, "Documents from a saved retriever of diffgrm.", hosts)
