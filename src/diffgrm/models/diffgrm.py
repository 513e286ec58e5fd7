"""DiffGRM's network (paper, section 3.2), read top to bottom: items, history encoder, masked-diffusion decoder.

Letters: B batch, S history length, n digits, K codes, Q partial SIDs a user (views or beams), d width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
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
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    valid: Tensor
    folded: dict[int, Folded] = field(default_factory=dict)
    table: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.valid)

    def rows(self, chosen: Tensor) -> Memory:
        """The chosen users [b]."""
        folded = {layer: Folded(*(part[chosen] for part in whole)) for layer, whole in self.folded.items()}
        keys, values = (tuple(part[chosen] for part in whole) for whole in (self.keys, self.values))
        return Memory(keys, values, self.valid[chosen], folded, self.table)

    def history(self, layer: int, attention: Attention, questions: int) -> tuple[Tensor, Tensor] | Folded:
        """What a decoder layer attends to, folded where that is cheaper for so many questions or has been done before."""
        key, value = self.keys[layer], self.values[layer]
        if layer not in self.folded:
            if not attention.folding_pays(questions, key.shape[2]):
                return key, value
            self.folded[layer] = attention.fold(key, value)
        return self.folded[layer]

    def slots(self, length: Tensor) -> Memory:
        """For T targets a user, of which each knows the first ``length`` [B, T] items (1 at least) of the history."""
        place = torch.arange(self.valid.shape[2], device=length.device)
        return replace(self, valid=place < length.clamp(min=1)[..., None])


class DiffGRM(nn.Module):
    """History encoder and non-causal masked-diffusion decoder over the n digits of the next item.

    Raises:
        RecipeError: a width that the heads do not divide.
    """

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        width: Annotated[int, Field(ge=1), "d, width of the network"] = 128,
        heads: Annotated[int, Field(ge=1), "attention heads; must divide the width"] = 4,
        encoder_layers: Annotated[int, Field(ge=0), "layers over the history"] = 1,
        decoder_layers: Annotated[int, Field(ge=1), "layers over the digits"] = 2,
        feed_forward: Annotated[int, Field(ge=1), "hidden width of the feed-forward layers"] = 512,
        dropout: Annotated[float, Field(ge=0, lt=1), "dropout rate"] = 0.1,
        max_len: Annotated[int, Field(ge=1), "most recent history items that are looked at"] = 50,
        history: Annotated[
            Literal["bidirectional", "causal"],
            "bidirectional: every target has its own pass over the items before it (paper); causal: items look back only, "
            "so one pass serves all targets of a user in training",
        ] = "bidirectional",
        init: Annotated[
            Literal["scaled", "release"],
            "scaled: weights by fan-in, item vectors normalised; release: every weight at std 0.02, as published",
        ] = "scaled",
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"model.width {width} is not a multiple of model.heads {heads}")
        self.n_digits, self.codebook_size, self.max_len = n_digits, codebook_size, max_len
        self.causal = history == "causal"
        scaled = init == "scaled"
        self.input_scale = width**0.5 if scaled else 1.0
        self.codes = nn.Parameter(torch.empty(n_digits * codebook_size, width))  # one table of K rows a digit
        self.masked = nn.Parameter(torch.empty(n_digits, width))  # what a masked digit looks like
        self.position = nn.Parameter(torch.empty(max_len, width))  # 0 is the most recent item; the first one if causal
        self.item = nn.Sequential(nn.Linear(n_digits * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.item_norm = nn.LayerNorm(width) if scaled else nn.Identity()
        sizes = (width, heads, feed_forward, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)
        self.digit_start: Tensor
        self.register_buffer("digit_start", torch.arange(n_digits) * codebook_size, persistent=False)
        self.mask_token: Tensor  # rows of codes and masked, one after the other
        self.register_buffer("mask_token", n_digits * codebook_size + torch.arange(n_digits), persistent=False)
        self._initialise(scaled, width, encoder_layers + decoder_layers)

    def _initialise(self, scaled: bool, width: int, layers: int) -> None:
        tables = (self.codes, self.masked, self.position)
        if scaled:
            scale_by_fan_in(self, layers)
            for table in tables:
                nn.init.normal_(table, std=width**-0.5)
        else:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
            for table in tables:
                nn.init.normal_(table, std=0.02)

    def _embed(self, codes: Tensor) -> Tensor:
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
        items = self.item_norm(self.item(self._embed(item_codes).flatten(1)))  # [M, d]
        place = torch.arange(index.shape[1], device=index.device)
        age = (valid.sum(1, keepdim=True) - 1 - place).clamp(min=0)  # [B, S]
        x = self.drop(items[index] + self.position[place if self.causal else age])
        for layer in self.encoder:
            x = layer(x, valid, self.causal)
        x = self.encoder_norm(x)
        projected = [layer.history.project(x) for layer in self._layers]
        return Memory(tuple(k for k, _ in projected), tuple(v for _, v in projected), valid[:, None])

    def _table(self) -> Tensor:
        """[n K + n, d] what enters the decoder for every code, and for every masked digit."""
        return torch.cat([self.codes, self.masked]) * self.input_scale

    @property
    def _layers(self) -> list[DecoderLayer]:
        return [cast(DecoderLayer, layer) for layer in self.decoder]

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
        token = torch.where(mask, self.mask_token, codes + self.digit_start)  # [B, Q, n]
        x, projected = self._enter(token, memory)
        wanted = _places(mask.flatten(1))  # [B, C]
        layers, valid = self._layers, memory.valid
        if valid.shape[1] > 1:
            valid = valid.repeat_interleave(token[0].numel() // valid.shape[1], dim=1)  # [B, Q n, S]
        for number, layer in enumerate(layers):
            history = memory.history(number, layer.history, token[0].numel())
            x = layer(x, history, valid, wanted if layer is layers[-1] else None, projected if number == 0 else None)
        x = self.decoder_norm(x)  # [B, C, d]
        x = _put_back(x, wanted, mask)  # [B, Q, n, d]
        tables = self.codes.view(self.n_digits, self.codebook_size, -1)
        return torch.einsum("bqnd,nkd->bqnk", x.float(), tables.float())

    def _enter(self, token: Tensor, memory: Memory) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Vectors [B, Q, n, d] of digits; and what the first layer's attention makes of them, where that is made once for
        each code: outside training, with more digits than codes."""
        if self.training or (not memory.table and token.numel() <= self.codes.shape[0]):
            return self.drop(F.embedding(token, self._table())), None
        if not memory.table:
            table = self._table()
            memory.table.extend((table, *self._layers[0].project_digits(table)))
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
        x = x.new_zeros(len(x), mask[0].numel(), x.shape[-1]).scatter(1, where, x)
    return x.view(*mask.shape, -1) * mask[..., None]
