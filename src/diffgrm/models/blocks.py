"""Transformer blocks shared by the networks (floor 3). Pre-norm; every attention masks padding.

Dropout acts on embeddings and on what each sublayer adds to the residual stream (as in the first Transformer), not on
attention weights, so that the fused attention kernels serve training too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 5  # so many places or fewer attend to one another by plain products


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
    """Multi-head attention in parts, so that what several questions share is computed once."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, S, d/heads] of x [B, S, d]."""
        return self.split(self.key_value(x))

    def split(self, key_value: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, 2d] -> keys and values [B, heads, S, d/heads]."""
        key, value = key_value.chunk(2, dim=-1)
        return self._heads(key), self._heads(value)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Projected queries [B, T, d] over keys and values, before the output layer.

        Args:
            valid: [B, 1 or T, S] what each question may look at; None is everything.
            causal: question t looks at the places up to t.
        """
        mask = None if valid is None else valid[:, None]
        y = F.scaled_dot_product_attention(self._heads(query), key, value, attn_mask=mask, is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
        """Attend from x [B, T, d] to keys and values; ``valid`` [B, 1 or T, S]: what each question may look at.

        With many questions to a short history it is cheaper to multiply the query and output matrices into keys and values
        than into the questions; the product is the same.
        """
        T, width, S = x.shape[1], x.shape[2], key.shape[2]
        if T * (width + S) <= S * (width + T * self.heads):
            return self.out(self.attend(self.query(x), key, value, valid))
        return self._attend_folded(x, key, value, valid)

    def _attend_folded(self, x: Tensor, key: Tensor, value: Tensor, valid: Tensor) -> Tensor:
        key = key * key.shape[-1] ** -0.5
        weight = self.query.weight.unflatten(0, (self.heads, -1))  # [h, d/h, d]
        folded_key = torch.einsum("bhse,hed->bdhs", key, weight).flatten(2)  # [B, d, h S]
        bias = torch.einsum("bhse,he->bhs", key, self.query.bias.unflatten(0, (self.heads, -1)))
        if valid.shape[1] == 1:  # the same for all questions
            bias = bias.masked_fill(~valid, -torch.inf)
        score = torch.baddbmm(bias.flatten(1)[:, None], x, folded_key).unflatten(2, (self.heads, -1))  # [B, T, h, S]
        if valid.shape[1] > 1:
            score = score.masked_fill(~valid[:, :, None], -torch.inf)
        folded_value = torch.einsum("bhse,dhe->bhsd", value, self.out.weight.unflatten(1, (self.heads, -1))).flatten(1, 2)
        return torch.baddbmm(self.out.bias, score.softmax(-1).flatten(2), folded_value)

    def attend_few(self, query: Tensor, key_value: Tensor) -> Tensor:
        """Projected queries [B, n, d] over keys and values [B, n, 2d] of the same few places, before the output layer.

        On the CPU four digits are too few for the fused kernel to pay: plain products are faster.
        """
        if query.shape[1] > FEW or query.device.type != "cpu":
            return self.attend(query, *self.split(key_value))
        key, value = (part.unflatten(-1, (self.heads, -1)) for part in key_value.chunk(2, dim=-1))  # [B, n, h, d/h]
        query = query.unflatten(-1, (self.heads, -1)) * key.shape[-1] ** -0.5
        score = (query[:, :, None] * key[:, None]).sum(-1)  # [B, n, n, h]
        return (score.softmax(2)[..., None] * value[:, None]).sum(2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
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
    """Self-attention over the history, to both sides or backwards only (``causal``), then feed-forward."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(width), FeedForward(width, feed_forward)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor, causal: bool = False) -> Tensor:
        """X [B, S, d], valid [B, S] (the first places of each row) -> [B, S, d].

        Backwards, no real place sees a padded one, so there is nothing to mask.
        """
        y = self.attention_norm(x)
        mask = None if causal else valid[:, None]
        y = self.attention.attend(self.attention.query(y), *self.attention.project(y), mask, causal)
        x = x + self.drop(self.attention.out(y))
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

    def project_digits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [..., d], keys and values [..., 2d] of the attention over the digits, for digits x [..., d]."""
        y = self.digits_norm(x)
        return self.digits.query(y), self.digits.key_value(y)

    def forward(
        self,
        x: Tensor,
        projected: tuple[Tensor, Tensor],
        key: Tensor,
        value: Tensor,
        valid: Tensor,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """X [B, Q, n, d] -> [B, Q, n, d].

        Args:
            projected: ``project_digits`` of x.
            key, value: of the history; valid: [B, 1 or Q n, S] what each digit may look at.
            wanted: [B, C] places among the Q n digits; only those come out, [B, C, d].
        """
        query, key_value = (part.flatten(0, 1) for part in projected)  # [B Q, n, ...]
        y = self.digits.attend_few(query, key_value).view(x.shape).flatten(1, 2)  # [B, Q n, d]
        shape, x = x.shape, x.flatten(1, 2)
        if wanted is not None:
            x, y = pick(x, wanted), pick(y, wanted)
            valid = valid if valid.shape[1] == 1 else pick(valid, wanted)
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
