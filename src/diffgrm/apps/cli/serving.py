"""The command line: diffgrm serve."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from diffgrm.apps.cli import ends
from diffgrm.apps.cli.shared import (
    Column,
    Device,
    Overrides,
    Precision,
    RulesFile,
    TimeFormat,
    TrustCode,
    check_idle,
    events_of,
    of_lists,
    pairs_of,
)
from diffgrm.foundation.schema import MissingExtraError

ServedModel = Annotated[
    Path, typer.Argument(help="Folder of the model; a newer model saved there is taken over under way.")
]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine's.")]
Port = Annotated[int, typer.Option(min=0, max=65535)]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="Name that clients call this server by, beside localhost and --host (may be repeated); '*' is any."),
]
LimitsGiven = Annotated[
    list[str] | None, typer.Option("--limit", help="A bound of the server, NAME=VALUE (repeat the option); see below.")
]


def serve(
    model: ServedModel,
    overrides: Overrides = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    allow_host: AllowHost = None,
    interactions: Annotated[
        Path | None, typer.Option(help="Events of users who can then be asked for by id: user_id, item_id, timestamp.")
    ] = None,
    column: Column = None,
    time_format: TimeFormat = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that changes of the catalogue need; or set DIFFGRM_TOKEN.")
    ] = None,
    limit: LimitsGiven = None,
    rules: RulesFile = None,
    device: Device = "auto",
    precision: Precision = "32",
    trust_code: TrustCode = False,
) -> None:
    """Answer over HTTP: recommendations, similar items, explanations, and a page to explore them.

    Bounds: body_bytes, histories, history, k, beam, candidates, filter, deepest, changes, queue, batch, seconds,
    head_seconds, idle_seconds, body_seconds, reload_seconds, connections; GET /model tells them.
    """
    begin_serving("diffgrm serve")
    from diffgrm.apps.serving.run import read_limits, read_token, run
    from diffgrm.apps.serving.settings import Limits

    if interactions is None:
        check_idle("no --interactions are given", {"--column": column, "--time-format": time_format})
    events = None if interactions is None else partial(events_of, interactions, column, time_format)
    token = read_token(token_file, os.environ.get("DIFFGRM_TOKEN"))
    bounds, names = read_limits(pairs_of(limit, "--limit", "NAME=VALUE"), Limits), allow_host or []
    settings = of_lists(overrides)
    run(model, settings, events, bounds, token, host, port, names, device, precision, trust_code, rules)


def begin_serving(command: str) -> None:
    """Let the server say when it ends, and warn as often as there is reason to.

    Raises:
        MissingExtraError: what it is made of is not installed.
    """
    from diffgrm.foundation.terminal import repeat_warnings

    try:
        import_module("diffgrm.apps.serving.run")
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", command) from error
    ends.leave_to_others()
    repeat_warnings()
