"""ItemRanker: histories in, item positions out, exactly, for networks that score items and decode no digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.data.dataset import Ragged
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.contracts import ScoresItems, contract
from diffgrm.networks.inputs import Histories
from diffgrm.ranking.item_scoring.base import ItemScoring, Users
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.query import Query, top_k_of_scores


@dataclass(frozen=True)
class ItemRanker:
    """A network, all items as it sees them, and how they are scored.

    Attributes:
        network: see :class:`ScoresItems`.
    """

    network: nn.Module
    items: ItemTable
    scoring: ItemScoring

    def rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k], best first (-1 after the last), and their scores [U, k]."""
        with torch.no_grad(), evaluating(self.network):

            def scores(rows: np.ndarray) -> np.ndarray:
                histories = query.histories.rows(rows)
                users = self.items.comparison.users(self._user_vectors(histories))
                return self.scoring.scores(Users(users, histories)).cpu().numpy()

            return top_k_of_scores(query, scores)

    def top(self, histories: Ragged, k: int) -> np.ndarray:
        """Item positions [U, k] for histories, best first, what is in the history left out, -1 after the last."""
        return self.rank(Query(histories, k))[0]

    def _user_vectors(self, histories: Ragged) -> Tensor:
        """[U, d] what the network makes of histories of which it looks at the last ``max_len`` items."""
        network = contract(self.network, ScoresItems)
        stop = histories.offsets[1:]
        start = np.maximum(histories.offsets[:-1], stop - network.max_len)
        items, index, valid = Histories.collate(histories.values, start, stop).to(self.items.features.device)
        return network.user_vectors(network.encode_history(self.items.vectors[items], index, valid))
