"""DiffGRM's network (paper, section 3.2): over the history encoder, the masked-diffusion decoder.

Letters: B batch, S history length, n digits, K codes, Q partial SIDs a user (views or beams), d width.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.blocks import Gated, unrounded
from diffgrm.networks.decoder import DecoderDropout, DecoderLayers, DigitDecoder, Skip
from diffgrm.networks.digit_pairs import DigitPairs, PairwiseRank
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


class DiffGRM(HistoryNetwork):
    """History encoder and non-causal masked-diffusion decoder over the n digits of the next item.

    Args:
        n_items: J, rows of ID embeddings; text_width: e. Only the branches that use them need them.

    Raises:
        RecipeError: a width that the heads do not divide, or branches that are named twice or cannot be made.
    """

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
        init: Annotated[
            Literal["scaled", "release"],
            "scaled: weights by fan-in, item vectors normalised; release: every weight at std 0.02, as published",
        ] = "scaled",
        branches: Branches = ("sid",),
        decoder_dropout: DecoderDropout = None,
        skip: Skip = False,
        positions: Positions = None,
        start: Start = "drawn",
        pairwise_rank: PairwiseRank = 0,
        gated: Gated = False,
    ) -> None:
        causal = history == "causal"
        from_start = causal if positions is None else positions == "first"
        encoder = EncoderSettings(encoder_layers, heads, feed_forward, dropout, max_len, causal, from_start, gated)
        super().__init__(Sizes(n_digits, codebook_size, n_items, text_width, width), branches, encoder, init == "scaled")
        later = dropout if decoder_dropout is None else decoder_dropout
        self.decoder = DigitDecoder(width, heads, decoder_layers, feed_forward, later, skip=skip, causal=False, gated=gated)
        self.masked = nn.Parameter(torch.empty(n_digits, width))  # what a masked digit looks like
        self.mask_token: Tensor  # rows of codes and masked, one after the other
        self.register_buffer("mask_token", n_digits * codebook_size + torch.arange(n_digits), persistent=False)
        self.initialise([(self.digits.codes, 1), (self.encoder.position, 1), *self.branch_tables(), (self.masked, 1)])
        self.pairs = DigitPairs(n_digits, codebook_size, pairwise_rank, width) if pairwise_rank else None

    def _table(self) -> Tensor:
        """[n K + n, d] what enters the decoder for every code, and for every masked digit."""
        return torch.cat([self.digits.codes, self.masked]) * self.digits.scale

    def pair_users(self, memory: Memory) -> Tensor | None:
        """See :class:`diffgrm.networks.contracts.PairsDigits`; by the state of the newest item that each slot knows."""
        return None if self.pairs is None else self.pairs.users(memory.newest_of_slots())

    def pair_vectors(self, codes: Tensor) -> Tensor | None:
        """See :class:`diffgrm.networks.contracts.PairsDigits`."""
        return None if self.pairs is None else self.pairs.of(codes)

    def denoise(self, codes: Tensor, mask: Tensor, memory: Memory) -> Tensor:
        """Logits of every digit, given the digits that are known. Used alike by probing, loss and decoding.

        Args:
            codes: [B, Q, n] digits, any value where masked.
            mask: [B, Q, n] bool, true where the digit is unknown.
            memory: of B users; with T slots, Q is T times the questions of each slot, slot after slot.

        Returns:
            [B, Q, n, K] logits (equation 8: hidden state times the digit's own code table); of a known digit they are 0,
            since nobody asks for them and the last layer leaves them out.
        """
        return self.denoise_places(codes, mask, memory, _places(mask.flatten(1)))

    def denoise_places(self, codes: Tensor, mask: Tensor, memory: Memory, wanted: Tensor | None) -> Tensor:
        """What :meth:`denoise` does, told where the unknown digits are, so that nothing depends on what mask holds.

        Args:
            wanted: [B, C] places among the Q n digits of every row where its mask is true, and where that are fewer than C
                some more, each place once; None: all places.
        """
        return self.digit_logits(self.states(codes, mask, memory, wanted))

    def digit_states(self, codes: Tensor, mask: Tensor, memory: Memory) -> Tensor:
        """See :class:`diffgrm.networks.contracts.DenoisesByStates`; 0 for known digits."""
        return self.states(codes, mask, memory, _places(mask.flatten(1)))

    def digit_logits(self, states: Tensor) -> Tensor:
        """See :class:`diffgrm.networks.contracts.DenoisesByStates`."""
        with unrounded(states.device):
            return torch.einsum("bqnd,nkd->bqnk", states.float(), self.digits.tables.float())

    def states(self, codes: Tensor, mask: Tensor, memory: Memory, wanted: Tensor | None) -> Tensor:
        """[B, Q, n, d] what the decoder makes of unknown digits, 0 for known ones; see :meth:`denoise_places`."""
        token = torch.where(mask, self.mask_token, codes + self.digits.digit_start)  # [B, Q, n]
        x, projected = self._enter(token, memory)
        return _put_back(self.decoder(x, memory, wanted, projected), wanted, mask)

    def _enter(self, token: Tensor, memory: Memory) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Vectors [B, Q, n, d] of digits; and what the first layer's attention makes of them, where that is made once for
        each code: outside training, with more digits than codes."""
        if self.training or memory.plain or (not memory.table and token.numel() <= self.digits.codes.shape[0]):
            return self.decoder.drop(F.embedding(token, self._table())), None
        if not memory.table:
            table = self._table()
            memory.table.extend((table, *self.decoder.stack[0].project_digits(table)))
        x, query, key_value = (F.embedding(token, part) for part in memory.table)
        return x, (query, key_value)


def _places(mask: Tensor) -> Tensor | None:
    """[B, C] where each row of mask [B, T] is true, C the most in any row; shorter rows go on with places that are false.

    None where every place is true.
    """
    count = int(mask.sum(1).max())
    return None if count == mask.shape[1] else (~mask).int().argsort(dim=1, stable=True)[:, :count]


def _put_back(x: Tensor, places: Tensor | None, mask: Tensor) -> Tensor:
    """X [B, C, d] at its places among [B, Q, n, d]; 0 where mask [B, Q, n] is false."""
    if places is not None:
        where = places[..., None].expand(-1, -1, x.shape[-1])
        x = x.new_zeros(x.shape[0], mask[0].numel(), x.shape[-1]).scatter(1, where, x)
    return x.view(*mask.shape, -1) * mask[..., None]
