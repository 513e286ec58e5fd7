"""What commands are told of one history: its events, and a profile of its user."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from diffgrm.apps.cli.shared import as_text, pairs_of
from diffgrm.apps.serving.given import entry
from diffgrm.foundation.plain_values import read_json
from diffgrm.foundation.schema import DataError

LONGEST_SHOWN = 200  # characters of an event that a message shows
ONE_USER = "history"  # the name of the user of --history in what is written

HISTORY = typer.Option(
    help='One history, oldest first: item ids, or events as over HTTP, {"item_id": "a", "time": "2024-05-01T19:10"}, with '
    "type, time or values (repeat the option)."
)
Profile = Annotated[
    list[str] | None,
    typer.Option(help="What is known of the user of --history: COLUMN=VALUE (repeat the option)."),
]


def history_of(given: list[str]) -> list[Any]:
    """The entries of ``--history``: an id as it stands, an object in JSON as an event.

    Raises:
        DataError: what begins like an object and is none of an event.
    """
    return [_event(text) if text.lstrip().startswith("{") else text for text in map(as_text, given)]


def _event(text: str) -> Any:
    try:
        told = read_json(text)
    except ValueError as error:
        raise DataError(
            f"--history {text[:LONGEST_SHOWN]}: what begins with a brace is an event in JSON, and this is none ({error}); "
            'expected such as {"item_id": "a", "time": "2024-05-01T19:10"}; an id that begins so is written {"item_id": ID}'
        ) from error
    try:
        return entry(told)
    except ValueError as error:
        raise DataError(f"--history {text}: {error}") from error


def profile_of(given: list[str] | None) -> dict[str, str] | None:
    """COLUMN=VALUE pairs as a mapping; None where there are none.

    Raises:
        DataError: other pairs, or a column twice.
    """
    if not given:
        return None
    return pairs_of(given, "--profile", "COLUMN=VALUE")
