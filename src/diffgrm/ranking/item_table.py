"""The items of a catalogue as a network sees them: their vectors, and scores of whole items (floor 3)."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.recipe import ItemLossSettings
from diffgrm.learning.item_losses import comparable
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrence

ITEMS_AT_ONCE = 2**16  # items whose vectors are made in one call


class ItemTable:
    """The items of a catalogue as a network sees them.

    Args:
        network: has ``item_vectors``.
        features: of all items, on the device of the network.
        scoring: how users and items are compared.
        neighbours: what goes with histories by co-occurrence; needed only where a decoder gives it weight.
    """

    def __init__(
        self,
        network: nn.Module,
        features: ItemFeatures,
        scoring: ItemLossSettings | None = None,
        neighbours: CoOccurrence | None = None,
    ) -> None:
        self.network, self.features, self.neighbours = network, features, neighbours
        self.scoring = scoring or ItemLossSettings()  # type: ignore[call-arg]

    @cached_property
    def vectors(self) -> Tensor:
        """[I, d] vectors of all items, made when first asked for and kept."""
        with torch.no_grad(), evaluating(self.network):
            everything = torch.arange(len(self.features), device=self.features.codes.device)
            vectors = torch.cat([self._made(part) for part in everything.split(ITEMS_AT_ONCE)])
            if self.neighbours is not None and not self.neighbours.own.all():
                self._lend(vectors, self.neighbours)
            return vectors

    def of(self, items: Tensor) -> Tensor:
        """[M, d] vectors of items; where none borrows, those of all others are not needed for it."""
        whole = "vectors" in self.__dict__ or self.neighbours is not None
        return self.vectors[items] if whole else self._made(items)

    def _lend(self, vectors: Tensor, neighbours: CoOccurrence) -> None:
        """Add to the vectors of items without training events what they borrow from the ids of those of nearest text."""
        for part in np.array_split(np.flatnonzero(~neighbours.own), 1 + len(neighbours.own) // ITEMS_AT_ONCE):
            lenders = torch.from_numpy(neighbours.lenders[part].toarray()).to(vectors)
            vectors[torch.from_numpy(part).to(vectors.device)] += cast(Any, self.network).borrowed_ids(lenders)

    def scores(self, users: Tensor, histories: Ragged, co_occurrence: float, new_items: float) -> Tensor:
        """[B, I] of every item for each user, before softmax.

        Args:
            users: [B, d] their vectors; histories: their items.
            co_occurrence: weight of what goes with the histories.
            new_items: added for items without training events.
        """
        users, items = comparable(users, self.vectors, self.scoring)
        scores = (users @ items.T).float()
        if co_occurrence:
            assert self.neighbours is not None
            scores += co_occurrence * torch.from_numpy(self.neighbours.scores(histories)).to(scores.device)
        if new_items:
            assert self.neighbours is not None
            scores[:, torch.from_numpy(~self.neighbours.own).to(scores.device)] += new_items
        return scores

    def _made(self, items: Tensor) -> Tensor:
        return cast(Any, self.network).item_vectors(self.features.of(items))
