"""VectorRanker: histories in, item positions out, for networks that compare a vector with every item's (floor 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgrm.data.dataset import Ragged
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.inputs import Histories
from diffgrm.ranking.query import Query, top_k_of_scores


@dataclass(frozen=True)
class VectorRanker:
    """A network and the digits of all items, ready to rank exactly.

    Attributes:
        network: has ``item_vectors``, ``encode`` and ``max_len``.
        digits: [I, n] of all items, on the device of the network.
        cosine: compare directions only.
    """

    network: nn.Module
    digits: Tensor
    cosine: bool = False

    def rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k], best first (-1 after the last), and their scores [U, k]."""
        network = cast(Any, self.network)
        with torch.no_grad(), evaluating(self.network):
            vectors = network.item_vectors(self.digits)  # [I, d]
            table = F.normalize(vectors, dim=-1) if self.cosine else vectors

            def scores(rows: np.ndarray) -> np.ndarray:
                user = self._user_vectors(query.histories.rows(rows), vectors)
                if self.cosine:
                    user = F.normalize(user, dim=-1)
                return (user @ table.T).float().cpu().numpy()

            return top_k_of_scores(query, scores)

    def _user_vectors(self, histories: Ragged, vectors: Tensor) -> Tensor:
        """[U, d] what the network makes of histories of which it looks at the last ``max_len`` items."""
        network = cast(Any, self.network)
        stop = histories.offsets[1:]
        start = np.maximum(histories.offsets[:-1], stop - network.max_len)
        items, places, valid = Histories.collate(histories.values, start, stop).to(vectors.device)
        hidden = network.encode(vectors[items], places, valid)  # [U, S, d]
        return hidden[torch.arange(len(hidden), device=hidden.device), valid.sum(1) - 1]
