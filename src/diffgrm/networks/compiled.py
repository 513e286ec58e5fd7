"""torch.compile for the Transformer layers of a network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.blocks import DecoderLayer, EncoderLayer
from diffgrm.networks.stream import StreamLayer

logger = logging.getLogger(__name__)

LAYERS = (EncoderLayer, DecoderLayer, StreamLayer)


def compile_layers(network: nn.Module, backend: str = "inductor") -> int:
    """From now on the network's layers run compiled, in this process; weights and answers (but for rounding) stay.

    Layers of one kind share what is compiled. That takes a minute or two at first use, for each of training and inference,
    and needs a C++ compiler on the CPU.

    Args:
        backend: of ``torch.compile``.

    Returns:
        The number of layers that run compiled.

    Raises:
        RecipeError: the network has none of the layers that can be compiled.
    """
    compiled_forward: dict[type, Any] = {
        kind: torch.compile(kind.forward, dynamic=True, backend=backend) for kind in LAYERS
    }
    layers = _layers(network)
    if not layers:
        raise RecipeError(
            f"{type(network).__name__} has no Transformer layers of this library to compile; leave compile out"
        )
    for layer in layers:
        layer.forward = compiled_forward[type(layer)].__get__(layer)  # type: ignore[method-assign]
    logger.info("%d Transformer layers run compiled", len(layers))
    return len(layers)


@contextmanager
def compiled(network: nn.Module, wanted: bool) -> Iterator[None]:
    """The layers run compiled inside the block, if that is wanted."""
    if wanted:
        compile_layers(network)
    try:
        yield
    finally:
        for layer in _layers(network) if wanted else ():
            del layer.forward  # the class's own is seen again


def _layers(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if type(module) in LAYERS]
