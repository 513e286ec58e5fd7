"""SASRec as a recommender, with a vector per item or vectors composed from semantic IDs (floor 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import Split
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.ranking.query import Query
from diffgrm.ranking.retrieval import VectorRanker
from diffgrm.recommenders.network import NetworkRecommender
from diffgrm.recommenders.semantic import SemanticRecommender


class SASRecRecommender(NetworkRecommender):
    """Causal self-attention over items, each with a vector of its own: the strong classical baseline.

    Example:
        >>> from diffgrm import Recipe, toy_world
        >>> recipe = Recipe(recommender="sasrec", training={"epochs": 1}, model={"width": 16})
        >>> recommender = SASRecRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "sasrec"
    sections: ClassVar[tuple[str, ...]] = ("model", "item_loss", "training")
    defaults: ClassVar[dict[str, dict[str, Any]]] = {"model": {"name": "sasrec"}}

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        self._prepare(split, run_folder)
        objective = NextItemObjective(self._new_network(), self.recipe.item_loss, self._digits(), split.item_counts)
        self._train(objective, split, run_folder, resume, progress)

    def _prepare(self, split: Split, run_folder: Path | None) -> None:
        """What must be known before the network is built."""

    def _sizes(self) -> dict[str, int]:
        assert self._item_counts is not None
        return {"n_digits": 1, "codebook_size": len(self._item_counts)}

    def _digits(self) -> Tensor:
        """[I, n] digits by which the network knows each item: here one, the item's position."""
        assert self._item_counts is not None
        return torch.arange(len(self._item_counts))[:, None]

    @torch.no_grad()
    def _likeness(self, position: int) -> np.ndarray:
        network: Any = self.network_in_use
        vectors = network.item_vectors(self._digits().to(next(network.parameters()).device)).float()
        vectors = torch.nn.functional.normalize(vectors, dim=1)
        return (vectors @ vectors[position]).cpu().numpy()

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        network = self.network_in_use
        digits = self._digits().to(next(network.parameters()).device)
        return VectorRanker(network, digits, self.recipe.item_loss.cosine).rank(query)


class SidSASRecRecommender(SemanticRecommender, SASRecRecommender):
    """SASRec whose item vectors are composed from the digits of semantic IDs: does the table of items matter?"""

    name = "sid_sasrec"
    sections = (*SemanticRecommender.sections, *SASRecRecommender.sections)

    def _prepare(self, split: Split, run_folder: Path | None) -> None:
        self._tokenize(split, run_folder)

    def _digits(self) -> Tensor:
        assert self.semantic_ids is not None
        return torch.from_numpy(self.semantic_ids.codes.astype(np.int64))
