"""The HTTP app of a saved recommender."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles

from diffgrm.apps.serving.answers import answers
from diffgrm.apps.serving.guard import LOOPBACK
from diffgrm.apps.serving.items import catalogue
from diffgrm.apps.serving.live import LiveModel, UserHistories
from diffgrm.apps.serving.model_app import ASK_AGAIN, EXPLORER, app_of
from diffgrm.apps.serving.server import Server
from diffgrm.apps.serving.settings import Limits
from diffgrm.apps.serving.status import about, status

PAGES = {"/": "index.html", "/docs": "docs.html"}


def create_app(
    live: LiveModel,
    limits: Limits | None = None,
    *,
    token: str | None = None,
    users: UserHistories | None = None,
    hosts: Collection[str] = LOOPBACK,
) -> FastAPI:
    """The app that answers for a recommender.

    Args:
        token: whoever sends it as a bearer token may change the catalogue; None: nobody may.
        users: histories of users who can be asked for by id.
        hosts: names and addresses, without ports, that requests may be made to; ``"*"`` is any.

    Raises:
        DataError: a token that cannot be sent over HTTP, or is too short to be one.
    """
    server = Server(live, limits or Limits(), token, users)
    routers = answers(server), catalogue(server), status(server), about(server)
    app = app_of(server, routers, PAGES, "Recommendations from a saved diffgrm model.", hosts)
    app.mount("/explorer", _PageFiles(directory=EXPLORER), name="explorer")
    return app


class _PageFiles(StaticFiles):
    """The page's files; a browser asks whether they changed, so that they are of one version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(ASK_AGAIN)
        return response
