"""Random items: what a metric is worth without any knowledge."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import polars as pl

from diffgrm.data.dataset import Split
from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.recommenders.base import Recommender


class RandomRecommender(Recommender):
    """Items in an order drawn from the seed and the history, so the same history gets the same list."""

    name = "random"

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        pass  # nothing to learn

    def _know(self, rows: pl.DataFrame) -> None:
        pass  # nothing to know

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        def scores(rows: np.ndarray) -> np.ndarray:
            seeds = [[self.recipe.seed, zlib.crc32(query.histories[row].tobytes())] for row in rows]
            return np.stack([np.random.default_rng(seed).random(len(self.items)) for seed in seeds])

        return top_k_of_scores(query, scores)
