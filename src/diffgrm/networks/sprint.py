"""SPRINT's network (arXiv 2609.34306): DiffGRM's, whose states of all hidden digits together stand for the user.

Letters: B batch, N targets, n digits, d width.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.blocks import Gated
from diffgrm.networks.decoder import DecoderDropout, DecoderLayers
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.history import DropoutRate, FeedForward, Heads, History, MaxLen, Width
from diffgrm.networks.item_vectors import Branches
from diffgrm.networks.memory import Memory


class Sprint(DiffGRM):
    """A user is compared with whole semantic IDs by what the decoder makes of a target of which nothing is known.

    The states of its n digits, side by side, go through two layers to the width of item vectors. Arguments as of
    ``DiffGRM``.
    """

    user_head = True

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        n_items: int = 0,
        text_width: int = 0,
        width: Width = 128,
        heads: Heads = 4,
        encoder_layers: Annotated[int, Field(ge=0, le=1024), "layers over the history"] = 1,
        decoder_layers: DecoderLayers = 4,
        feed_forward: FeedForward = 512,
        dropout: DropoutRate = 0.1,
        max_len: MaxLen = 50,
        history: History = "bidirectional",
        branches: Branches = ("sid",),
        decoder_dropout: DecoderDropout = None,
        gated: Gated = False,
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
            branches=branches,
            decoder_dropout=decoder_dropout,
            gated=gated,
        )
        self.user = nn.Sequential(nn.Linear(n_digits * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        for layer in (self.user[0], self.user[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def user_vectors(self, memory: Memory, history: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        """See :class:`diffgrm.networks.contracts.ScoresItems`."""
        if history is not None and length is not None:
            memory = memory.rows(history).slots(length[:, None])
        hidden = torch.ones(len(memory), 1, self.digits.n_digits, dtype=torch.bool, device=self.masked.device)
        return self.user(self.states(hidden.long(), hidden, memory, None).flatten(1))
