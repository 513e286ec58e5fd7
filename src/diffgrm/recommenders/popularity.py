"""Most popular items first: the least that any recommender must beat."""

from __future__ import annotations

import numpy as np

from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.recommenders.base import Recommender


class PopularityRecommender(Recommender):
    """Ranks by number of training events, the same for everyone; equal numbers in order of the item table."""

    name = "popularity"
    takes_offsets = True

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        n_items = len(self.item_counts)
        scores = self.item_counts - np.arange(n_items) / n_items  # earlier items win ties
        return top_k_of_scores(query, lambda rows: np.tile(scores, (len(rows), 1)))
