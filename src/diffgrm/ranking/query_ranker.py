"""QueryRanker: queries in, positions of documents out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from diffgrm.data.dataset import Ragged
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.ranker import Ranker


@dataclass(frozen=True)
class QueryRanker(Ranker):
    """A network that is asked by queries: what stands in a history is the number of a query, which is no document.

    Attributes:
        items: the network's view of the queries.
    """

    @classmethod
    def of(cls, network: nn.Module, decoder: Decoder, catalogue: Catalogue, queries: torch.Tensor) -> QueryRanker:
        """For queries by their vectors [Q, e], on the device of the network."""
        return cls(network, decoder, catalogue, ItemTable(network, ItemFeatures(text=queries)))

    @property
    def queries(self) -> Ragged:
        """All queries, a history each."""
        count = len(self.items.features)
        return Ragged(np.arange(count), np.arange(count + 1))

    def rank_all(self, k: int, progress: Callable[[int], None] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Positions of documents [Q, k] for all queries, best first (-1 after the last), and their scores [Q, k]."""
        return self.rank(self.queries, k, exclude_seen=False, progress=progress)

    def top(self, histories: Ragged, k: int) -> np.ndarray:
        """Positions of documents [U, k] for the queries that stand in histories, best first, -1 after the last."""
        return self.rank(histories, k, exclude_seen=False)[0]

    def seed_of(self, history: np.ndarray) -> int:
        """See :meth:`Ranker.seed_of`; by the vector of the query, whatever its number."""
        assert self.items.features.text is not None
        return zlib.crc32(self.items.features.text[int(history[-1])].cpu().numpy().tobytes())
