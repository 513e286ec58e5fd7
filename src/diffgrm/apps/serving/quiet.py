"""A log that clients cannot flood."""

from __future__ import annotations

import logging
import time

SECONDS = 10.0  # between two warnings of one kind
MOST_KINDS = 100  # that are kept in mind


class Seldom(logging.Filter):
    """Lets a warning of each kind through once in a while, with the number of those that were left out since.

    Kinds are told apart by the first line of the text before values are put in; errors with a stack trace of the app itself
    are never left out.

    Args:
        seconds: between two warnings of one kind.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        super().__init__()
        self.seconds = seconds
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See :class:`logging.Filter`."""
        kind = str(record.msg).splitlines()[0] if record.msg else ""
        if record.levelno < logging.WARNING or kind.startswith("Exception in ASGI"):
            return True
        now = time.monotonic()
        if now - self._last.get(kind, -self.seconds) < self.seconds:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        if len(self._last) >= MOST_KINDS:
            self._last.clear()
        self._last[kind] = now
        if left_out := self._left_out.pop(kind, 0):
            record.msg = f"{record.msg} (and {left_out:,} more of this kind since the last one that was logged)"
        return True


def keep_quiet(*loggers: str) -> None:
    """Let loggers repeat a warning seldom."""
    seldom = Seldom()
    for name in loggers:
        if not any(isinstance(found, Seldom) for found in logging.getLogger(name).filters):
            logging.getLogger(name).addFilter(seldom)
