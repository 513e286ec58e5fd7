"""Start the server of a model folder."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import polars as pl
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.connections import BACKLOG, connections_within, within_descriptors
from diffgrm.apps.serving.guard import LOOPBACK
from diffgrm.apps.serving.live import LiveModel, UserHistories
from diffgrm.apps.serving.search_app import create_search_app
from diffgrm.apps.serving.searching import LiveRetriever
from diffgrm.apps.serving.server import usable_token
from diffgrm.apps.serving.settings import Bounds, Limits, SearchLimits
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, bullet_list, did_you_mean, readable
from diffgrm.ranking.rules import read_rules

logger = logging.getLogger(__name__)

STARTUP_FAILURE = 3  # exit code, that of uvicorn
LONGEST_CHANGE = 60  # seconds that a change under way has, before the server ends without its answer
EVERYWHERE = ("", "0.0.0.0", "::")  # addresses that stand for all of this machine's

B = TypeVar("B", bound=Bounds)


def run(
    folder: Path,
    overrides: Sequence[str],
    events: Callable[[EventSettings], pl.DataFrame] | None,
    limits: Limits,
    token: str | None,
    host: str,
    port: int,
    allow_hosts: Sequence[str],
    device: str,
    precision: Literal["32", "bf16"],
    trust_code: bool,
    rules: Path | None = None,
) -> None:
    """Serve until the process is told to end (SIGTERM or SIGINT); requests under way are then answered first.

    Args:
        events: reads those of users who can be asked for by id, as the model reads events.
    """
    live = LiveModel(folder, overrides, device, precision, trust_code, read_rules(rules))
    users = None if events is None else UserHistories(events(live.current.model.recipe.events))
    limits = within_descriptors(limits)
    app = create_app(live, limits, token=token, users=users, hosts=answered_hosts(host, allow_hosts))
    logger.info("Model %s: %d items. Changes of the catalogue are %s.", live.current.version, len(live.current.words),
                "off (no token)" if token is None else "behind the token")  # fmt: skip
    _serve(app, limits, host, port)


def run_search(
    folder: Path,
    overrides: Sequence[str],
    limits: SearchLimits,
    host: str,
    port: int,
    allow_hosts: Sequence[str],
    device: str,
    precision: Literal["32", "bf16"],
    trust_code: bool,
) -> None:
    """Serve a retriever of documents, see :func:`run`."""
    live = LiveRetriever(folder, overrides, device, precision, trust_code)
    limits = within_descriptors(limits)
    app = create_search_app(live, limits, hosts=answered_hosts(host, allow_hosts))
    logger.info("Model %s: %d documents.", live.current.version, len(live.current.titles))
    _serve(app, limits, host, port)


def _serve(app: FastAPI, limits: Bounds, host: str, port: int) -> None:
    server = _Uvicorn(app, limits, host=host, port=port, log_level="info")
    with suppress(KeyboardInterrupt):  # SIGINT, sent again once all is answered
        server.run()
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)


@contextmanager
def in_background(app: FastAPI, limits: Bounds | None = None) -> Iterator[str]:
    """Serve an app from a thread of this process, on a free port of loopback, while the block lasts; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    server = _Uvicorn(app, limits or Bounds(), log_level="warning")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


class _Uvicorn(uvicorn.Server):
    """A server that refuses waiting changes when it is told to end, and then answers what is under way."""

    def __init__(self, app: FastAPI, limits: Bounds, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, **_how(limits), **options))
        self._server = app.state.server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._server.end()
        await super().shutdown(sockets)


def _how(limits: Bounds) -> dict[str, Any]:
    """What uvicorn is told: connections of our own kind, and no web sockets, whose connections nothing would bound."""
    return {
        "loop": "asyncio",
        "http": connections_within(limits),
        "ws": "none",
        "backlog": BACKLOG,
        "server_header": False,
        "access_log": False,
        "timeout_keep_alive": limits.idle_seconds,
        "timeout_graceful_shutdown": int(limits.seconds) + LONGEST_CHANGE,
    }


def answered_hosts(host: str, allowed: Sequence[str]) -> list[str]:
    """The names and addresses that a server answers to: those of loopback, the one that it listens at, and those allowed.

    Raises:
        DataError: an allowed name that holds more than a name.
    """
    for name in allowed:
        if not name or set(name) & set("/@ ,") or name.count(":") == 1:
            raise DataError(f"--allow-host {name!r}: expected a name or address without scheme and port, or '*' for any")
    if host in EVERYWHERE and not allowed:
        logger.warning(
            "Listening at all addresses of this machine, but answering to %s only: --allow-host NAME (repeat it) adds "
            "names that others call it by, --allow-host '*' is any",
            ", ".join(LOOPBACK),
        )
    return [*LOOPBACK, *(() if host in EVERYWHERE else (host,)), *allowed]


def read_token(path: Path | None, given: str | None) -> str | None:
    """The token from a file, else from the environment.

    Raises:
        DataError: no such file, or a token that :func:`usable_token` refuses.
    """
    if path is not None:
        try:
            given = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the token file {path} cannot be read: {error}") from error
    elif given is None:
        return None
    return usable_token(given)


def read_limits(values: Mapping[str, str], kind: type[B]) -> B:
    """Bounds of a kind of server from texts, by their names.

    Raises:
        DataError: unknown names or unusable values, all of them told.
    """
    unknown = [name for name in values if name not in kind.model_fields]
    if unknown:
        hints = [f"{name!r} is not a bound{did_you_mean(name, kind.model_fields)}" for name in unknown]
        raise DataError(bullet_list(hints))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise DataError(
            "bounds that cannot be used:\n" + bullet_list(f"{e['loc'][0]}: {readable(e)}" for e in error.errors())
        ) from error
