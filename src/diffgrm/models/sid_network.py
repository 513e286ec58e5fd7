"""What networks over semantic IDs share: item vectors from digits, the history encoder, the memory it leaves (floor 3).

Letters: B batch, S history length, n digits, K codes, d width, T slots for targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgrm.models.blocks import Attention, DecoderLayer, Dropout, EncoderLayer, Folded, scale_by_fan_in
from diffgrm.schema import RecipeError


@dataclass(frozen=True)
class Memory:
    """Encoded histories: per decoder layer the projected keys and values, and which positions are real.

    Attributes:
        keys, values: one [B, heads, S, d/heads] a decoder layer.
        valid: [B, T, S] bool, what each of T slots may look at; T is 1 unless a history is shared by several targets.
        folded: by number of decoder layer, the same keys and values folded, once they have been needed so.
        table: vectors of all codes and the first decoder layer's projections of them, once they have been needed.
        plain: nothing is folded or kept, so that no choice depends on sizes: one graph serves them all (export).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    valid: Tensor
    folded: dict[int, Folded] = field(default_factory=dict)
    table: list[Tensor] = field(default_factory=list)
    plain: bool = False

    def __len__(self) -> int:
        return len(self.valid)

    def rows(self, chosen: Tensor) -> Memory:
        """The chosen users [b]."""
        folded = {layer: Folded(*(part[chosen] for part in whole)) for layer, whole in self.folded.items()}
        keys, values = (tuple(part[chosen] for part in whole) for whole in (self.keys, self.values))
        return replace(self, keys=keys, values=values, valid=self.valid[chosen], folded=folded)

    def history(self, layer: int, attention: Attention, questions: int) -> tuple[Tensor, Tensor] | Folded:
        """What a decoder layer attends to, folded where that is cheaper for so many questions or has been done before."""
        key, value = self.keys[layer], self.values[layer]
        if layer not in self.folded:
            if self.plain or not attention.folding_pays(questions, key.shape[2]):
                return key, value
            self.folded[layer] = attention.fold(key, value)
        return self.folded[layer]

    def slots(self, length: Tensor) -> Memory:
        """For T targets a user, of which each knows the first ``length`` [B, T] items (1 at least) of the history."""
        place = torch.arange(self.valid.shape[2], device=length.device)
        return replace(self, valid=place < length.clamp(min=1)[..., None])


class SidNetwork(nn.Module):
    """A history encoder over the digits of items, and the layers of a decoder over the digits of the next one.

    Args:
        history: ``"bidirectional"`` or ``"causal"``; init: ``"scaled"`` or ``"release"``.
        causal_digits: whether a digit of the next item sees only those before it.

    Raises:
        RecipeError: a width that the heads do not divide.
    """

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        width: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        feed_forward: int,
        dropout: float,
        max_len: int,
        history: str,
        init: str = "scaled",
        causal_digits: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"model.width {width} is not a multiple of model.heads {heads}")
        self.n_digits, self.codebook_size, self.max_len = n_digits, codebook_size, max_len
        self.causal = history == "causal"
        self.scaled = init == "scaled"
        self.input_scale = width**0.5 if self.scaled else 1.0
        self.codes = nn.Parameter(torch.empty(n_digits * codebook_size, width))  # one table of K rows a digit
        self.position = nn.Parameter(torch.empty(max_len, width))  # 0 is the most recent item; the first one if causal
        self.item = nn.Sequential(nn.Linear(n_digits * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.item_norm = nn.LayerNorm(width) if self.scaled else nn.Identity()
        sizes = (width, heads, feed_forward, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, causal_digits) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)
        self.digit_start: Tensor
        self.register_buffer("digit_start", torch.arange(n_digits) * codebook_size, persistent=False)

    def initialise(self) -> None:
        """Draw all weights; to be called once all of them are there."""
        width = self.codes.shape[1]
        if self.scaled:
            scale_by_fan_in(self, len(self.encoder) + len(self.decoder))
            std = width**-0.5
        else:
            std = 0.02
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=std)
                    nn.init.zeros_(module.bias)
        for name, table in self.named_parameters():
            if "." not in name:
                nn.init.normal_(table, std=std)

    @property
    def layers(self) -> list[DecoderLayer]:
        """The decoder's layers."""
        return [cast(DecoderLayer, layer) for layer in self.decoder]

    def embed(self, codes: Tensor) -> Tensor:
        """Codes [..., n] -> [..., n, d]."""
        return F.embedding(codes + self.digit_start, self.codes) * self.input_scale

    def encode_history(self, item_codes: Tensor, index: Tensor, valid: Tensor) -> Memory:
        """Histories -> memory for the decoder. Each distinct item of the batch is turned into a vector once.

        Args:
            item_codes: [M, n] digits of the distinct items that occur in the histories.
            index: [B, S] which of them stands where, oldest first, any number below M where padded; S at most
                ``max_len``.
            valid: [B, S] bool, true for the first positions of each row, at least one a row.
        """
        items = self.item_norm(self.item(self.embed(item_codes).flatten(1)))  # [M, d]
        place = torch.arange(index.shape[1], device=index.device)
        age = (valid.sum(1, keepdim=True) - 1 - place).clamp(min=0)  # [B, S]
        x = self.drop(items[index] + self.position[place if self.causal else age])
        for layer in self.encoder:
            x = layer(x, valid, self.causal)
        x = self.encoder_norm(x)
        projected = [layer.history.project(x) for layer in self.layers]
        return Memory(tuple(k for k, _ in projected), tuple(v for _, v in projected), valid[:, None])
