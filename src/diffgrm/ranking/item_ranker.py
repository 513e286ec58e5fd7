"""ItemRanker: histories in, item positions out, for networks that score items and decode no digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.data.context import Context
from diffgrm.data.dataset import Ragged
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.contracts import ScoresItems, contract, encoded
from diffgrm.networks.inputs import Histories
from diffgrm.ranking.best_of_tensor import best_of_tensor
from diffgrm.ranking.first_stage import FirstStage
from diffgrm.ranking.item_scoring.base import ItemScoring, Users
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.query import Query, top_k_of_scores

USERS_AT_ONCE = 256  # whose items are looked up together


@dataclass(frozen=True)
class ItemRanker:
    """A network, all items as it sees them, and how they are scored.

    Attributes:
        network: see :class:`ScoresItems`.
        first_stage: looks up the best items of large catalogues; None: all items are scored.
    """

    network: nn.Module
    items: ItemTable
    scoring: ItemScoring
    first_stage: FirstStage | None = None

    def rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k], best first (-1 after the last), and their scores [U, k]."""
        allowed = len(self.items.features) if query.candidates is None else int(np.count_nonzero(query.candidates))
        with torch.no_grad(), evaluating(self.network):
            if query.offsets is None and self.first_stage is not None and self.first_stage.serves(allowed):
                return self._looked_up(query, self.first_stage)
            return top_k_of_scores(query, lambda rows: self.scoring.scores(self._users(query, rows)), best_of_tensor)

    def _looked_up(self, query: Query, first_stage: FirstStage) -> tuple[np.ndarray, np.ndarray]:
        """The answer where few items are scored, a block of users at a time."""
        items = np.full((len(query.histories), query.k), -1, dtype=np.int64)
        scores = np.full(items.shape, -np.inf, dtype=np.float32)
        for start in range(0, len(items), USERS_AT_ONCE):
            rows = np.arange(start, min(start + USERS_AT_ONCE, len(items)))
            users = self._users(query, rows)
            excluded = users.histories.seen() if query.exclude_seen else None
            found, said = first_stage.best(users, query.k, query.candidates, excluded)
            count = min(query.k, found.shape[1])
            items[rows, :count], scores[rows, :count] = found[:, :count], said[:, :count]
            if query.progress:
                query.progress(len(rows))
        return items, scores

    def _users(self, query: Query, rows: np.ndarray) -> Users:
        histories = query.histories.rows(rows)
        return Users(self.items.comparison.users(self._user_vectors(histories)), histories)

    def top(self, histories: Ragged, k: int) -> np.ndarray:
        """Item positions [U, k] for histories, best first, what is in the history left out, -1 after the last."""
        return self.rank(Query(histories, k))[0]

    def _user_vectors(self, histories: Ragged) -> Tensor:
        """[U, d] what the network makes of histories of which it looks at the last ``max_len`` items."""
        network = contract(self.network, ScoresItems)
        stop = histories.offsets[1:]
        start = np.maximum(histories.offsets[:-1], stop - network.max_len)
        told = histories.marks.inputs, Context.of(histories, network.causal)
        asked = Histories.collate(histories.values, start, stop, *told).to(self.items.features.device)
        return network.user_vectors(encoded(self.network, self.items.vectors[asked.items], asked))
