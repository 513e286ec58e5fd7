"""Random items: what a metric is worth without any knowledge."""

from __future__ import annotations

import zlib

import numpy as np

from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.recommenders.base import Recommender


class RandomRecommender(Recommender):
    """Items in an order drawn from the seed and the history, so the same history gets the same list."""

    name = "random"
    takes_offsets = True

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        def scores(rows: np.ndarray) -> np.ndarray:
            seeds = [[self.recipe.seed, zlib.crc32(query.histories[row].tobytes())] for row in rows]
            return np.stack([np.random.default_rng(seed).random(len(self.items)) for seed in seeds])

        return top_k_of_scores(query, scores)
