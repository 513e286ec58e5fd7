"""SASRec: causal self-attention over the items of a history (Kang and McAuley, 2018).

The history encoder with a learnt ID embedding for each item, and nothing else: the same vectors stand in the history and
are compared with at the end. Other branches make other SASRecs: ``[sid]`` composes items from their digits, ``[text, id]``
adds their texts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from diffgrm.networks.blocks import Gated
from diffgrm.networks.history import DropoutRate, EncoderSettings, FeedForward, Heads, HistoryNetwork, MaxLen, Width
from diffgrm.networks.item_vectors import Branches, Sizes


class SASRec(HistoryNetwork):
    """Pre-norm causal Transformer over items; arguments as of ``DiffGRM``."""

    def __init__(
        self,
        n_digits: int = 0,
        codebook_size: int = 0,
        n_items: int = 0,
        text_width: int = 0,
        width: Width = 128,
        heads: Heads = 2,
        layers: Annotated[int, Field(ge=1, le=1024), "layers over the history"] = 2,
        feed_forward: FeedForward = 256,
        dropout: DropoutRate = 0.3,
        max_len: MaxLen = 50,
        branches: Branches = ({"name": "id", "start": 1.0, "untrained": "drawn"},),
        gated: Gated = False,
    ) -> None:
        encoder = EncoderSettings(layers, heads, feed_forward, dropout, max_len, causal=True, from_start=False, gated=gated)
        super().__init__(Sizes(n_digits, codebook_size, n_items, text_width, width), branches, encoder)
        if self.digits is None:  # drawn and left out, so that a seed gives the weights behind the published figures
            nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        digits = [(self.digits.codes, 1.0)] if self.digits is not None else []
        self.initialise([*digits, *self.branch_tables(), (self.encoder.position, 1)])
