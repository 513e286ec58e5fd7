"""SASRec as a recommender: the history encoder and scores of items, by whatever branches its item vectors have."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from diffgrm.foundation.recipe import Recipe
from diffgrm.ranking.item_index import KeptIndex
from diffgrm.ranking.item_ranker import ItemRanker
from diffgrm.ranking.query import Query
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.checks import check_recipe
from diffgrm.recommenders.parts import LearntPart, part_of
from diffgrm.recommenders.rankers import first_stage, item_features, item_ranker
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors, branch_names, reads_texts
from diffgrm.recommenders.trained_network import TrainedNetwork, network_of
from diffgrm.semantic_ids.semantic_ids import SemanticIds


class SASRecRecommender(Recommender):
    """Causal self-attention over items, each with a vector of its own: the strong classical baseline.

    ``model.branches=[text, id]`` is SASRec with texts, ``[sid]`` composes items from semantic IDs.

    Example:
        >>> from diffgrm import Recipe, toy_world
        >>> recipe = Recipe(recommender="sasrec", training={"epochs": 1}, model={"width": 16})
        >>> recommender = SASRecRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "sasrec"
    sections: ClassVar[tuple[str, ...]] = ("model", "objective", "retrieval", "training")
    takes_offsets = True

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        self._ranker: ItemRanker | None = None
        self._unit: np.ndarray | None = None  # [I, d] item vectors of length 1, once their similarity is asked for
        self._index = KeptIndex()

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`; texts and semantic IDs where the branches read them."""
        check_recipe(self.recipe)
        branches, parts = branch_names(self.recipe), dict[str, LearntPart]()
        if "sid" in branches or reads_texts(self.recipe):
            parts["texts"] = TextVectors(kept=reads_texts(self.recipe))
        if "sid" in branches:
            parts["sids"] = Identifiers()
        return {**parts, "network": TrainedNetwork()}

    @property
    def takes_new_items(self) -> bool:
        """Whether a branch reads texts."""
        return "texts" in self.parts

    @property
    def semantic_ids(self) -> SemanticIds | None:
        """Of all items, where a branch reads them."""
        return part_of(self.parts, "sids", Identifiers).semantic_ids if "sids" in self.parts else None

    @property
    def network(self) -> torch.nn.Module:
        """The trained network, in 32 bits."""
        return network_of(self.parts).network

    def ranker(self) -> ItemRanker:
        """The network and all items, ready to rank item positions."""
        part = network_of(self.parts)
        device = next(part.in_use.parameters()).device
        ranker = self._ranker
        if ranker is None or ranker.items.features.device != device:  # a variant of the same network moved
            features = item_features(self.parts, self.item_counts, part.sizes["n_items"]).to(device)
            exact = item_ranker(self.recipe, part.in_use, features)
            self._ranker = ranker = replace(exact, first_stage=first_stage(self.recipe, exact.scoring, self._index))
        return ranker

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        return self.ranker().rank(query)

    def _similarity(self, position: int, others: np.ndarray | None = None) -> np.ndarray:
        if "texts" in self.parts:
            return part_of(self.parts, "texts", TextVectors).similarity(self.item_table, position, others)
        if (unit := self._unit) is None:
            unit = self._unit = F.normalize(self.ranker().items.vectors.float(), dim=1).cpu().numpy()
        return (unit if others is None else unit[others]) @ unit[position]

    def _forget(self) -> None:
        self._ranker = self._unit = None


class SidSASRecRecommender(SASRecRecommender):
    """SASRec whose item vectors are composed from the digits of semantic IDs: does the table of items matter?"""

    name = "sid_sasrec"
