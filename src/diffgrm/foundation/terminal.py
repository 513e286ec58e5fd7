"""The terminal: standard output and errors, where text is text, whoever wrote it and whatever the encoding has.

Markup, emoji codes and colours of values are off: ``[red]`` and ``:smile:`` are printed as they are. Styles come from
:func:`styled`. Every console and progress bar of the library is one of these.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from diffgrm.foundation.shown import visible, visible_lines


class Terminal(Console):
    """A console that prints texts as they are, with control characters escaped.

    Args:
        options: further arguments of rich's console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as rich's own; whatever is printed and stands in tables goes through here."""
        return super().render_str(visible_lines(text), **options)


console = Terminal()
errors = Terminal(stderr=True)


def say(line: str) -> None:
    """Print a message, in one line however narrow the terminal is, so that paths in it can be copied."""
    console.print(line, soft_wrap=True)


def complain(what: str, message: str) -> None:
    """Print an error: its kind, and what there is to say."""
    errors.print(styled("Error:", "bold red"), what)
    errors.print(message, soft_wrap=True)


def styled(value: object, style: str = "", **options: Any) -> Text:
    """A value in one line of a style, as :func:`diffgrm.foundation.shown.visible` shows it.

    Args:
        style: of rich, such as ``"bold"``.
        options: further arguments of rich's text.
    """
    return Text(visible(value), style, **options)


@contextmanager
def progress_bar(
    what: str, total: int | None, quiet: bool = False, *, done: int = 0, in_bytes: bool = False
) -> Iterator[Callable[[int], None]]:
    """A progress bar; the block calls the yielded function with the number of things done since the last call.

    Args:
        total: things to do; None: nobody knows.
        quiet: show none.
        done: things that were done before.
        in_bytes: the things are bytes.
    """
    counted = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    amounts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else counted
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *amounts)
    with Progress(*columns, console=errors, transient=True, disable=quiet) as bar:
        task = bar.add_task(visible(what), total=total, completed=done)
        yield lambda more: bar.advance(task, more)


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


class _Once(logging.Filter):
    """Lets a warning through once; a fit of several models would say the same of the same items for each."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        if record.levelno != logging.WARNING:
            return True
        text, known = f"{record.msg} {record.args}", len(self._told)
        self._told.add(text)
        return len(self._told) > known


def log_to_terminal(verbose: bool) -> None:
    """Show warnings of all libraries and messages of this one on standard errors; the same words of a warning once.

    Args:
        verbose: also what is of interest to developers.
    """
    handler = RichHandler(
        console=errors, show_path=False, show_time=False, highlighter=NullHighlighter(), keywords=[], markup=False
    )
    handler.setFormatter(_Visible("%(message)s"))
    handler.addFilter(_Once())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("diffgrm").setLevel(logging.DEBUG if verbose else logging.INFO)


def repeat_warnings() -> None:
    """From now on show warnings as often as they come; a server warns of other people's requests, for long."""
    for handler in logging.getLogger().handlers:
        for found in [one for one in handler.filters if isinstance(one, _Once)]:
            handler.removeFilter(found)


def open_closed_streams() -> None:
    """Let standard streams that are closed lead nowhere; else a file that is opened would take the place of one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in this order, which is that of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def replace_unknown_characters() -> None:
    """Let the standard streams replace what their encoding lacks, where it would end the program otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
