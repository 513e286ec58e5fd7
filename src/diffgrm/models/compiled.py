"""torch.compile for a network's ``denoise`` (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def compile_denoise(network: nn.Module, backend: str = "inductor") -> None:
    """From now on the network's ``denoise`` runs compiled, in this process; weights and answers (but for rounding) stay.

    Compiling takes minutes at first use, for each of training and inference, and needs a C++ compiler on the CPU.

    Args:
        backend: of ``torch.compile``.
    """
    whole: Any = network
    whole.denoise = torch.compile(whole.denoise, dynamic=True, backend=backend)


@contextmanager
def compiled(network: nn.Module, wanted: bool) -> Iterator[None]:
    """``denoise`` runs compiled inside the block, if that is wanted."""
    if wanted:
        compile_denoise(network)
    try:
        yield
    finally:
        if wanted:
            del network.denoise  # the class's own is seen again
