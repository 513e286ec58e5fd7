"""The objective of item-level networks: tell the next item from the others (floor 4)."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.recipe import ItemLossSettings
from diffgrm.learning.batches import Batch
from diffgrm.learning.item_losses import draw, item_loss
from diffgrm.learning.objectives.base import Objective
from diffgrm.ranking.query import Query
from diffgrm.ranking.retrieval import VectorRanker


class NextItemObjective(Objective):
    """Next-item prediction by the product of a history's vector and an item's.

    Args:
        network: has ``item_vectors``, ``encode`` and ``max_len``.
        digits: [I, n] of all items.
        counts: [I] training events of every item, for drawing negatives.
    """

    def __init__(self, network: nn.Module, loss: ItemLossSettings, digits: Tensor, counts: np.ndarray) -> None:
        super().__init__()
        self.network, self.settings = network, loss
        self.digits: Tensor
        self.counts: Tensor
        self.register_buffer("digits", digits, persistent=False)
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.int64)), persistent=False)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """See :meth:`Objective.loss`."""
        network = cast(Any, self.network)
        items, places, valid = batch.histories
        vectors = network.item_vectors(self.digits)  # [I, d]
        hidden = network.encode(vectors[items], places, valid)  # [B, S, d]
        last = batch.length.flatten()[batch.slot] - 1  # [N] place of the newest item that each target's history knows
        row = batch.slot // batch.length.shape[1]
        sample = draw(self.settings, self.counts, len(batch.target), generator)
        return item_loss(hidden[row, last], batch.target, vectors, self.settings, sample, len(vectors))

    def rank(self, histories: Ragged, k: int) -> np.ndarray:
        """See :meth:`Objective.rank`."""
        return VectorRanker(self.network, self.digits, self.settings.cosine).rank(Query(histories, k))[0]

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["next item", self.settings.model_dump(), self.digits.cpu().numpy(), self.counts.cpu().numpy()]
