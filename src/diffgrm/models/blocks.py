"""Transformer blocks shared by the networks (floor 3). Pre-norm; every attention masks padding.

Dropout acts on embeddings and on what each sublayer adds to the residual stream (as in the first Transformer), not on
attention weights, so that the fused attention kernels serve training too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout whose rate is a multiple of 1/256: on the CPU one random 64-bit word then decides for eight values.

    Drawing one number a value costs a fifth of a training step there. Outputs keep their expectation exactly.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = min(round(rate * 256), 255)  # bytes below this drop

    def forward(self, x: Tensor) -> Tensor:
        """X of any shape; unchanged outside training."""
        if not self.training or self.dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.dropped / 256)
        words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,))
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * keep * (256 / (256 - self.dropped))


class Attention(nn.Module):
    """Multi-head attention whose keys and values are projected apart, so that a history is projected once."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, S, d/heads] of x [B, S, d]."""
        key, value = self.key_value(x).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None) -> Tensor:
        """Attend from x [B, T, d] to projected keys and values; ``valid`` [B, S] is false where padded."""
        return self.out(self.attend(x, key, value, valid))

    def attend(self, x: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None) -> Tensor:
        """The same before the layer that writes to the residual stream."""
        mask = None if valid is None else valid[:, None, None, :]
        y = F.scaled_dot_product_attention(self._split(self.query(x)), key, value, attn_mask=mask)
        return y.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, d/heads]


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    @property
    def out(self) -> nn.Module:
        """The layer that writes to the residual stream."""
        return self[-1]


class EncoderLayer(nn.Module):
    """Self-attention over the history, then feed-forward."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(width), FeedForward(width, feed_forward)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """X [B, S, d], valid [B, S] -> [B, S, d]."""
        y = self.attention_norm(x)
        x = x + self.drop(self.attention(y, *self.attention.project(y), valid))
        return x + self.drop(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
    """Non-causal self-attention over the n digits, cross-attention over the history, feed-forward.

    Q partial SIDs of one user are folded into the query axis of the cross-attention: the history's keys and values are
    neither copied nor projected again.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.digits_norm, self.digits = nn.LayerNorm(width), Attention(width, heads)
        self.history_norm, self.history = nn.LayerNorm(width), Attention(width, heads)
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(width), FeedForward(width, feed_forward)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, valid: Tensor, wanted: Tensor | None = None) -> Tensor:
        """X [B, Q, n, d], keys and values of the history, valid [B, S] -> [B, Q, n, d].

        With ``wanted`` [B, C], places among the Q n digits, only those come out: [B, C, d].
        """
        shape = x.shape
        y = self.digits_norm(x).flatten(0, 1)  # [B Q, n, d]
        y = self.digits.attend(y, *self.digits.project(y)).view(shape).flatten(1, 2)  # [B, Q n, d]
        x = x.flatten(1, 2)
        if wanted is not None:
            x, y = pick(x, wanted), pick(y, wanted)
        x = x + self.drop(self.digits.out(y))
        x = x + self.drop(self.history(self.history_norm(x), key, value, valid))
        x = x + self.drop(self.feed_forward(self.feed_forward_norm(x)))
        return x if wanted is not None else x.view(shape)


def pick(x: Tensor, places: Tensor) -> Tensor:
    """The places [B, C] of x [B, T, d]: [B, C, d]."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


def scale_by_fan_in(module: nn.Module, layers: int) -> None:
    """Linear weights of std 1/sqrt(fan-in); those that write to the residual stream smaller by sqrt(2 layers)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Attention | FeedForward) and isinstance(part.out, nn.Linear):
            with torch.no_grad():
                part.out.weight.mul_((2 * layers) ** -0.5)
