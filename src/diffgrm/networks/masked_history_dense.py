"""MaskGR's dense head (arXiv 2511.23021): the stream of digits also reads texts, and tells the text of a hidden item.

Letters: B histories, S history length, T = S + 1 items of a sequence, M items, n digits, K codes, e width of texts, r rank,
d width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.blocks import Dropout, Gated
from diffgrm.networks.history import DropoutRate, FeedForward, Heads, MaxLen, Width
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.masked_history import Layers, MaskedHistory, RawHistory, StreamPositions, Temperature, Tied
from diffgrm.networks.stream import Norm


@dataclass(frozen=True)
class TextHistory(RawHistory):
    """Digits of histories, and what texts add to them.

    Attributes:
        text: [B, S, n, d] what the text of each item adds to each of its digits.
    """

    text: Tensor

    def rows(self, chosen: Tensor) -> TextHistory:
        """The chosen users [b]."""
        return TextHistory(self.codes[chosen], self.valid[chosen], self.text[chosen])


class LowRank(nn.Module):
    """A linear map that goes through r numbers.

    Args:
        stds: of the weights there and back at the start.
        bias: whether something is added at the end.
    """

    def __init__(self, inputs: int, rank: int, outputs: int, stds: tuple[float, float], bias: bool) -> None:
        super().__init__()
        self.there, self.back = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=bias)
        for layer, std in zip((self.there, self.back), stds, strict=True):
            nn.init.normal_(layer.weight, std=std)
        if bias:
            nn.init.zeros_(self.back.bias)

    def forward(self, x: Tensor) -> Tensor:
        """X [..., inputs] -> [..., outputs], in the precision of the weights."""
        return self.back(self.there(x.to(self.there.weight.dtype)))


class MaskedHistoryDense(MaskedHistory):
    """``MaskedHistory`` that reads the texts of past items, and tells the text of an item all of whose digits are hidden.

    The vector of an item's text, through a linear map of low rank and cut into n pieces, is added to its digits where they
    are known; a norm and dropout of their own follow. States of a middle layer of an item's n digits, side by side and
    through another such map, are compared with the vectors of all items' texts. A user's vector is what is told of the
    target behind a clean history.

    The text of the target is never read, since while its digits are filled in nobody knows whose they are; the release
    reads it in training where digits of the target are known. Which maps have a bias is our choice: none where texts
    enter, so that an item without a text is its digits. Other arguments as of ``MaskedHistory``.

    Raises:
        RecipeError: see :class:`MaskedHistory`; or a layer for texts that is not there.
    """

    user_head = True
    reads_texts: ClassVar[bool] = True

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        text_width: int,
        width: Width = 128,
        heads: Heads = 4,
        layers: Layers = 2,
        feed_forward: FeedForward = 512,
        dropout: DropoutRate = 0.1,
        max_len: MaxLen = 20,
        positions: StreamPositions = "learned",
        norm: Norm = "layer",
        tied: Tied = True,
        temperature: Temperature = 1.0,
        text_rank: Annotated[int, Field(ge=1, le=2**14), "rank of the maps from texts and to them"] = 64,
        text_layer: Annotated[
            int | None,
            Field(ge=1),
            "layer, from 1, whose states tell an item's text; null: the one at three quarters (paper: the 6th of 8)",
        ] = None,
        input_dropout: Annotated[
            float | None, Field(ge=0, lt=1), "dropout rate of digits and texts as they enter; null: as elsewhere"
        ] = None,
        gated: Gated = False,
    ) -> None:
        super().__init__(
            n_digits,
            codebook_size,
            width,
            heads,
            layers,
            feed_forward,
            dropout,
            max_len,
            positions,
            norm,
            tied,
            temperature,
            gated,
        )
        if text_layer is not None and text_layer > layers:
            raise RecipeError(
                f"model.text_layer {text_layer} is not there with model.layers {layers}; choose one from 1 to {layers}, or "
                "null"
            )
        self.text_width, digits = text_width, n_digits * width
        self.text_layer = max(1, round(0.75 * layers)) if text_layer is None else text_layer
        self.drop = Dropout(dropout if input_dropout is None else input_dropout)
        # A text of length 1 adds to a digit a vector of norm about 1, as that of its code is.
        self.text = LowRank(text_width, text_rank, digits, (1.0, (text_rank * width) ** -0.5), bias=False)
        self.entering = nn.LayerNorm(width)
        self.user = LowRank(digits, text_rank, text_width, (digits**-0.5, text_rank**-0.5), bias=True)

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """[M, n + e] what stands for items in histories: their digits, then the vectors of their texts.

        Items of which digits alone are known have the vector 0, as those without a text have.
        """
        assert items.codes is not None
        text = items.text
        if text is None:
            text = torch.zeros(len(items), self.text_width, device=items.device)
        return torch.cat([items.codes.to(text.dtype), text], 1)

    def compared(self, vectors: Tensor) -> Tensor:
        """See :class:`diffgrm.networks.contracts.ComparesApart`; [M, e] the vectors of texts."""
        return vectors[:, self.digits.n_digits :]

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> TextHistory:
        """See :class:`diffgrm.networks.contracts.EncodesHistories`; nothing is computed but what texts add."""
        codes, text = vectors[:, : self.digits.n_digits].long(), vectors[:, self.digits.n_digits :]
        return TextHistory(codes[index], valid, self.text(text).unflatten(1, (codes.shape[1], -1))[index])

    def denoise_items(self, target: Tensor, mask: Tensor, memory: TextHistory) -> tuple[Tensor, Tensor]:
        """See :class:`diffgrm.networks.contracts.DenoisesItems`; [B, T, n, K] and [B, T, e]."""
        middle = self._through(self._entered(target, mask, memory), self.layers[: self.text_layer])
        told = self.user(middle.x.view(*mask.shape[:2], -1)).float()  # before the next layers, which may overwrite x
        read = self._through(middle, self.layers[self.text_layer :])
        return self.digit_logits(self.norm(read.x).view(*mask.shape, -1)), told

    def user_vectors(self, memory: TextHistory, history: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        """See :class:`diffgrm.networks.contracts.ScoresItems`; [N, e] the vector that is told of the next item's text."""
        if history is not None and length is not None:
            place = torch.arange(memory.valid.shape[1], device=length.device)
            memory = replace(memory.rows(history), valid=place < length[:, None])
        n = self.digits.n_digits
        target = memory.codes.new_zeros(len(memory), n)
        mask = F.pad(torch.ones_like(target[:, None], dtype=torch.bool), (0, 0, memory.valid.shape[1], 0))
        middle = self._through(self._entered(target, mask, memory), self.layers[: self.text_layer], last=n)
        return self.user(middle.x.flatten(1)).float()

    def _tokens(self, codes: Tensor, mask: Tensor, memory: RawHistory) -> Tensor:
        assert isinstance(memory, TextHistory)
        text = F.pad(memory.text, (0, 0, 0, 0, 0, 1)) * ~mask[..., None]  # none of the target's
        return self.entering(super()._tokens(codes, mask, memory) + text) / self.digits.scale
