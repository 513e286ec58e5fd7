"""The items of a catalogue as a network sees them: their vectors, made once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from diffgrm.networks.blocks import evaluating
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.contracts import BorrowsVectors, EncodesHistories, PairsDigits, compared, contract, lacks
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.finite_answers import check_finite
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours

ITEMS_AT_ONCE = 2**16  # items whose vectors are made in one call


class ItemTable:
    """The items of a catalogue as a network sees them.

    Args:
        network: see :class:`EncodesHistories`.
        features: of all items, on the device of the network.
        comparison: how users and items are compared.
        neighbours: from whom items without training events borrow ID embeddings; None: from nobody.
    """

    def __init__(
        self,
        network: nn.Module,
        features: ItemFeatures,
        comparison: Comparison | None = None,
        neighbours: TextNeighbours | None = None,
    ) -> None:
        self.network, self.features, self.neighbours = network, features, neighbours
        self.comparison = comparison or Comparison()

    @cached_property
    def vectors(self) -> Tensor:
        """[I, d] vectors of all items, made when first asked for and kept."""
        with torch.no_grad(), evaluating(self.network):
            everything = torch.arange(len(self.features), device=self.features.device)
            vectors = torch.cat([self._made(part) for part in everything.split(ITEMS_AT_ONCE)])
            if self.neighbours is not None and not self.neighbours.has_events.all():
                self._borrow(vectors, self.neighbours)
            return vectors

    @cached_property
    def comparable(self) -> Tensor:
        """[I, d] what users are compared with, ready to be multiplied with their vectors."""
        return self.comparison.items(compared(self.network, self.vectors))

    @cached_property
    def pair_vectors(self) -> Tensor | None:
        """[I, r] what the pairs of digits of all items say, made when first asked for and kept; None: nothing."""
        kind: type = type(self.network)
        if lacks(kind, PairsDigits) or self.features.codes is None:
            return None
        network = contract(self.network, PairsDigits)
        with torch.no_grad(), evaluating(self.network):
            parts = [network.pair_vectors(codes) for codes in self.features.codes.long().split(ITEMS_AT_ONCE)]
        made = [check_finite(self.network, "pair_vectors", part) for part in parts if part is not None]
        return torch.cat(made) if made else None

    def of(self, items: Tensor) -> Tensor:
        """[M, d] vectors of items; where none borrows, those of all others are not needed for it."""
        made = "vectors" in self.__dict__ or self.neighbours is not None
        return self.vectors[items] if made else self._made(items)

    def _borrow(self, vectors: Tensor, neighbours: TextNeighbours) -> None:
        """Add to the vectors of items without training events what they borrow from those of nearest text."""
        kind: type = type(self.network)
        if lacks(kind, BorrowsVectors):
            return
        network = contract(self.network, BorrowsVectors)
        new = np.flatnonzero(~neighbours.has_events)
        for part in np.split(new, range(ITEMS_AT_ONCE, len(new), ITEMS_AT_ONCE)):
            weights = borrowing(neighbours, part).to(vectors)
            if (borrowed := network.borrowed_vectors(weights)) is not None:
                vectors[torch.from_numpy(part).to(vectors.device)] += borrowed

    def _made(self, items: Tensor) -> Tensor:
        return contract(self.network, EncodesHistories).item_vectors(self.features.of(items))


def borrowing(neighbours: TextNeighbours, items: np.ndarray) -> Tensor:
    """[N, J] from whom items at positions [N] borrow, and how much, as a sparse tensor."""
    some = sp.coo_array(neighbours.weights[items])  # of few: as a full matrix it would grow with the items' square
    places, values = torch.from_numpy(np.stack(some.coords)), torch.from_numpy(some.data)
    return torch.sparse_coo_tensor(places, values, some.shape, check_invariants=True)
