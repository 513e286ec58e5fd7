"""The left-to-right counterpart of DiffGRM's network, as in TIGER (Rajput et al., 2023): same encoder, causal decoder.

Letters: B batch, S history length, n digits, K codes, Q partial SIDs a user (targets or beams), d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.sid_network import Branches, DecoderDropout, Memory, SidNetwork


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


class Autoregressive(SidNetwork):
    """History encoder, and a decoder that predicts each digit from those before it."""

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        n_items: int = 0,
        text_width: int = 0,
        width: Annotated[int, Field(ge=1), "d, width of the network"] = 128,
        heads: Annotated[int, Field(ge=1), "attention heads; must divide the width"] = 4,
        encoder_layers: Annotated[int, Field(ge=0), "layers over the history"] = 1,
        decoder_layers: Annotated[int, Field(ge=1), "layers over the digits"] = 2,
        feed_forward: Annotated[int, Field(ge=1), "hidden width of the feed-forward layers"] = 512,
        dropout: Annotated[float, Field(ge=0, lt=1), "dropout rate"] = 0.1,
        max_len: Annotated[int, Field(ge=1), "most recent history items that are looked at"] = 50,
        history: Annotated[
            Literal["bidirectional", "causal"],
            "bidirectional: every target has its own pass over the items before it; causal: items look back only, so one "
            "pass serves all targets of a user in training",
        ] = "bidirectional",
        branches: Branches = ("sid",),
        decoder_dropout: DecoderDropout = None,
    ) -> None:
        super().__init__(
            n_digits,
            codebook_size,
            n_items,
            text_width,
            width,
            heads,
            encoder_layers,
            decoder_layers,
            feed_forward,
            dropout,
            max_len,
            history,
            branches,
            decoder_dropout,
            causal_digits=True,
        )
        self.start = nn.Parameter(torch.empty(1, width))  # stands before the first digit
        self.initialise()

    def predict(self, codes: Tensor, memory: Memory) -> Tensor:
        """Logits of every digit, given the true ones before it (teacher forcing).

        Args:
            codes: [B, Q, n] digits.
            memory: of B users; with T slots, Q is T times the targets of each slot, slot after slot.

        Returns:
            [B, Q, n, K].
        """
        before = self.embed(codes)[..., :-1, :]
        start = (self.start * self.input_scale).expand(*codes.shape[:2], 1, -1)
        x, valid = self.decoder_drop(torch.cat([start, before], 2)), memory.valid
        questions = codes[0].numel()
        if valid.shape[1] > 1:
            valid = valid.repeat_interleave(questions // valid.shape[1], dim=1)  # [B, Q n, S]
        for number, layer in enumerate(self.layers):
            x = layer(x, memory.history(number, layer.history, questions), valid)
        tables = self.codes.view(self.n_digits, self.codebook_size, -1)
        return torch.einsum("bqnd,nkd->bqnk", self.decoder_norm(x).float(), tables.float())

    def next_digit(self, code: Tensor | None, prefix: Prefix | None, memory: Memory) -> tuple[Tensor, Prefix]:
        """Logits of the digit that comes next.

        Args:
            code: [B, Q] the digit filled last; None at the start, where Q is 1.
            prefix: what the last call gave, for the same partial SIDs; None at the start.

        Returns:
            [B, Q, K], and the prefix with that digit.
        """
        filled = 0 if prefix is None else prefix.past[0].shape[2]
        tables = self.codes.view(self.n_digits, self.codebook_size, -1)
        x = self.start.expand(len(memory), 1, -1) if code is None else tables[filled - 1][code]
        x, past = x * self.input_scale, []
        for number, layer in enumerate(self.layers):
            history = memory.history(number, layer.history, x.shape[1])
            x, kept = layer.extend(x, None if prefix is None else prefix.past[number], history, memory.valid)
            past.append(kept)
        return self.decoder_norm(x).float() @ tables[filled].T.float(), Prefix(tuple(past))
