"""DiffGRM as a recommender: texts to semantic IDs to a trained network to items (floor 5)."""

from __future__ import annotations

import copy
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import torch
from torch import nn

from diffgrm.catalogue import Catalogue
from diffgrm.data.dataset import Ragged, Split
from diffgrm.decoding.ranker import Ranker
from diffgrm.models.compiled import compile_layers, compiled
from diffgrm.recipe import Recipe
from diffgrm.recommenders.query import Query
from diffgrm.recommenders.semantic import SemanticRecommender
from diffgrm.recommenders.weights import load_network, save_network
from diffgrm.schema import Columns, TrainingError
from diffgrm.training import train
from diffgrm.training.diffusion import DiffusionObjective

logger = logging.getLogger(__name__)


class DiffGRMRecommender(SemanticRecommender):
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
        self.network: nn.Module | None = None
        # Of the whole catalogue and of the last filter that was asked for: their tables are worth keeping.
        self._precision = "32"
        self._ranker: Ranker | None = None
        self._restricted: tuple[np.ndarray, Ranker] | None = None

    # ---- fit ----------------------------------------------------------------------------------------------------

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        recipe, sids = self.recipe, self._tokenize(split)
        if run_folder is None and recipe.training.devices > 1:
            raise TrainingError("several devices need a folder that all of them see: pass run_folder=")
        for part in (recipe.decoding, recipe.validation_decoder):
            part.build("decoding", seed=recipe.seed).check(sids.n_digits, len(sids))
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            network = recipe.model.build("model", n_digits=sids.n_digits, codebook_size=sids.codebook_size)
        with tempfile.TemporaryDirectory() as temporary, compiled(network, recipe.training.compile):
            result = train(
                DiffusionObjective(
                    network,
                    recipe.noising.build("noising"),
                    recipe.loss,
                    torch.from_numpy(sids.codes.astype(np.int64)),
                    sids.codebook_size,
                    recipe.validation_decoder.build("decoding", seed=recipe.seed),
                ),
                events=split.train,
                validation=split.validation,
                max_len=network.max_len,
                settings=recipe.training,
                seed=recipe.seed,
                run_folder=run_folder or Path(temporary) / "run",
                resume=resume,
                progress=progress,
            )
        self.network = network.eval()
        self._forget_rankers()
        self.facts |= {
            "parameters": sum(p.numel() for p in network.parameters()),
            "epochs": result.epochs,
            "steps": result.steps,
            "validation": result.validation,
        }

    # ---- recommend ----------------------------------------------------------------------------------------------

    def to(self, device: str, precision: Literal["32", "bf16"] = "32") -> Self:
        """See :meth:`Recommender.to`."""
        self._check_fitted()
        assert self.network is not None
        super().to(device, precision)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network.to(device)
        self._precision = precision
        self._forget_rankers()
        return self

    def compile(self) -> Self:
        """Run the network through ``torch.compile`` in this process: faster answers after minutes of compiling."""
        self._check_fitted()
        assert self.network is not None
        compile_layers(self.network)
        self._forget_rankers()
        return self

    def ranker(self, allowed: np.ndarray | None = None) -> Ranker:
        """Network, decoder and catalogue, ready to rank item positions.

        Args:
            allowed: [I] bool, items that may be recommended; None is all.
        """
        self._check_fitted()
        assert self.network is not None and self.semantic_ids is not None
        device = next(self.network.parameters()).device
        if self._ranker is None:
            codes = torch.from_numpy(self.semantic_ids.codes.astype(np.int64)).to(device)
            decoder = self.recipe.decoding.build("decoding", seed=self.recipe.seed)
            network = self.network if self._precision == "32" else copy.deepcopy(self.network).to(torch.bfloat16)
            self._ranker = Ranker(network, decoder, Catalogue(codes, self.semantic_ids.codebook_size))
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

    def _recipe_changed(self) -> None:
        self._forget_rankers()

    def _forget_rankers(self) -> None:
        self._ranker = self._restricted = None

    # ---- save and load ------------------------------------------------------------------------------------------

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        assert self.network is not None
        save_network(self.network, folder)

    def _load_files(self, folder: Path) -> None:
        super()._load_files(folder)
        assert self.semantic_ids is not None
        sids = self.semantic_ids
        self.network = load_network(
            self.recipe.model.build("model", n_digits=sids.n_digits, codebook_size=sids.codebook_size), folder
        )
