"""DiffGRM as a recommender: texts to semantic IDs to a trained network to items (floor 5)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from diffgrm.catalogue import Catalogue
from diffgrm.data.dataset import Ragged, Split
from diffgrm.decoding.ranker import Ranker
from diffgrm.query import Query
from diffgrm.recipe import Recipe
from diffgrm.recommenders.network import NetworkRecommender
from diffgrm.recommenders.semantic import SemanticRecommender
from diffgrm.schema import Columns
from diffgrm.training.diffusion import DiffusionObjective


class DiffGRMRecommender(SemanticRecommender, NetworkRecommender):
    """Masked diffusion over semantic IDs.

    Example:
        >>> from diffgrm import DiffGRMRecommender, Recipe, toy_world
        >>> recipe = Recipe(tokenizer={"codebook_size": 16}, training={"epochs": 1}, model={"width": 16})
        >>> recommender = DiffGRMRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "diffgrm"
    sections = (*SemanticRecommender.sections, "model", "noising", "loss", "training", "decoding")

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        # Of the whole catalogue and of the last filter that was asked for: their tables are worth keeping.
        self._ranker: Ranker | None = None
        self._restricted: tuple[np.ndarray, Ranker] | None = None

    # ---- fit ----------------------------------------------------------------------------------------------------

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        recipe, sids = self.recipe, self._tokenize(split)
        decoder = recipe.validation_decoder.build("decoding", seed=recipe.seed)
        for part in (recipe.decoding.build("decoding", seed=recipe.seed), decoder):
            part.check(sids.n_digits, len(sids))
        objective = DiffusionObjective(
            self._new_network(),
            recipe.noising.build("noising"),
            recipe.loss,
            torch.from_numpy(sids.codes.astype(np.int64)),
            sids.codebook_size,
            decoder,
        )
        self._train(objective, split, run_folder, resume, progress)

    # ---- recommend ----------------------------------------------------------------------------------------------

    def ranker(self, allowed: np.ndarray | None = None) -> Ranker:
        """Network, decoder and catalogue, ready to rank item positions.

        Args:
            allowed: [I] bool, items that may be recommended; None is all.
        """
        network, sids = self.network_in_use, self.semantic_ids
        assert sids is not None
        device = next(network.parameters()).device
        if self._ranker is None:
            codes = torch.from_numpy(sids.codes.astype(np.int64)).to(device)
            decoder = self.recipe.decoding.build("decoding", seed=self.recipe.seed)
            self._ranker = Ranker(network, decoder, Catalogue(codes, sids.codebook_size))
        if allowed is None:
            return self._ranker
        if self._restricted is None or not np.array_equal(self._restricted[0], allowed):
            catalogue = self._ranker.catalogue.restricted(torch.from_numpy(allowed).to(device))
            self._restricted = allowed, replace(self._ranker, catalogue=catalogue)
        return self._restricted[1]

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        ranker = self.ranker(query.allowed)
        return ranker.rank(query.histories, query.k, query.exclude_seen, query.progress)

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

    def _changed(self) -> None:
        super()._changed()
        self._ranker = self._restricted = None
