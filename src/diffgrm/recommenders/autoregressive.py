"""Semantic IDs from left to right: what DiffGRM does without its any-order part (floor 5)."""

from __future__ import annotations

from typing import Any, ClassVar

from diffgrm.learning.objectives.base import Objective
from diffgrm.learning.objectives.left_to_right import AutoregressiveObjective
from diffgrm.recommenders.generative import GenerativeRecommender


class AutoregressiveRecommender(GenerativeRecommender):
    """Generates the digits of the next item one after the other, as TIGER does (Rajput et al., 2023).

    Digits need an order for that: ``tokenizer.name=residual_kmeans`` has one, OPQ's is arbitrary.
    """

    name = "autoregressive"
    learns = "predict"
    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "model": {"name": "autoregressive"},
        "decoding": {"name": "left_to_right"},
    }

    def _objective(self, network: Any, *parts: Any) -> Objective:
        return AutoregressiveObjective(network, *parts)
