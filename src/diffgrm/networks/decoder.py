"""The decoder's stack over the digits of the next item, for masked diffusion and for left to right.

Letters: B batch, S history length, n digits, Q partial SIDs a user, d width.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.blocks import DecoderLayer, Dropout
from diffgrm.networks.memory import Memory

DecoderDropout = Annotated[float | None, Field(ge=0, lt=1), "dropout rate of the decoder; null: as elsewhere"]
Skip = Annotated[
    bool, "the state of the history's newest item goes past the decoder, whose layers begin by adding nothing to it"
]
DecoderLayers = Annotated[int, Field(ge=1, le=1024), "layers over the digits"]


class DigitDecoder(nn.Module):
    """Layers of attention over the digits and over the encoded history.

    Args:
        causal: whether a digit sees only those before it.
        skip: whether the state of the newest item goes past the layers, which then begin by adding nothing to it.
        gated: whether what each sublayer adds goes through a gate.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        feed_forward: int,
        dropout: float,
        causal: bool,
        skip: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(width)) if skip else None
        sizes = (width, heads, feed_forward, dropout, causal, gated)
        self.layers = nn.ModuleList(DecoderLayer(*sizes) for _ in range(layers))
        self.norm, self.drop = nn.LayerNorm(width), Dropout(dropout)

    @property
    def stack(self) -> list[DecoderLayer]:
        """The layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def project(self, hidden: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Keys and values of encoded histories [B, S, d], one pair a layer."""
        projected = [layer.history.project(hidden) for layer in self.stack]
        return tuple(key for key, _ in projected), tuple(value for _, value in projected)

    def forward(
        self,
        x: Tensor,
        memory: Memory,
        wanted: Tensor | None = None,
        projected: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """What the layers make of digits x [B, Q, n, d] (may be overwritten): [B, Q, n, d], or [B, C, d] of those wanted.

        Args:
            wanted: [B, C] places among the Q n digits; only those come out of the last layer.
            projected: what the first layer's attention makes of x, where it is known.
        """
        questions, valid, layers = x[0, ..., 0].numel(), memory.valid, self.stack
        if valid.shape[1] > 1:
            valid = valid.repeat_interleave(questions // valid.shape[1], dim=1)  # [B, Q n, S]
        for number, layer in enumerate(layers):
            history, first, last = memory.history(number, layer.history, questions), number == 0, layer is layers[-1]
            x = layer(x, history, valid, wanted if last else None, projected if first else None)
        if wanted is None:
            return self.finished(x, memory)
        newest = None
        if self.gate is not None:
            slots = memory.newest_of_slots()
            slot = wanted // (questions // slots.shape[1])
            newest = slots.gather(1, slot[..., None].expand(-1, -1, slots.shape[2]))
        return self._joined(x, newest)

    def finished(self, x: Tensor, memory: Memory) -> Tensor:
        """What the last layer made of digits, [B, Q, n, d] or [B, Q, d], ready to be compared with codes."""
        newest = None
        if self.gate is not None:
            slots = memory.newest_of_slots()
            newest = slots.repeat_interleave(x.shape[1] // slots.shape[1], dim=1)
            newest = newest[:, :, None] if x.ndim == 4 else newest
        return self._joined(x, newest)

    def _joined(self, x: Tensor, newest: Tensor | None) -> Tensor:
        x = self.norm(x)
        return x if newest is None or self.gate is None else x * self.gate + newest
