"""What recommenders that decode semantic IDs share: from learnt parts to ranked items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch

from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, RecipeError
from diffgrm.learning.objectives.digits import DigitObjective
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.query import Query
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.parts import FitTask, LearntPart, part_of
from diffgrm.recommenders.rankers import Tables, item_features
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors, branch_names
from diffgrm.recommenders.trained_network import TrainedNetwork, check_recipe, network_of
from diffgrm.semantic_ids.embeddings.base import ItemEncoder
from diffgrm.semantic_ids.semantic_ids import SemanticIds, TokenizerReport
from diffgrm.semantic_ids.tokenizers.base import Tokenizer

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
        # Of all that may be recommended and of the last filter that was asked for: their tables are worth keeping.
        self._ranker: Ranker | None = None
        self._restricted: tuple[np.ndarray, Ranker] | None = None

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        validating = self.recipe.validation_decoder.build(seed=self.recipe.seed)
        decoders = [self._decoder(), validating]
        check_recipe(self.recipe, decoders)
        return {
            "texts": TextVectors(kept="text" in branch_names(self.recipe)),
            "sids": CheckedIdentifiers(decoders),
            **self._more_parts(),
            "network": TrainedNetwork(),
        }

    def _more_parts(self) -> dict[str, LearntPart]:
        """Parts that are learnt before the network."""
        return {}

    # ---- what has been learnt -----------------------------------------------------------------------------------

    @property
    def encoder(self) -> ItemEncoder | None:
        """The encoder of item texts."""
        return part_of(self.parts, "texts", TextVectors).encoder

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What makes semantic IDs of text vectors."""
        return part_of(self.parts, "sids", Identifiers).tokenizer

    @property
    def semantic_ids(self) -> SemanticIds:
        """Of all items."""
        found = part_of(self.parts, "sids", Identifiers).semantic_ids
        assert found is not None
        return found

    @property
    def report(self) -> TokenizerReport | None:
        """On the health of the semantic IDs, after fit."""
        return part_of(self.parts, "sids", Identifiers).report

    @property
    def network(self) -> torch.nn.Module:
        """The trained network, in 32 bits."""
        found = network_of(self.parts).network
        assert found is not None
        return found

    # ---- recommend ----------------------------------------------------------------------------------------------

    def ranker(self, candidates: np.ndarray | None = None) -> Ranker:
        """Network, decoder and catalogue, ready to rank item positions.

        Args:
            candidates: [I] bool, items that may be recommended; None is all that the catalogue recommends.
        """
        recommendable, network = self.catalogue.recommendable, network_of(self.parts).in_use
        device = next(network.parameters()).device
        if self._ranker is None:
            n_fitted = network_of(self.parts).sizes["n_items"]
            features = item_features(self.parts, self.item_counts, n_fitted).to(device)
            self._ranker = Tables(self.recipe, self.parts, recommendable).ranking(network, features, self._decoder())
        if candidates is None or candidates is recommendable:
            return self._ranker
        if self._restricted is None or not np.array_equal(self._restricted[0], candidates):
            catalogue = self._ranker.catalogue.restricted(torch.from_numpy(candidates).to(device))
            self._restricted = candidates, replace(self._ranker, catalogue=catalogue)
        return self._restricted[1]

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        asked = query.histories, query.k, query.exclude_seen, query.progress
        if query.candidates is not None and query.candidates is not self.catalogue.recommendable:
            without = np.flatnonzero(self.recommendable & ~query.candidates)
            if len(without) <= FEW:
                return self.ranker().rank(*asked, without)
        return self.ranker(query.candidates).rank(*asked)

    def _similarity(self, position: int) -> np.ndarray:
        return part_of(self.parts, "texts", TextVectors).similarity(self.item_table, position)

    def sid_numbers(self, item_ids: pl.Series) -> np.ndarray:
        """[N] the number of each item's SID; items that share one have equal numbers, unknown items get -2."""
        positions = self.items.positions(item_ids)
        return np.where(positions >= 0, self.semantic_ids.sid_of_item()[positions], -2)

    def recommend_sids(self, histories: Any, k: int = 10) -> pl.DataFrame:
        """The k best semantic IDs for each history, unfiltered: what the paper counts.

        SIDs come from the beam as it ends, so that a narrow beam over shared SIDs may hold fewer than k.

        Returns:
            user_id, sid (as numbered by :attr:`sid_numbers`), score, rank.
        """
        user_ids, positions = self.read_histories(histories)
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
        self._ranker = self._restricted = None

    def _recipe_changed(self) -> None:
        """The tables of the catalogue stay."""
        before, decoder = self._ranker, self._decoder()
        check_recipe(self.recipe, [decoder])
        self._forget()
        if before is not None:
            tables = Tables(self.recipe, self.parts, self.catalogue.recommendable, before.catalogue)
            self._ranker = tables.ranking(before.network, before.items.features, decoder, before.items)

    def _decoder(self) -> Decoder:
        recipe = self.recipe
        decoder: Decoder = recipe.decoding.build(seed=recipe.seed)
        if not decoder.uses_item_scores:
            return decoder
        if "item_scoring" not in recipe.sections:
            raise RecipeError(
                f"decoding {recipe.decoding.name!r} ranks by scores of whole items, which the recommender "
                f"{recipe.recommender!r} does not learn; choose recommender=hybrid, or a decoding such as any_order_beam"
            )
        if not recipe.item_scoring.scorers:
            raise RecipeError(
                f"decoding {recipe.decoding.name!r} ranks by scores of whole items, and item_scoring has no scorer left; "
                f"keep one of {', '.join(registry.names('scorer'))}"
            )
        digits_only = issubclass(registry.resolve("objective", recipe.objective.name), DigitObjective)
        if digits_only and "vectors" in recipe.item_scoring.scorers:
            raise RecipeError(
                f"decoding {recipe.decoding.name!r} ranks by the network's scores of whole items, which the objective "
                f"{recipe.objective.name!r} does not teach it; choose objective.name=joint, a decoding such as "
                "any_order_beam, or leave the network's scores out: item_scoring.vectors=null"
            )
        return decoder


class CheckedIdentifiers(Identifiers):
    """Semantic IDs of a size that some decoders work with."""

    def __init__(self, decoders: list[Decoder]) -> None:
        super().__init__()
        self.decoders = decoders

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`; refuses sizes before anything is trained for them."""
        super().fit(task)
        assert self.semantic_ids is not None
        for decoder in self.decoders:
            decoder.check(self.semantic_ids.n_digits, len(self.semantic_ids))
