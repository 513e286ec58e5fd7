"""What recommenders that decode semantic IDs share: from learnt parts to ranked items."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch

from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.item_index import KeptIndex
from diffgrm.ranking.query import Query
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.answers import check_k
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.checks import check_recipe, check_retrieval
from diffgrm.recommenders.parts import LearntPart, Parts, part_of
from diffgrm.recommenders.rankers import Tables, first_stage, item_features
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors, reads_texts
from diffgrm.recommenders.trained_network import TrainedNetwork, network_of
from diffgrm.semantic_ids.embeddings.base import ItemEncoder
from diffgrm.semantic_ids.semantic_ids import SemanticIds, TokenizerReport
from diffgrm.semantic_ids.tokenizers.base import Tokenizer

KEPT = 2  # filters: one of the question, and one of a rule beside it
FEW = 256  # items that are forbidden one by one, which is cheaper than tables of the other ones


class GenerativeRecommender(Recommender):
    """Texts to semantic IDs to a network that a decoder asks; methods differ in their recipe's defaults."""

    sections: ClassVar[tuple[str, ...]] = (
        "embedding",
        "tokenizer",
        "semantic_ids",
        "model",
        "objective",
        "training",
        "decoding",
    )

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        # Of all that may be recommended and of the last filters that were asked for: their tables are worth keeping.
        self._ranker: Ranker | None = None
        self._restricted: dict[bytes, Ranker] = {}
        self._index = KeptIndex()

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        recipe = self.recipe
        check_recipe(recipe)
        checks = [self._decoder().check, recipe.validation_decoder.build(seed=recipe.seed).check]
        if "noising" in recipe.sections:
            checks.append(recipe.noising.build(seed=recipe.seed).check)
        texts, sids = TextVectors(kept=reads_texts(recipe)), Identifiers(checks)
        scorers: dict[str, LearntPart] = {}
        if "item_scoring" in recipe.sections:
            scorers["scorers"] = ItemScorers()
        return {"texts": texts, "sids": sids, **scorers, "network": TrainedNetwork()}

    # ---- what has been learnt -----------------------------------------------------------------------------------

    @property
    def ingredients(self) -> Parts:
        """What is learnt of texts, semantic IDs and network, by name, wherever it is kept."""
        return self.parts

    @property
    def encoder(self) -> ItemEncoder:
        """The encoder of item texts."""
        return part_of(self.ingredients, "texts", TextVectors).encoder

    @property
    def tokenizer(self) -> Tokenizer:
        """What makes semantic IDs of text vectors."""
        return part_of(self.ingredients, "sids", Identifiers).tokenizer

    @property
    def semantic_ids(self) -> SemanticIds:
        """Of all items."""
        return part_of(self.ingredients, "sids", Identifiers).semantic_ids

    @property
    def report(self) -> TokenizerReport | None:
        """On the health of the semantic IDs, after fit."""
        return part_of(self.ingredients, "sids", Identifiers).report

    @property
    def network(self) -> torch.nn.Module:
        """The trained network, in 32 bits."""
        return network_of(self.parts).network

    # ---- recommend ----------------------------------------------------------------------------------------------

    def ranker(self, candidates: np.ndarray | None = None) -> Ranker:
        """Network, decoder and catalogue, ready to rank item positions.

        Args:
            candidates: [I] bool, items that may be recommended; None is all that the catalogue recommends.
        """
        recommendable, network = self.catalogue.recommendable, network_of(self.parts).in_use
        device = next(network.parameters()).device
        ranker = self._ranker
        if ranker is None or ranker.catalogue.device != device:  # a variant of the same network moved
            n_fitted = network_of(self.parts).sizes["n_items"]
            features = item_features(self.ingredients, self.item_counts, n_fitted).to(device)
            tables = Tables(self.recipe, self.ingredients, recommendable)
            ranker = self._looking_up(tables.ranker(network, features, self._decoder()))
            self._ranker, self._restricted = ranker, {}  # last, since several threads may ask first
        if candidates is None or candidates is recommendable:
            return ranker
        key = np.packbits(candidates).tobytes()
        if (restricted := self._restricted.get(key)) is None:
            catalogue = ranker.catalogue.restricted(torch.from_numpy(candidates).to(device))
            restricted = replace(ranker, catalogue=catalogue)
            self._restricted = dict([*self._restricted.items()][1 - KEPT :]) | {key: restricted}
        return restricted

    @property
    def takes_offsets(self) -> bool:
        """Whether the decoder does."""
        return bool(registry.constant("decoding", self.recipe.decoding.name, "takes_offsets", False))

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        asked = query.histories, query.k, query.exclude_seen, query.progress
        if query.candidates is not None and query.candidates is not self.catalogue.recommendable:
            without = np.flatnonzero(self.recommendable & ~query.candidates)
            if len(without) <= FEW:
                return self.ranker().rank(*asked, without, query.offsets)
        return self.ranker(query.candidates).rank(*asked, offsets=query.offsets)

    def _similarity(self, position: int, others: np.ndarray | None = None) -> np.ndarray:
        return part_of(self.ingredients, "texts", TextVectors).similarity(self.item_table, position, others)

    def sid_numbers(self, item_ids: pl.Series) -> np.ndarray:
        """[N] the number of each item's SID; items that share one have equal numbers, unknown items get -2."""
        positions = self.items.positions(item_ids)
        return np.where(positions >= 0, self.semantic_ids.sid_of_item()[positions], -2)

    def recommend_sids(self, histories: Any, k: int = 10, *, at: Any = None, profiles: Any = None) -> pl.DataFrame:
        """The k best semantic IDs for each history, unfiltered: what the paper counts.

        SIDs come from the beam as it ends, so that a narrow beam over shared SIDs may hold fewer than k. Arguments as of
        :meth:`recommend`.

        Returns:
            user_id, sid (as numbered by :meth:`sid_numbers`), score, rank.

        Raises:
            DataError: see :meth:`recommend`.
        """
        check_k(k, len(self.items))
        user_ids, positions = self.read_histories(histories, at=at, profiles=profiles)
        ranker = self.ranker()
        numbers = self.sid_numbers(self.items.series)
        everything = ranker.catalogue.codes_of(torch.arange(len(numbers), device=ranker.catalogue.device))
        number_of = dict(zip(ranker.catalogue.keys(everything).tolist(), numbers, strict=True))
        users, sids, scores, ranks = [], [], [], []
        for rows, decoded in ranker.decode(positions, k, exclude_seen=False):
            order = (~decoded.legal).int().argsort(dim=1, stable=True)[:, :k]
            legal = decoded.legal.gather(1, order).cpu().numpy()
            keys = ranker.catalogue.keys(decoded.codes).gather(1, order).cpu().numpy()
            row, column = np.nonzero(legal)
            users.append(rows[row])
            sids.append([number_of[key] for key in keys[row, column].tolist()])
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

    def _forget(self) -> None:
        self._ranker, self._restricted = None, {}

    def variant(self, overrides: Iterable[str]) -> Self:
        """See :meth:`Recommender.variant`; what another decoder looks up by stays for that one."""
        overrides = list(overrides)
        changed = super().variant(overrides)
        if any(override.startswith("retrieval.") for override in overrides):
            check_retrieval(changed.recipe)
        return changed

    def _recipe_changed(self) -> None:
        """The tables of the catalogue stay."""
        check_recipe(self.recipe)
        before, decoder = self._ranker, self._decoder()
        if self._catalogue is not None:
            decoder.check(self.semantic_ids.n_digits, len(self.items))
        self._forget()
        if before is not None:
            tables = Tables(self.recipe, self.ingredients, self.catalogue.recommendable, before.catalogue)
            self._ranker = self._looking_up(tables.ranker(before.network, before.items.features, decoder, before.items))

    def _looking_up(self, exact: Ranker) -> Ranker:
        return replace(exact, first_stage=first_stage(self.recipe, exact.scoring, self._index))

    def _decoder(self) -> Decoder:
        return self.recipe.decoding.build(seed=self.recipe.seed)
