"""RPG's network (arXiv 2506.05781): independent digits, each with a head of its own on one causal history encoder.

Letters: B batch, S history length, T slots, n digits, K codes, Q partial SIDs a user, d width.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.blocks import Gated, unrounded
from diffgrm.networks.history import DropoutRate, EncoderSettings, FeedForward, Heads, HistoryNetwork, MaxLen, Width
from diffgrm.networks.item_vectors import Branches, DigitEmbedding, Sizes
from diffgrm.networks.memory import Memory


class RPG(HistoryNetwork):
    """Causal Transformer over items that are the mean of their digits' embeddings, and a residual head for each digit.

    Of what the newest state x knows, digit j is told by the cosine of x + SiLU(W_j x) and the vectors of its codes, over a
    temperature; W_j is 0 at the start. Digits that are known change nothing of the others. Training hides all of them
    (noising ``full_mask``). Dropout is the encoder's of the other networks here: not on attention weights, and on what
    layers add to the stream, which the paper leaves out. Arguments as of ``DiffGRM``.
    """

    independent_digits = True
    digits: DigitEmbedding

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        n_items: int = 0,
        text_width: int = 0,
        width: Width = 128,
        heads: Heads = 4,
        layers: Annotated[int, Field(ge=1, le=1024), "layers over the history"] = 2,
        feed_forward: FeedForward = 512,
        dropout: DropoutRate = 0.3,
        max_len: MaxLen = 50,
        temperature: Annotated[float, Field(gt=0), "cosines of digits are divided by it"] = 0.03,
        branches: Branches = ({"name": "sid", "compose": "mean"},),
        gated: Gated = False,
    ) -> None:
        encoder = EncoderSettings(layers, heads, feed_forward, dropout, max_len, causal=True, from_start=True, gated=gated)
        super().__init__(Sizes(n_digits, codebook_size, n_items, text_width, width), branches, encoder)
        self.temperature = temperature
        self.heads = nn.Parameter(torch.zeros(n_digits, width, width))  # W of each digit
        self.initialise([(self.digits.codes, 1), (self.encoder.position, 1), *self.branch_tables()])

    def denoise(self, codes: Tensor, mask: Tensor, memory: Memory) -> Tensor:
        """Logits of every digit; what is known of the others plays no part.

        Args:
            codes: [B, Q, n], of which only the shape counts.
            mask: [B, Q, n] bool, true where the digit is unknown.
            memory: of B users; with T slots, Q is T times the questions of each slot, slot after slot.

        Returns:
            [B, Q, n, K] logits; of a known digit they are 0.
        """
        state = memory.newest_of_slots()  # [B, T, d]
        told = state[:, :, None] + F.silu(torch.einsum("btd,nde->btne", state, self.heads))
        told, tables = F.normalize(told.float(), dim=-1), F.normalize(self.digits.tables.float(), dim=-1)
        with unrounded(told.device):
            logits = torch.einsum("btnd,nkd->btnk", told, tables) / self.temperature
        return logits.repeat_interleave(codes.shape[1] // state.shape[1], dim=1) * mask[..., None]
