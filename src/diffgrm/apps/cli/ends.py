"""How commands end early: by SIGTERM with status 143, by Ctrl-C with 130, and never without a word."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ended(BaseException):
    """The process was told to end. What is under way cleans up after itself; nothing catches it on purpose."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.hint = number, "What was to be written is as it was before."


@contextmanager
def ended_with_a_word() -> Iterator[None]:
    """Signals end the block: the process says so and exits with 128 + their number. A second one ends it at once."""
    before = {number: signal.signal(number, _end) for number in SIGNALS}
    try:
        yield
    except Ended as end:
        from diffgrm.foundation.terminal import errors

        errors.print(f"Ended by {signal.Signals(end.number).name}. {end.hint}", soft_wrap=True)
        sys.exit(128 + end.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def hint(words: Callable[[], str]) -> Iterator[None]:
    """What is said where the block is ended by a signal."""
    try:
        yield
    except Ended as end:
        end.hint = words()
        raise


def leave_to_others() -> None:
    """From now on signals do what they do without us; a server has its own way to end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Ended(number)
