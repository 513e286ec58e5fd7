"""The history encoder, and what every network has that starts with one.

Letters: B batch, S history length, M items, d width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from diffgrm.foundation.parts import PartsLike
from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.blocks import Attention, Dropout, EncoderLayer, scale_by_fan_in
from diffgrm.networks.blocks import FeedForward as FeedForwardLayers
from diffgrm.networks.decoder import DigitDecoder
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.item_vectors import DigitEmbedding, ItemVectors, Sizes, TextBranch
from diffgrm.networks.memory import Memory

Width = Annotated[int, Field(ge=1, le=2**14), "d, width of the network"]
Heads = Annotated[int, Field(ge=1, le=2**14), "attention heads; must divide the width"]
FeedForward = Annotated[int, Field(ge=1, le=2**17), "hidden width of the feed-forward layers"]
DropoutRate = Annotated[float, Field(ge=0, lt=1), "dropout rate"]
MaxLen = Annotated[int, Field(ge=1, le=2**17), "most recent history items that are looked at"]
History = Annotated[
    Literal["bidirectional", "causal"],
    "bidirectional: every target has its own pass over the items before it (paper); causal: items look back only, so one "
    "pass serves all targets of a user in training",
]
Positions = Annotated[
    Literal["first", "newest"] | None,
    "from where the places of a history are counted; null: from the first item where causal, else from the newest",
]
Start = Annotated[
    Literal["drawn", "item_scorer", "texts"],
    "drawn: at random; item_scorer: encoder and code vectors of the item scorer that the embedding is made of; texts: code "
    "vectors are the tokenizer's, so that a query finds what has the nearest text (documents)",
]


@dataclass(frozen=True)
class EncoderSettings:
    """How histories are encoded.

    Attributes:
        layers: over the history; heads, feed_forward, dropout: of each.
        causal: items look back only.
        from_start: positions count from the first item of a stretch, else from the newest.
        gated: what each sublayer adds goes through a gate.
    """

    layers: int
    heads: int
    feed_forward: int
    dropout: float
    max_len: int
    causal: bool
    from_start: bool
    gated: bool = False


class HistoryEncoder(nn.Module):
    """Item vectors and learnt positions, then pre-norm Transformer layers.

    Args:
        scale: what the sum of item and position is multiplied by.

    Raises:
        RecipeError: a width that the heads do not divide.
    """

    def __init__(self, width: int, settings: EncoderSettings, scale: float) -> None:
        super().__init__()
        if width % settings.heads:
            raise RecipeError(f"model.width {width} is not a multiple of model.heads {settings.heads}")
        self.causal, self.from_start, self.scale = settings.causal, settings.from_start, scale
        self.sizes = {  # an encoder of others makes something else of the same weights, or has no place for them
            "width": width,
            "layers": settings.layers,
            "heads": settings.heads,
            "feed_forward": settings.feed_forward,
            "max_len": settings.max_len,
            "history": "causal" if settings.causal else "bidirectional",
            "positions": "first" if settings.from_start else "newest",
            "scale": scale,
            "gated": settings.gated,
        }
        self.position = nn.Parameter(torch.empty(settings.max_len, width))
        sizes = (width, settings.heads, settings.feed_forward, settings.dropout, settings.gated)
        self.layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(settings.layers))
        self.norm, self.drop = nn.LayerNorm(width), Dropout(settings.dropout)

    def places(self, index: Tensor, valid: Tensor) -> Tensor:
        """[S] or [B, S] the number of each place of histories, by which it has a position."""
        place = torch.arange(index.shape[1], device=index.device)
        return place if self.from_start else (valid.sum(1, keepdim=True) - 1 - place).clamp(min=0)

    def forward(self, vectors: Tensor, index: Tensor, valid: Tensor, beside: Tensor | None = None) -> Tensor:
        """States [B, S, d] of histories; the arguments are those of ``encode_history``.

        Args:
            beside: [B, S or 1, d] what is added to the items as they enter, at its own size.
        """
        x = (vectors[index] + self.position[self.places(index, valid)]) * self.scale
        x = self.drop(x if beside is None else x + beside)
        for layer in self.layers:
            x = layer(x, valid, self.causal)
        return self.norm(x)

    def check_start(self, other: HistoryEncoder) -> None:
        """Refuse to begin with the weights of an encoder of other sizes.

        Raises:
            RecipeError: with every size that differs, of both.
        """
        if unlike := [
            f"{name} is {size} here and {other.sizes[name]} there"
            for name, size in self.sizes.items()
            if size != other.sizes[name]
        ]:
            raise RecipeError(
                f"model.start=item_scorer needs a history encoder like the item scorer's: {'; '.join(unlike)}; change "
                "model.*, or the item scorer (embedding.changes=[model.width=64], for example), so that they are alike"
            )


class HistoryNetwork(nn.Module):
    """Item vectors and a history encoder, perhaps with a decoder over the digits of the next item.

    Args:
        sizes: what the data decide.
        branches: what an item's vector is made of.
        encoder: how histories are encoded.
        scaled: weights by fan-in and vectors of norm 1 (else every weight at std 0.02, as in the release).

    Attributes:
        multiples: settings each of which another one must divide; recipes are checked for it.

    Raises:
        RecipeError: see :class:`HistoryEncoder` and :class:`ItemVectors`.
    """

    multiples: ClassVar[tuple[tuple[str, str], ...]] = (("width", "heads"),)

    def __init__(self, sizes: Sizes, branches: PartsLike, encoder: EncoderSettings, scaled: bool = True) -> None:
        super().__init__()
        self.max_len, self.causal, self.scaled = encoder.max_len, encoder.causal, scaled
        scale = sizes.width**0.5 if scaled else 1.0
        self.digits = DigitEmbedding(sizes.n_digits, sizes.codebook_size, sizes.width, scale) if sizes.n_digits else None
        self.item = ItemVectors(branches, sizes, scaled)
        self.encoder = HistoryEncoder(sizes.width, encoder, scale)
        self.decoder: DigitDecoder | None = None
        self.event_types: nn.Parameter | None = None
        self.context: nn.Parameter | None = None

    def initialise(self, tables: Iterable[tuple[nn.Parameter, float]]) -> None:
        """Draw all weights; to be called once all of them are there.

        Args:
            tables: those that are no weights of layers, in the order in which they are drawn, with their relative sizes.
        """
        width = self.encoder.position.shape[1]
        std = width**-0.5 if self.scaled else 0.02
        if self.scaled:
            scale_by_fan_in(self, len(self.encoder.layers) + (len(self.decoder.layers) if self.decoder else 0))
        else:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=std)
                    nn.init.zeros_(module.bias)
        for table, size in tables:
            nn.init.normal_(table, std=std * size)

    def branch_tables(self) -> list[tuple[nn.Parameter, float]]:
        """Tables of the branches, to draw at the start."""
        return [table for branch in self.item.branches for table in branch.tables()]

    def start_from(self, encoder: HistoryEncoder, code_vectors: Tensor) -> None:
        """Begin where a trained item scorer stands.

        Args:
            encoder: its history encoder.
            code_vectors: [n, K, d] centroids, of which the vectors of its items are sums.

        Raises:
            RecipeError: see :meth:`HistoryEncoder.check_start`.
        """
        assert self.digits is not None
        self.encoder.check_start(encoder)
        self.encoder.load_state_dict(encoder.state_dict())
        with torch.no_grad():
            self.digits.codes.copy_(code_vectors.flatten(0, 1))

    def start_at_texts(self, code_vectors: Tensor) -> None:
        """Begin where a history of one text scores items by its inner product with the sums of their codes' vectors.

        The branch projects texts on the d leading directions of the code vectors, the layers of the encoder add nothing
        yet, and codes are their own vectors. It needs ``skip``; only the normalisation of states stands between.

        Args:
            code_vectors: [n, K, e] centroids, of which the vectors of texts are sums.
        """
        branch, width = self.item.branches[0], self.encoder.position.shape[1]
        assert self.digits is not None and isinstance(branch, TextBranch)
        rows = code_vectors.flatten(0, 1).double()
        directions = torch.linalg.svd(rows, full_matrices=False).Vh[:width]  # [at most d, e]
        with torch.no_grad():
            for parameter in (branch.linear.weight, branch.linear.bias, self.encoder.position, self.digits.codes):
                parameter.zero_()
            branch.linear.weight[: len(directions)] = directions
            self.digits.codes[:, : len(directions)] = (rows @ directions.T).to(self.digits.codes)
            for part in self.encoder.layers.modules():
                if isinstance(part, Attention | FeedForwardLayers):
                    part.out.weight.zero_()

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """The vectors [M, d] of items. They stand in histories, and a user's vector is compared with them."""
        return self.item(items, self.digits)

    def take_types(self, count: int) -> None:
        """See :class:`diffgrm.networks.contracts.TakesTypes`; at first all types are alike, and like none."""
        self.event_types = nn.Parameter(torch.zeros(count, self.encoder.position.shape[1]))

    def typed(self, vectors: Tensor, types: Tensor) -> Tensor:
        """See :class:`diffgrm.networks.contracts.TakesTypes`; a learnt vector of the type is added to the item's."""
        assert self.event_types is not None
        return vectors + self.event_types[types]

    def take_context(self, count: int) -> None:
        """See :class:`diffgrm.networks.contracts.TakesContext`; at first no value says anything."""
        self.context = nn.Parameter(torch.zeros(count, self.encoder.position.shape[1]))

    def in_context(self, vectors: Tensor, context: Tensor) -> Tensor:
        """See :class:`diffgrm.networks.contracts.TakesContext`; learnt vectors of the values are added to the item's."""
        assert self.context is not None
        return vectors + F.embedding_bag(context, self.context, mode="sum")

    def borrowed_vectors(self, weights: Tensor) -> Tensor | None:
        """See :class:`diffgrm.networks.contracts.BorrowsVectors`."""
        return self.item.borrowed(weights)

    def code_tables(self) -> Tensor:
        """See :class:`diffgrm.networks.contracts.GivesCodeTables`."""
        assert self.digits is not None
        return self.digits.tables

    def text_alignment(self, items: ItemFeatures) -> Tensor | None:
        """See :class:`diffgrm.networks.contracts.AlignsTexts`."""
        return self.item.alignment(items)

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> Memory:
        """Histories -> memory; see :class:`diffgrm.networks.contracts.EncodesHistories`."""
        hidden = self.encoder(vectors, index, valid)
        keys, values = self.decoder.project(hidden) if self.decoder else ((), ())
        return Memory(keys, values, valid[:, None], hidden)

    def user_vectors(self, memory: Memory, history: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        """See :class:`diffgrm.networks.contracts.ScoresItems`."""
        if history is None or length is None:
            return memory.newest()
        assert memory.hidden is not None
        return memory.hidden[history, length - 1]
