"""From learnt parts to something that ranks: in validation, in use and for the export, by tables that are built once."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from diffgrm.foundation.recipe import Recipe
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.first_stage import FirstStage
from diffgrm.ranking.item_index import KeptIndex
from diffgrm.ranking.item_ranker import ItemRanker
from diffgrm.ranking.item_scoring.base import ItemScoring, ScoredItems
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.ranking.item_scoring.vectors import VectorScorer
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.parts import Parts, part_of
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors


def item_features(parts: Parts, item_counts: np.ndarray, n_fitted: int) -> ItemFeatures:
    """What a network may know of all items.

    Args:
        item_counts: [I] training events of every item.
        n_fitted: J, items that were there at fit; those that came later have no ID embedding.
    """
    codes = texts = None
    if "sids" in parts:
        codes = torch.from_numpy(part_of(parts, "sids", Identifiers).semantic_ids.codes.astype(np.int64))
    if "texts" in parts and (part := part_of(parts, "texts", TextVectors)).kept:
        assert part.vectors is not None
        texts = torch.from_numpy(part.vectors)
    row = torch.arange(len(item_counts))
    return ItemFeatures(codes, texts, torch.where(row < n_fitted, row, -1), torch.from_numpy(item_counts > 0))


def neighbours_by_text(features: ItemFeatures, n_fitted: int) -> TextNeighbours:
    """From whom items without training events borrow: those of nearest text, of J that were there at fit.

    Args:
        features: of all items, not on a GPU; where they have no texts, nobody borrows.
    """
    assert features.trained is not None
    later = np.zeros((len(features) - n_fitted, 0))  # whoever they borrow from is found below
    neighbours = TextNeighbours.alone(features.trained[:n_fitted].numpy()).grown(later, None)
    if features.text is None:
        return neighbours
    texts, lonely = features.text.numpy(), np.flatnonzero(~neighbours.has_events)
    return neighbours.changed(lonely, texts[lonely], texts)


class Tables:
    """What ranking needs besides the network: the catalogue by its codes, which is built once.

    Args:
        recommendable: [I] bool, items that may be recommended; None is all.
        catalogue: where it has been built already.
    """

    def __init__(
        self, recipe: Recipe, parts: Parts, recommendable: np.ndarray | None, catalogue: Catalogue | None = None
    ) -> None:
        self.recipe, self.parts, self.recommendable = recipe, parts, recommendable
        self._catalogue = catalogue

    def catalogue(self, features: ItemFeatures) -> Catalogue:
        """The recommendable items by their codes, on the device of their features."""
        if self._catalogue is None or self._catalogue.device != features.device:
            sids = part_of(self.parts, "sids", Identifiers).semantic_ids
            assert features.codes is not None
            recommendable = None
            if self.recommendable is not None:
                recommendable = torch.from_numpy(self.recommendable).to(features.device)
            self._catalogue = Catalogue(features.codes, sids.codebook_size, recommendable, features.trained)
        return self._catalogue

    def ranker(
        self, network: nn.Module, features: ItemFeatures, decoder: Decoder, items: ItemTable | None = None
    ) -> Ranker:
        """A network as it is now and a decoder, ready to rank.

        Args:
            items: the network's view of them, where it has been made already.
        """
        scorers = part_of(self.parts, "scorers", ItemScorers) if "scorers" in self.parts else None
        neighbours = scorers.neighbours if scorers is not None else None
        table = items or ItemTable(network, features, Comparison.of(self.recipe.item_loss), neighbours)
        scoring = None
        if scorers is not None and neighbours is not None and decoder.uses_item_scores:
            scoring = ItemScoring(tuple(scorers.scorers.values()), ScoredItems(table.comparable, neighbours))
        return Ranker(network, decoder, self.catalogue(features), table, scoring)


def first_stage(recipe: Recipe, scoring: ItemScoring | None, kept: KeptIndex) -> FirstStage | None:
    """What looks up the best items of large catalogues, in use; validation scores all."""
    return None if scoring is None or "retrieval" not in recipe.sections else FirstStage.of(recipe.retrieval, scoring, kept)


def item_ranker(recipe: Recipe, network: nn.Module, features: ItemFeatures) -> ItemRanker:
    """A network as it is now, ready to rank by its item scores alone."""
    assert features.trained is not None
    table = ItemTable(network, features, Comparison.of(recipe.item_loss))
    items = ScoredItems(table.comparable, TextNeighbours.alone(features.trained.cpu().numpy()))
    return ItemRanker(network, table, ItemScoring((VectorScorer(),), items))
