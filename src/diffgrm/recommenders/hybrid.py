"""What ranks best by item of all we measured: items and digits learnt on one encoder, other opinions beside it."""

from __future__ import annotations

from typing import ClassVar

from diffgrm.recommenders.diffgrm import DiffGRMRecommender
from diffgrm.recommenders.generative import GenerativeRecommender


class HybridRecommender(DiffGRMRecommender):
    """Learns items beside their digits, and ranks by a sum of item scorers; digits can still generate and explain.

    The list is chosen by the network's item scores, co-occurrence and a lift for new items (``item_scoring``); with the
    default recipe digits have no say in it (docs/results/quality.md).

    Example:
        >>> from diffgrm import HybridRecommender, Recipe, toy_world
        >>> recipe = Recipe(tokenizer={"codebook_size": 16}, training={"epochs": 1}, model={"width": 16})
        >>> recommender = HybridRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "hybrid"
    sections: ClassVar[tuple[str, ...]] = (*GenerativeRecommender.sections, "item_scoring", "retrieval")
