"""DiffGRM as a recommender: texts to semantic IDs to a trained network to items (floor 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import Ragged
from diffgrm.decoding.base import Decoder
from diffgrm.recommenders.generative import GenerativeRecommender
from diffgrm.training import Objective
from diffgrm.training.diffusion import DiffusionObjective


class DiffGRMRecommender(GenerativeRecommender):
    """Masked diffusion over semantic IDs.

    Example:
        >>> from diffgrm import DiffGRMRecommender, Recipe, toy_world
        >>> recipe = Recipe(tokenizer={"codebook_size": 16}, training={"epochs": 1}, model={"width": 16})
        >>> recommender = DiffGRMRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "diffgrm"
    learns = "denoise"
    sections = (*GenerativeRecommender.sections, "noising")

    def _objective(self, network: Any, codes: Tensor, codebook_size: int, decoder: Decoder) -> Objective:
        noising = self.recipe.noising.build("noising")
        return DiffusionObjective(network, noising, self.recipe.loss, codes, codebook_size, decoder)

    def fill_order(self, histories: Ragged) -> np.ndarray:
        """Which digit of the best item is filled when, over many users.

        Args:
            histories: item positions of every user, oldest first.

        Returns:
            [n, n] share of users whose best item had digit j (row) filled in step s (column).
        """
        ranker = self.ranker()
        n = ranker.catalogue.n_digits
        counts = np.zeros((n, n))
        for _, decoded in ranker.decode(histories, 1, exclude_seen=True):
            found = decoded.items[:, 0] >= 0
            first = decoded.legal.int().argmax(1)
            steps = decoded.steps[torch.arange(len(first), device=first.device), first][found].cpu().numpy()
            for digit in range(n):
                counts[digit] += np.bincount(steps[:, digit], minlength=n)
        return counts / max(counts[0].sum(), 1)
