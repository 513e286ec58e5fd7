"""What recommenders that decode semantic IDs share: from a network over SIDs to ranked items (floor 5)."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch

from diffgrm.data.dataset import Split
from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, RecipeError
from diffgrm.foundation.storage import State
from diffgrm.learning.objectives.base import Objective
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrence
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.query import Query
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.network import NetworkRecommender
from diffgrm.recommenders.semantic import SemanticRecommender

TEXTS, CO_OCCURRENCE = "text_vectors.safetensors", "co_occurrence.safetensors"
FEW = 256  # items that are forbidden one by one, which is cheaper than tables of the other ones


class GenerativeRecommender(SemanticRecommender, NetworkRecommender):
    """A network over semantic IDs and a decoder; methods say what the network is trained for (``_objective``).

    Attributes:
        learns: the function of the network that training calls.
    """

    learns: ClassVar[str]

    sections: ClassVar[tuple[str, ...]] = (
        *SemanticRecommender.sections,
        "model",
        "loss",
        "item_loss",
        "training",
        "decoding",
    )

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        # Of all that is offered and of the last filter that was asked for: their tables are worth keeping.
        self._ranker: Ranker | None = None
        self._restricted: tuple[np.ndarray, Ranker] | None = None
        self._texts: np.ndarray | None = None  # [I, e] vectors of the items' texts, where the network reads them
        self._neighbours: CoOccurrence | None = None  # where whole items are learnt

    # ---- fit ----------------------------------------------------------------------------------------------------

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        recipe = self.recipe
        decoder = recipe.validation_decoder.build(seed=recipe.seed)
        self._check_parts(decoder)
        own = self._decoder()
        sids = self._tokenize(split)
        for part in (own, decoder):
            part.check(sids.n_digits, len(sids))
        network = self._new_network()
        self._neighbours = None
        if recipe.loss.item_weight:
            self._neighbours = CoOccurrence.fit(split.train, split.dataset.n_items, self._texts)
        losses, items = (recipe.loss, recipe.item_loss), (self._features(), split.item_counts)
        objective = self._objective(network, *losses, *items, sids.codebook_size, decoder, self._neighbours)
        self._train(objective, split, run_folder, resume, progress)

    def _check_parts(self, decoder: Decoder) -> None:
        """Refuse a network that cannot be trained or decoded in this way, before anything is made for it."""
        recipe = self.recipe
        model, lacks = registry.resolve("model", recipe.model.name), f"which model {recipe.model.name!r} lacks"
        if not hasattr(model, self.learns):
            raise RecipeError(f"the recommender {recipe.recommender!r} trains {self.learns}, {lacks}")
        if not hasattr(model, decoder.asks):
            raise RecipeError(
                f"decoding {recipe.decoding.name!r} asks for {decoder.asks}, {lacks}; left_to_right goes with the model "
                "autoregressive, the others with diffgrm"
            )

    @abstractmethod
    def _objective(self, network: Any, *parts: Any) -> Objective:
        """What a new network is trained for; ``parts`` are the other arguments of ``SidObjective``."""

    # ---- what the network knows of items ------------------------------------------------------------------------

    def _sizes(self) -> dict[str, int]:
        """Those of the semantic IDs, and what the network's branches need where it has some."""
        sizes = super()._sizes()
        more = {"n_items": self.facts["items"], "text_width": 0 if self._texts is None else self._texts.shape[1]}
        known = inspect.signature(registry.resolve("model", self.recipe.model.name)).parameters
        return sizes | {name: size for name, size in more.items() if name in known}

    def _branches(self) -> tuple[str, ...]:
        return tuple(self.recipe.model.options.get("branches", ()))

    def _features(self) -> ItemFeatures:
        """Of all items. Those without training events and those that came later have no row of ids."""
        assert self.semantic_ids is not None and self._item_counts is not None
        codes, texts, row = torch.from_numpy(self.semantic_ids.codes.astype(np.int64)), None, None
        if self._texts is not None:
            texts = torch.from_numpy(self._texts)
        if "id" in self._branches():
            row = torch.where(torch.from_numpy(self._item_counts > 0), torch.arange(len(codes)), -1)
        return ItemFeatures(codes, texts, row)

    def _embedded(self, embeddings: np.ndarray) -> None:
        self._texts = embeddings if "text" in self._branches() else None

    def _know_vectors(self, embeddings: np.ndarray) -> None:
        super()._know_vectors(embeddings)
        if self._neighbours is not None:
            self._neighbours = self._neighbours.grown(embeddings, self._texts)
        if self._texts is not None:
            self._texts = np.concatenate([self._texts, embeddings])

    def _change_vectors(self, positions: np.ndarray, embeddings: np.ndarray) -> None:
        super()._change_vectors(positions, embeddings)
        if self._texts is not None:
            self._texts = self._texts.copy()
            self._texts[positions] = embeddings
            if self._neighbours is not None:
                self._neighbours = self._neighbours.lent(positions, embeddings, self._texts)

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        if self._texts is not None:
            State({"vectors": self._texts}, {}).save(folder / TEXTS)
        if self._neighbours is not None:
            self._neighbours.state().save(folder / CO_OCCURRENCE)

    def _load_files(self, folder: Path) -> None:
        if "text" in self._branches():
            self._texts = State.load(folder / TEXTS).arrays["vectors"]
        if self.recipe.loss.item_weight:
            self._neighbours = CoOccurrence.of_state(State.load(folder / CO_OCCURRENCE))
        super()._load_files(folder)

    # ---- recommend ----------------------------------------------------------------------------------------------

    def ranker(self, allowed: np.ndarray | None = None) -> Ranker:
        """Network, decoder and catalogue, ready to rank item positions.

        Args:
            allowed: [I] bool, items that may be recommended; None is all that are offered.
        """
        network, sids = self.network_in_use, self.semantic_ids
        assert sids is not None
        device = next(network.parameters()).device
        if self._ranker is None:
            table = ItemTable(network, self._features().to(device), self.recipe.item_loss, self._neighbours)
            offered = None if self._offered is None else torch.from_numpy(self._offered).to(device)
            catalogue = Catalogue(table.features.codes, sids.codebook_size, offered)
            self._ranker = Ranker(network, self._decoder(), catalogue, table)
        if allowed is None or allowed is self._offered:
            return self._ranker
        if self._restricted is None or not np.array_equal(self._restricted[0], allowed):
            catalogue = self._ranker.catalogue.restricted(torch.from_numpy(allowed).to(device))
            self._restricted = allowed, replace(self._ranker, catalogue=catalogue)
        return self._restricted[1]

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        asked = query.histories, query.k, query.exclude_seen, query.progress
        if query.allowed is not None and query.allowed is not self._offered:
            without = np.flatnonzero(self.offered & ~query.allowed)
            if len(without) <= FEW:
                return self.ranker().rank(*asked, without)
        return self.ranker(query.allowed).rank(*asked)

    def recommend_sids(self, histories: Any, k: int = 10) -> pl.DataFrame:
        """The k best semantic IDs for each history, unfiltered: what the paper counts.

        SIDs come from the beam as it ends, so that a narrow beam over shared SIDs may hold fewer than k.

        Returns:
            user_id, sid (as numbered by :attr:`sid_numbers`), score, rank.
        """
        user_ids, positions = self._histories(histories, None, "error")
        ranker = self.ranker()
        numbers = self.sid_numbers(self.items.series)
        everything = ranker.catalogue.codes_of(torch.arange(len(numbers), device=ranker.catalogue.codes.device))
        number_of = dict(zip(ranker.catalogue.words(everything).tolist(), numbers, strict=True))
        users, sids, scores, ranks = [], [], [], []
        for rows, decoded in ranker.decode(positions, k, exclude_seen=False):
            order = (~decoded.legal).int().argsort(dim=1, stable=True)[:, :k]
            legal = decoded.legal.gather(1, order).cpu().numpy()
            words = ranker.catalogue.words(decoded.codes).gather(1, order).cpu().numpy()
            row, column = np.nonzero(legal)
            users.append(rows[row])
            sids.append([number_of[word] for word in words[row, column].tolist()])
            scores.append(decoded.sid_scores.gather(1, order).cpu().numpy()[row, column])
            ranks.append(column + 1)
        return pl.DataFrame(
            {
                Columns.USER: user_ids.gather(np.concatenate(users)),
                "sid": np.concatenate(sids).astype(np.int64),
                Columns.SCORE: np.concatenate(scores),
                Columns.RANK: np.concatenate(ranks).astype(np.int32),
            }
        )

    def _changed(self) -> None:
        super()._changed()
        self._ranker = self._restricted = None

    def _catalogue_changed(self) -> None:
        super()._catalogue_changed()
        self._ranker = self._restricted = None

    def _recipe_changed(self) -> None:
        """The tables of the catalogue stay."""
        super()._recipe_changed()
        decoder = self._decoder()
        if self._ranker is not None:
            self._ranker, self._restricted = replace(self._ranker, decoder=decoder), None

    def _decoder(self) -> Decoder:
        recipe = self.recipe
        decoder: Decoder = recipe.decoding.build(seed=recipe.seed)
        if decoder.uses_item_scores and not recipe.loss.item_weight:
            raise RecipeError(
                f"decoding {recipe.decoding.name!r} asks what the network says of whole items, which it does not learn "
                "with loss.item_weight=0; set loss.item_weight=1, or use any_order_beam"
            )
        return decoder
