"""Layers over one stream of tokens that all see one another, as encoder-only diffusion language models have them.

Letters: B sequences, T tokens of each, d width.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from diffgrm.networks.blocks import Attention, FeedForward, Residual

Norm = Annotated[Literal["layer", "rms"], "layer: LayerNorm; rms: RMSNorm (arXiv 1910.07467)"]

BASE = 10_000  # of the angles of rotary positions


def norm_of(kind: str, width: int) -> nn.Module:
    """A norm over the width, ``layer`` or ``rms``."""
    return nn.RMSNorm(width, eps=1e-5) if kind == "rms" else nn.LayerNorm(width)


class Rotation(NamedTuple):
    """Rotary positions (RoFormer, arXiv 2104.09864): queries and keys turn by their place, so that a score knows how far
    apart two tokens are, and nothing else of where they stand.

    Attributes:
        cos, sin: [B, T, d/heads/2].
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, places: Tensor, size: int) -> Rotation:
        """Of tokens at places [B, T], for heads of an even size."""
        speed = BASE ** (-torch.arange(0, size, 2, device=places.device) / size)
        angle = places[..., None] * speed
        return cls(angle.cos(), angle.sin())

    def queries(self, x: Tensor, heads: int) -> Tensor:
        """Queries [B, T, d], turned."""
        return _turned(x.unflatten(-1, (heads, -1)), self.cos[:, :, None], self.sin[:, :, None]).flatten(-2)

    def keys(self, x: Tensor) -> Tensor:
        """Keys [B, heads, T, d/heads], turned."""
        return _turned(x, self.cos[:, None], self.sin[:, None])

    def last(self, count: int) -> Rotation:
        """That of the last tokens."""
        return Rotation(self.cos[:, -count:], self.sin[:, -count:])


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each half of the last dimension with the other half; the sizes of cos and sin are those of a half."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class StreamLayer(nn.Module):
    """Pre-norm self-attention to both sides, then feed-forward."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, norm: str, gated: bool = False) -> None:
        super().__init__()
        gate = width if gated else None
        self.attention_norm, self.attention = norm_of(norm, width), Attention(width, heads)
        self.feed_forward_norm, self.feed_forward = norm_of(norm, width), FeedForward(width, feed_forward)
        self.add_attention, self.add_feed_forward = Residual(dropout, gate), Residual(dropout, gate)

    def forward(self, x: Tensor, valid: Tensor, rotation: Rotation | None = None, last: int | None = None) -> Tensor:
        """X [B, T, d] (may be overwritten), valid [B, T] -> [B, T, d].

        Args:
            rotation: of the tokens; None: their places are known from elsewhere.
            last: only so many tokens at the end come out, [B, last, d]; they still see all others.
        """
        y = self.attention_norm(x)
        key, value = self.attention.project(y)
        if last is not None:
            x, y = x[:, -last:].contiguous(), y[:, -last:]
        query = self.attention.query(y)
        if rotation is not None:
            key = rotation.keys(key)
            turned = rotation if last is None else rotation.last(last)
            query = turned.queries(query, self.attention.heads)
        x = self.add_attention.linear(x, self.attention.out, self.attention.attend(query, key, value, valid[:, None]))
        return self.add_feed_forward.linear(x, self.feed_forward.out, self.feed_forward.hidden(self.feed_forward_norm(x)))
