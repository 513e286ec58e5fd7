"""The left-to-right counterpart of DiffGRM's network, as in TIGER (Rajput et al., 2023): same encoder, causal decoder.

Letters: B batch, S history length, n digits, K codes, Q partial SIDs a user (targets or beams), d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.blocks import Gated, unrounded
from diffgrm.networks.decoder import DecoderDropout, DecoderLayers, DigitDecoder, Skip
from diffgrm.networks.history import (
    DropoutRate,
    EncoderSettings,
    FeedForward,
    Heads,
    History,
    HistoryNetwork,
    MaxLen,
    Positions,
    Start,
    Width,
)
from diffgrm.networks.item_vectors import Branches, DigitEmbedding, Sizes
from diffgrm.networks.memory import Memory


@dataclass(frozen=True)
class Prefix:
    """What the decoder has made of the first j digits of partial SIDs: its KV cache.

    Attributes:
        past: [B, Q, j, 2d] keys and values, one for each decoder layer.
    """

    past: tuple[Tensor, ...]

    def take(self, keep: Tensor) -> Prefix:
        """The partial SIDs ``keep`` [B, M] of every user."""
        where = keep[..., None, None]
        return Prefix(tuple(p.gather(1, where.expand(-1, -1, *p.shape[2:])) for p in self.past))


class Autoregressive(HistoryNetwork):
    """History encoder, and a decoder that predicts each digit from those before it; arguments as of ``DiffGRM``."""

    digits: DigitEmbedding
    decoder: DigitDecoder

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        n_items: int = 0,
        text_width: int = 0,
        width: Width = 128,
        heads: Heads = 4,
        encoder_layers: Annotated[int, Field(ge=0, le=1024), "layers over the history"] = 1,
        decoder_layers: DecoderLayers = 2,
        feed_forward: FeedForward = 512,
        dropout: DropoutRate = 0.1,
        max_len: MaxLen = 50,
        history: History = "bidirectional",
        branches: Branches = ("sid",),
        decoder_dropout: DecoderDropout = None,
        skip: Skip = False,
        positions: Positions = None,
        start: Start = "drawn",
        gated: Gated = False,
    ) -> None:
        causal = history == "causal"
        from_start = causal if positions is None else positions == "first"
        encoder = EncoderSettings(encoder_layers, heads, feed_forward, dropout, max_len, causal, from_start, gated)
        super().__init__(Sizes(n_digits, codebook_size, n_items, text_width, width), branches, encoder)
        later = dropout if decoder_dropout is None else decoder_dropout
        self.decoder = DigitDecoder(width, heads, decoder_layers, feed_forward, later, skip=skip, causal=True, gated=gated)
        self.start = nn.Parameter(torch.empty(1, width))  # stands before the first digit
        self.initialise([(self.digits.codes, 1), (self.encoder.position, 1), *self.branch_tables(), (self.start, 1)])

    def predict(self, codes: Tensor, memory: Memory) -> Tensor:
        """Logits of every digit, given the true ones before it (teacher forcing).

        Args:
            codes: [B, Q, n] digits.
            memory: of B users; with T slots, Q is T times the targets of each slot, slot after slot.

        Returns:
            [B, Q, n, K].
        """
        before = self.digits(codes)[..., :-1, :]
        start = (self.start * self.digits.scale).expand(*codes.shape[:2], 1, -1)
        x = self.decoder(self.decoder.drop(torch.cat([start, before], 2)), memory)
        with unrounded(x.device):
            return torch.einsum("bqnd,nkd->bqnk", x.float(), self.digits.tables.float())

    def next_digit(self, code: Tensor | None, prefix: Prefix | None, memory: Memory) -> tuple[Tensor, Prefix]:
        """Logits of the digit that comes next.

        Args:
            code: [B, Q] the digit filled last; None at the start, where Q is 1.
            prefix: what the last call gave, for the same partial SIDs; None at the start.

        Returns:
            [B, Q, K], and the prefix with that digit.
        """
        filled = 0 if prefix is None else prefix.past[0].shape[2]
        tables = self.digits.tables
        x = self.start.expand(len(memory), 1, -1) if code is None else tables[filled - 1][code]
        x, past = x * self.digits.scale, []
        for number, layer in enumerate(self.decoder.stack):
            history = memory.history(number, layer.history, x.shape[1])
            x, kept = layer.extend(x, None if prefix is None else prefix.past[number], history, memory.valid)
            past.append(kept)
        state = self.decoder.finished(x, memory)
        with unrounded(state.device):
            return state.float() @ tables[filled].T.float(), Prefix(tuple(past))
