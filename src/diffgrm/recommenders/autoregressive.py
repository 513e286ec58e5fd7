"""Semantic IDs from left to right: what DiffGRM does without its any-order part."""

from __future__ import annotations

from diffgrm.recommenders.generative import GenerativeRecommender


class AutoregressiveRecommender(GenerativeRecommender):
    """Generates the digits of the next item one after the other, as TIGER does (Rajput et al., 2023).

    Digits need an order for that: ``tokenizer.name=residual_kmeans`` has one, OPQ's is arbitrary.
    """

    name = "autoregressive"
