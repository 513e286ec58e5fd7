"""Transformer blocks shared by the networks. Pre-norm; every attention masks padding.

Dropout acts on embeddings and on what each sublayer adds to the residual stream (as in the first Transformer), not on
attention weights, so that the fused attention kernels serve training too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIMES_ON_GPUS = 32  # as much is computed at once there: on the CPU more leaves the cache, on a GPU less leaves it idle
# Rows that fused attention takes at once: CUDA counts them along an axis of so many blocks. Compiled layers do not look.
MOST_ROWS = 2**16 - 1

Gated = Annotated[
    bool, "what each sublayer adds is multiplied by a sigmoid of a linear map of the stream before it (as in LiGR)"
]


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


def at_once(on_cpu: int, device: torch.device) -> int:
    """How many of something a device computes together, by what is best on the CPU."""
    return on_cpu if device.type == "cpu" else TIMES_ON_GPUS * on_cpu


def unrounded(device: torch.device) -> AbstractContextManager[Any]:
    """Products of numbers of 32 bits keep them inside, where autocast would round to 16: logits, scores and their kind."""
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


class Folded(NamedTuple):
    """Keys and values of a short history with the query and output matrices multiplied in.

    Attributes:
        key, value: [B, heads S, d].
        bias: [B, heads, S] what the query's bias adds to each score.
    """

    key: Tensor
    bias: Tensor
    value: Tensor


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
        if not torch.compiler.is_compiling() and len(query) > MOST_ROWS:
            rows = [slice(start, start + MOST_ROWS) for start in range(0, len(query), MOST_ROWS)]
            seen = [None if valid is None else valid[some] for some in rows]
            parts = zip(rows, seen, strict=True)
            return torch.cat([self.attend(query[some], key[some], value[some], mask, causal) for some, mask in parts])
        mask = None if valid is None else valid[:, None]
        y = F.scaled_dot_product_attention(self._heads(query), key, value, attn_mask=mask, is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    def folding_pays(self, questions: int, places: int) -> bool:
        """Whether it is cheaper to multiply the query and output matrices into the keys and values of a history than into
        the questions; the product is the same."""
        width = self.query.in_features
        return questions * (width + places) > places * (width + questions * self.heads)

    def fold(self, key: Tensor, value: Tensor) -> Folded:
        """Keys and values [B, heads, S, d/heads] with the query and output matrices multiplied in."""
        key = key * key.shape[-1] ** -0.5
        folded_key = torch.einsum("bhse,hed->bhsd", key, self.query.weight.unflatten(0, (self.heads, -1)))
        bias = torch.einsum("bhse,he->bhs", key, self.query.bias.unflatten(0, (self.heads, -1)))
        folded_value = torch.einsum("bhse,dhe->bhsd", value, self.out.weight.unflatten(1, (self.heads, -1)))
        return Folded(folded_key.flatten(1, 2), bias, folded_value.flatten(1, 2))

    def weigh(self, x: Tensor, folded: Folded, valid: Tensor) -> Tensor:
        """How much every question of x [B, T, d] takes of each row of ``folded.value``: [B, T, heads S].

        Places stand before questions inside, since a softmax over few neighbours is slow on the CPU.
        """
        bias = folded.bias
        if valid.shape[1] == 1:  # the same for all questions
            bias = bias.masked_fill(~valid, -torch.inf)
        score = torch.baddbmm(bias.flatten(1)[..., None], folded.key, x.transpose(1, 2))  # [B, h S, T]
        score = score.unflatten(1, (self.heads, -1))
        if valid.shape[1] > 1:
            score = score.masked_fill(~valid.transpose(1, 2)[:, None], -torch.inf)
        return score.softmax(2).flatten(1, 2).transpose(1, 2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, d/heads]


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    @property
    def out(self) -> nn.Linear:
        """The layer that writes to the residual stream."""
        return cast(nn.Linear, self[2])

    def hidden(self, x: Tensor) -> Tensor:
        """X [..., d] -> [..., hidden], what ``out`` takes."""
        x = self[0](x)
        return self[1](x) if torch.is_grad_enabled() or torch.compiler.is_compiling() else torch.ops.aten.gelu_(x)


class Residual(nn.Module):
    """Adds what a sublayer says to the residual stream, with dropout.

    With a gate, x + sigmoid(W x + b) * sublayer(norm(x)), number by number: the gated residual of LiGR (arXiv 2502.03417)
    by our reading, in which the gate looks at the stream before its norm and dropout is inside of it.

    Without one, where nothing is learnt, the sum is written over the stream: a product that adds to what is there saves
    two passes over memory and their allocations, which is a fifth of decoding on the CPU.

    Args:
        gated: the width of the gate; None: there is none.
    """

    def __init__(self, dropout: float, gated: int | None = None) -> None:
        super().__init__()
        self.drop = Dropout(dropout)
        self.gate = None if gated is None else nn.Linear(gated, gated)

    def linear(self, x: Tensor, layer: nn.Linear, y: Tensor) -> Tensor:
        """X + layer(y), for x and y [..., d]; x may be overwritten."""
        if self._keeps(x):
            return x + self._let_through(x, self.drop(layer(y)))
        x.add_(layer.bias)
        x.view(-1, x.shape[-1]).addmm_(y.reshape(-1, y.shape[-1]), layer.weight.t())
        return x

    def product(self, x: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """X + bias + a b, for x [B, T, d], a [B, T, m] and b [B, m, d]; x may be overwritten."""
        if self._keeps(x):
            return x + self._let_through(x, self.drop(torch.baddbmm(bias, a, b)))
        return x.add_(bias).baddbmm_(a, b)

    def _let_through(self, x: Tensor, y: Tensor) -> Tensor:
        """What the gate, which sees x, leaves of y."""
        return y if self.gate is None else self.gate(x).sigmoid() * y

    def _keeps(self, x: Tensor) -> bool:
        """Whether x is still needed, the sum is made in another precision, or a compiler sees to the memory."""
        needed = self.gate is not None or torch.is_grad_enabled() or self.drop.training
        return needed or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)


class EncoderLayer(nn.Module):
    """Self-attention over the history, to both sides or backwards only (``causal``), then feed-forward."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, gated: bool = False) -> None:
        super().__init__()
        gate = width if gated else None
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(width), FeedForward(width, feed_forward)
        self.add_attention, self.add_feed_forward = Residual(dropout, gate), Residual(dropout, gate)

    def forward(self, x: Tensor, valid: Tensor, causal: bool = False) -> Tensor:
        """X [B, S, d] (may be overwritten), valid [B, S] (the first places of each row) -> [B, S, d].

        Backwards, no real place sees a padded one, so there is nothing to mask.
        """
        y = self.attention_norm(x)
        mask = None if causal else valid[:, None]
        y = self.attention.attend(self.attention.query(y), *self.attention.project(y), mask, causal)
        x = self.add_attention.linear(x, self.attention.out, y)
        return self.add_feed_forward.linear(x, self.feed_forward.out, self.feed_forward.hidden(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
    """Non-causal self-attention over the n digits, cross-attention over the encoded history, feed-forward.

    Q partial SIDs of one user are folded into the query axis of the cross-attention: the history's keys and values are
    neither copied nor projected again.

    Args:
        causal: a digit sees only those before it (for networks that fill digits from left to right).
        gated: what each sublayer adds goes through a gate, see :class:`Residual`.
    """

    def __init__(
        self, width: int, heads: int, feed_forward: int, dropout: float, causal: bool = False, gated: bool = False
    ) -> None:
        super().__init__()
        gate = width if gated else None
        self.causal = causal
        self.digits_norm, self.digits = nn.LayerNorm(width), Attention(width, heads)
        self.history_norm, self.history = nn.LayerNorm(width), Attention(width, heads)
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(width), FeedForward(width, feed_forward)
        self.add_digits, self.add_history = Residual(dropout, gate), Residual(dropout, gate)
        self.add_feed_forward = Residual(dropout, gate)

    def project_digits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [..., d], keys and values [..., 2d] of the attention over the digits, for digits x [..., d]."""
        y = self.digits_norm(x)
        return self.digits.query(y), self.digits.key_value(y)

    def forward(
        self,
        x: Tensor,
        history: tuple[Tensor, Tensor] | Folded,
        valid: Tensor,
        wanted: Tensor | None = None,
        projected: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """X [B, Q, n, d] (may be overwritten) -> [B, Q, n, d].

        Args:
            history: its keys and values, plain or folded; valid: [B, 1 or Q n, S] what each digit may look at.
            wanted: [B, C] places among the Q n digits; only those come out, [B, C, d].
            projected: ``project_digits`` of x, where it is known.
        """
        query, key_value = (part.flatten(0, 1) for part in projected or self.project_digits(x))  # [B Q, n, ...]
        y = self.digits.attend(query, *self.digits.split(key_value), causal=self.causal)
        y = y.view(x.shape).flatten(1, 2)  # [B, Q n, d]
        shape, x = x.shape, x.flatten(1, 2)
        if wanted is not None:
            x, y = pick(x, wanted), pick(y, wanted)
            valid = valid if valid.shape[1] == 1 else pick(valid, wanted)
        x = self._after(x, y, history, valid)
        return x if wanted is not None else x.view(shape)

    def extend(
        self, x: Tensor, past: Tensor | None, history: tuple[Tensor, Tensor] | Folded, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One more digit of partial SIDs whose earlier digits are not looked at again.

        Args:
            x: [B, Q, d] the new digits (may be overwritten).
            past: [B, Q, j, 2d] keys and values of the digits before them, as the last call gave them; None for the first.

        Returns:
            [B, Q, d], and keys and values [B, Q, j + 1, 2d].
        """
        query, key_value = self.project_digits(x)
        past = key_value[:, :, None] if past is None else torch.cat([past, key_value[:, :, None]], 2)
        y = self.digits.attend(query.flatten(0, 1)[:, None], *self.digits.split(past.flatten(0, 1)))
        return self._after(x, y.view(x.shape), history, valid), past

    def _after(self, x: Tensor, y: Tensor, history: tuple[Tensor, Tensor] | Folded, valid: Tensor) -> Tensor:
        """What follows the attention over the digits, which gave y: x and y [B, C, d] -> [B, C, d]."""
        x = self.add_digits.linear(x, self.digits.out, y)
        y = self.history_norm(x)
        if isinstance(history, Folded):
            weight = self.history.weigh(y, history, valid)
            x = self.add_history.product(x, self.history.out.bias, weight, history.value)
        else:
            y = self.history.attend(self.history.query(y), *history, valid)
            x = self.add_history.linear(x, self.history.out, y)
        return self.add_feed_forward.linear(x, self.feed_forward.out, self.feed_forward.hidden(self.feed_forward_norm(x)))


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
        if isinstance(part, Attention | FeedForward):
            with torch.no_grad():
                part.out.weight.mul_((2 * layers) ** -0.5)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Dropout off inside the block; the mode of every module is put back afterwards."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
