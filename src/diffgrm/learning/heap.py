"""Memory that training has freed, given back to the machine.

Batches of ever other lengths leave holes in the heap of glibc, which keeps them: some megabytes a step, gigabytes an hour.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from lightning.pytorch.callbacks import Callback

STEPS = 100  # between two times


class HeapTrimming(Callback):
    """Gives free pages of the heap back now and then; where the C library cannot, it does nothing."""

    def __init__(self) -> None:
        self._trim, self._steps = _malloc_trim(), 0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After every :data:`STEPS` steps, of however many epochs."""
        self._steps += 1
        if self._steps % STEPS == 0:
            self._trim(0)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Before the model is used."""
        self._trim(0)


def _malloc_trim() -> Callable[[int], Any]:
    """``malloc_trim`` of glibc; elsewhere nothing, under the same name."""
    try:
        found: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):  # no such function: other C libraries; no such call: Windows
        return lambda pad: 0
    return found
