"""What networks over semantic IDs share: item vectors, the history encoder, the memory it leaves (floor 3).

Letters: B batch, S history length, M items, n digits, K codes, d width, e width of text vectors, T slots for targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.blocks import Attention, DecoderLayer, Dropout, EncoderLayer, Folded, scale_by_fan_in
from diffgrm.networks.inputs import ItemFeatures

Branches = Annotated[
    tuple[Literal["sid", "text", "id"], ...],
    Field(min_length=1),
    "what the vector of an item is the sum of: sid, composed from its digits (paper); text, projected from the vector of "
    "its text; id, a row of its own, which only items with training events have",
]
DecoderDropout = Annotated[float | None, Field(ge=0, lt=1), "dropout rate of the decoder; null: as elsewhere"]


@dataclass(frozen=True)
class Memory:
    """Encoded histories: per decoder layer the projected keys and values, and which positions are real.

    Attributes:
        keys, values: one [B, heads, S, d/heads] a decoder layer.
        valid: [B, T, S] bool, what each of T slots may look at; T is 1 unless a history is shared by several targets.
        hidden: [B, S, d] the encoded history itself; None where only the decoder is asked.
        folded: by number of decoder layer, the same keys and values folded, once they have been needed so.
        table: vectors of all codes and the first decoder layer's projections of them, once they have been needed.
        plain: nothing is folded or kept, so that no choice depends on sizes: one graph serves them all (export).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    valid: Tensor
    hidden: Tensor | None = None
    folded: dict[int, Folded] = field(default_factory=dict)
    table: list[Tensor] = field(default_factory=list)
    plain: bool = False

    def __len__(self) -> int:
        return len(self.valid)

    def rows(self, chosen: Tensor) -> Memory:
        """The chosen users [b]."""
        folded = {layer: Folded(*(part[chosen] for part in whole)) for layer, whole in self.folded.items()}
        keys, values = (tuple(part[chosen] for part in whole) for whole in (self.keys, self.values))
        hidden = None if self.hidden is None else self.hidden[chosen]
        return replace(self, keys=keys, values=values, valid=self.valid[chosen], hidden=hidden, folded=folded)

    def last(self) -> Tensor:
        """[B, d] what stands at the newest item of each history that is not shared: the vector of its user."""
        assert self.hidden is not None
        newest = self.valid[:, 0].sum(1)[:, None, None] - 1
        return self.hidden.gather(1, newest.expand(-1, -1, self.hidden.shape[2]))[:, 0]

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
    """A history encoder over items, and the layers of a decoder over the digits of the next one.

    Args:
        n_items: rows of ids; text_width: e. Both are needed only for the branches that use them.
        history: ``"bidirectional"`` or ``"causal"``; init: ``"scaled"`` or ``"release"``.
        causal_digits: whether a digit of the next item sees only those before it.

    Raises:
        RecipeError: a width that the heads do not divide, or branches that are named twice or cannot be made.
    """

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        n_items: int,
        text_width: int,
        width: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        feed_forward: int,
        dropout: float,
        max_len: int,
        history: str,
        branches: tuple[str, ...],
        decoder_dropout: float | None = None,
        init: str = "scaled",
        causal_digits: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"model.width {width} is not a multiple of model.heads {heads}")
        if len(set(branches)) < len(branches):
            raise RecipeError(f"model.branches {list(branches)}: name each branch once")
        for branch, size in (("text", text_width), ("id", n_items)):
            if branch in branches and size < 1:
                raise RecipeError(f"model.branches has {branch!r}, but there is nothing to make it of: its size is {size}")
        self.branches = branches
        self.n_digits, self.codebook_size, self.max_len = n_digits, codebook_size, max_len
        self.causal = history == "causal"
        self.scaled = init == "scaled"
        self.input_scale = width**0.5 if self.scaled else 1.0
        self.codes = nn.Parameter(torch.empty(n_digits * codebook_size, width))  # one table of K rows a digit
        self.position = nn.Parameter(torch.empty(max_len, width))  # 0 is the most recent item; the first one if causal
        if "sid" in branches:
            self.item = nn.Sequential(nn.Linear(n_digits * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            self.item_norm = nn.LayerNorm(width) if self.scaled else nn.Identity()
        if "text" in branches:
            self.text = nn.Sequential(nn.Linear(text_width, width), nn.LayerNorm(width))
        if "id" in branches:
            self.ids = nn.Parameter(torch.empty(n_items, width))
        sizes = (width, heads, feed_forward)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes, dropout) for _ in range(encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        later = dropout if decoder_dropout is None else decoder_dropout
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, later, causal_digits) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.drop, self.decoder_drop = Dropout(dropout), Dropout(later)
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
                nn.init.normal_(table, std=std / 4 if name == "ids" else std)  # ids begin as a small addition

    @property
    def layers(self) -> list[DecoderLayer]:
        """The decoder's layers."""
        return [cast(DecoderLayer, layer) for layer in self.decoder]

    def embed(self, codes: Tensor) -> Tensor:
        """Codes [..., n] -> [..., n, d]."""
        return F.embedding(codes + self.digit_start, self.codes) * self.input_scale

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """The vectors [M, d] of items: the sum of the network's branches, each of norm about 1 at the start (but ids: 1/4).

        They stand in histories, and a user's vector is compared with them where whole items are scored.
        """
        parts, unit = [], 1 / self.input_scale
        if "sid" in self.branches:
            parts.append(self.item_norm(self.item(self.embed(items.codes).flatten(1))) * unit)
        if "text" in self.branches:
            assert items.text is not None
            parts.append(self.text(items.text.to(self.codes.dtype)) * unit)
        if "id" in self.branches:
            assert items.row is not None
            parts.append(self.ids[items.row.clamp(min=0)] * (items.row >= 0)[:, None])
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def borrowed_ids(self, lenders: Tensor) -> Tensor:
        """[M, d] what items without a row of ids get of those of others, by weights ``lenders`` [M, J]; 0 without ids."""
        return lenders @ self.ids[: lenders.shape[1]] if "id" in self.branches else lenders.new_zeros(1)

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> Memory:
        """Histories -> memory for the decoder.

        Args:
            vectors: [M, d] of the distinct items that occur in the histories (:meth:`item_vectors`).
            index: [B, S] which of them stands where, oldest first, any number below M where padded; S at most
                ``max_len``.
            valid: [B, S] bool, true for the first positions of each row, at least one a row.
        """
        place = torch.arange(index.shape[1], device=index.device)
        age = (valid.sum(1, keepdim=True) - 1 - place).clamp(min=0)  # [B, S]
        x = self.drop((vectors[index] + self.position[place if self.causal else age]) * self.input_scale)
        for layer in self.encoder:
            x = layer(x, valid, self.causal)
        x = self.encoder_norm(x)
        projected = [layer.history.project(x) for layer in self.layers]
        return Memory(tuple(k for k, _ in projected), tuple(v for _, v in projected), valid[:, None], x)
