"""SASRec: causal self-attention over the items of a history (Kang and McAuley, 2018), read top to bottom (floor 3).

An item is known by its n digits. With one digit, as large as the catalogue, that is the plain per-item table; with the
digits of a semantic ID its vector is composed, and no item has a row of its own.

Letters: B batch, S history length, M items, n digits, K codes, d width.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.blocks import Dropout, EncoderLayer, scale_by_fan_in


class SASRec(nn.Module):
    """Pre-norm causal Transformer; the same item vectors stand in the history and are compared with at the end.

    Raises:
        RecipeError: a width that the heads do not divide.
    """

    causal = True  # one pass serves every target of a user

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        width: Annotated[int, Field(ge=1), "d, width of the network"] = 128,
        heads: Annotated[int, Field(ge=1), "attention heads; must divide the width"] = 2,
        layers: Annotated[int, Field(ge=1), "layers over the history"] = 2,
        feed_forward: Annotated[int, Field(ge=1), "hidden width of the feed-forward layers"] = 256,
        dropout: Annotated[float, Field(ge=0, lt=1), "dropout rate"] = 0.3,
        max_len: Annotated[int, Field(ge=1), "most recent history items that are looked at"] = 50,
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"model.width {width} is not a multiple of model.heads {heads}")
        self.max_len = max_len
        self.codes = nn.Parameter(torch.empty(n_digits * codebook_size, width))  # one table of K rows a digit
        self.position = nn.Parameter(torch.empty(max_len, width))  # 0 is the last item of a stretch
        composed = (nn.Linear(n_digits * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.LayerNorm(width))
        self.compose = nn.Sequential(*composed) if n_digits > 1 else nn.Identity()
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, feed_forward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)
        self.digit_start: Tensor
        self.register_buffer("digit_start", torch.arange(n_digits) * codebook_size, persistent=False)
        scale_by_fan_in(self, layers)
        for table in (self.codes, self.position):
            nn.init.normal_(table, std=width**-0.5)

    def item_vectors(self, digits: Tensor) -> Tensor:
        """Digits [M, n] -> vectors [M, d], of norm about 1."""
        vectors = self.compose(F.embedding(digits + self.digit_start, self.codes).flatten(1))
        return vectors if isinstance(self.compose, nn.Identity) else vectors * vectors.shape[-1] ** -0.5

    def encode(self, vectors: Tensor, places: Tensor, valid: Tensor) -> Tensor:
        """What each place of a history knows of the next item: [B, S, d]; its product with an item's vector is the score.

        Args:
            vectors: [M, d] of the distinct items that occur in the histories.
            places: [B, S] which of them stands where, oldest first, any number below M where padded; S at most
                ``max_len``.
            valid: [B, S] bool, true for the first positions of each row, at least one a row.
        """
        age = (valid.sum(1, keepdim=True) - 1 - torch.arange(places.shape[1], device=places.device)).clamp(min=0)
        x = self.drop((vectors[places] + self.position[age]) * vectors.shape[-1] ** 0.5)
        for layer in self.encoder:
            x = layer(x, valid, True)
        return self.norm(x)
