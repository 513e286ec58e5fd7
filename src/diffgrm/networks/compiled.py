"""torch.compile for the decoder layers of a network (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from diffgrm.networks.blocks import DecoderLayer


def compile_layers(network: nn.Module, backend: str = "inductor") -> None:
    """From now on the network's decoder layers run compiled, in this process; weights and answers (but for rounding) stay.

    All layers share what is compiled. That takes a minute or two at first use, for each of training and inference, and
    needs a C++ compiler on the CPU.

    Args:
        backend: of ``torch.compile``.
    """
    compiled_forward: Any = torch.compile(DecoderLayer.forward, dynamic=True, backend=backend)
    for layer in network.modules():
        if isinstance(layer, DecoderLayer):
            layer.forward = compiled_forward.__get__(layer)  # type: ignore[method-assign]


@contextmanager
def compiled(network: nn.Module, wanted: bool) -> Iterator[None]:
    """The decoder layers run compiled inside the block, if that is wanted."""
    if wanted:
        compile_layers(network)
    try:
        yield
    finally:
        for layer in network.modules() if wanted else ():
            if isinstance(layer, DecoderLayer):
                del layer.forward  # the class's own is seen again
