"""DiffGRM as a recommender: texts to semantic IDs to a trained network to items (floor 5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from torch import Tensor

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import Columns
from diffgrm.learning.objectives.base import Objective
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.networks.blocks import evaluating
from diffgrm.recommenders.generative import GenerativeRecommender


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
    # recipes/best.yaml, which says why
    defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "embedding": {"name": "lsa", "width": 512},
        "tokenizer": {"name": "opq", "pca_width": 512},
        "model": {
            "name": "diffgrm",
            "branches": ("text", "id"),
            "history": "causal",
            "heads": 2,
            "encoder_layers": 2,
            "feed_forward": 256,
            "dropout": 0.5,
            "decoder_dropout": 0.1,
        },
        "loss": {"item_weight": 3.0, "share": 0.2},
        "item_loss": {"kind": "sampled_softmax", "negatives": 4096},
        "training": {"epochs": 10, "warmup_steps": 200, "patience": 5, "validation_users": 5000},
        "decoding": {"name": "item_proposals", "co_occurrence": 2.0, "new_items": 1.5},
    }

    def _objective(self, network: Any, *parts: Any) -> Objective:
        return DiffusionObjective(network, self.recipe.noising.build(), *parts)

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
        for _, decoded in ranker.decode(histories, 1, exclude_seen=True, watch=lambda *_: None):
            found = decoded.items[:, 0] >= 0
            first = decoded.legal.int().argmax(1)
            steps = decoded.steps[torch.arange(len(first), device=first.device), first][found].cpu().numpy()
            for digit in range(n):
                counts[digit] += np.bincount(steps[:, digit], minlength=n)
        return counts / max(counts[0].sum(), 1)

    def beams(self, history: Iterable[Any], k: int = 10, *, exclude_seen: bool = True, show: int = 10) -> pl.DataFrame:
        """The search for the k best items of one history as it goes: the best partial SIDs after every step.

        Args:
            history: item ids, oldest first.
            show: partial SIDs of each step.

        Returns:
            step (from 1), place (from 1), score (log-probability), digits (list of n codes, null where unknown).

        Raises:
            DataError: see :meth:`recommend`.
        """
        allowed = self._allowed(k, None, None)
        _, positions = self._histories([list(history)], None, "error")
        steps: list[list[dict[str, Any]]] = []
        filled = 0

        def watch(codes: Tensor, known: Tensor, scores: Tensor) -> None:
            nonlocal filled
            now = int(known[0].sum(-1)[scores[0] > -torch.inf].min())
            if now <= filled:  # the search came short and starts again
                steps.clear()
            filled = now
            found = zip(codes[0, :show].tolist(), known[0, :show].tolist(), scores[0, :show].tolist(), strict=True)
            steps.append(
                [
                    {"step": len(steps) + 1, "place": place, Columns.SCORE: score, "digits": _digits(code, known)}
                    for place, (code, known, score) in enumerate(found, start=1)
                    if score > -float("inf")
                ]
            )

        next(self.ranker(allowed).decode(positions, k, exclude_seen, watch))
        schema: dict[str, Any] = {
            "step": pl.Int64,
            "place": pl.Int64,
            Columns.SCORE: pl.Float64,
            "digits": pl.List(pl.Int64),
        }
        return pl.DataFrame([row for step in steps for row in step], schema=schema)

    def explain(self, history: Iterable[Any], k: int = 5, *, exclude_seen: bool = True) -> pl.DataFrame:
        """How the k best items of one history were found: which digit was filled when, and how sure the network was.

        Where item scores choose the list (decoding by ``item_proposals`` with ``weight`` 0), digits have no say in it; they
        show how the network would fill in each item of the list.

        Args:
            history: item ids, oldest first.

        Returns:
            rank, item_id, step (from 1), digit, code (both from 0), confidence (probability of the code among all K,
            given what was known before the step), rival and rival_confidence (the likeliest other code), items_left
            (items that may be recommended and fit what is known after the step). Digits of one step are in order of
            confidence, and ``items_left`` counts them together.

        Raises:
            DataError: see :meth:`recommend`.
        """
        allowed = self._allowed(k, None, None)
        _, positions = self._histories([list(history)], None, "error")
        ranker = self.ranker(allowed)
        _, decoded = next(ranker.decode(positions, k, exclude_seen, watch=lambda *_: None))
        items = decoded.items[0][decoded.items[0] >= 0]
        codes = ranker.catalogue.codes_of(items)  # [M, n]
        found = (decoded.codes[0][None] == codes[:, None]).all(-1).int().argmax(1)  # where each item's SID stands
        steps = decoded.steps[0, found]
        everything = ranker.catalogue.codes_of(torch.arange(len(self.items), device=codes.device))
        may = torch.from_numpy(self.offered.copy()).to(codes.device)
        if exclude_seen:
            may[torch.from_numpy(np.unique(positions.values)).to(codes.device)] = False
        rows: list[dict[str, Any]] = []
        with torch.no_grad(), evaluating(ranker.network):
            _, memory = next(ranker.encoded(positions, 1))
            for rank, (item, code, step) in enumerate(zip(items.tolist(), codes, steps, strict=True), start=1):
                for now in sorted(set(step.tolist())):
                    hidden, new = step >= now, (step == now).nonzero()[:, 0]
                    logits = ranker.network.denoise(code[None, None], hidden[None, None], memory)[0, 0]  # type: ignore[operator]
                    p = logits.float().softmax(-1)
                    own = p[new, code[new]]
                    others = p[new].scatter(1, code[new, None], -1.0)
                    fits = may & ((everything == code) | (step > now)).all(1)
                    for place in own.argsort(descending=True).tolist():
                        rows.append(
                            {
                                Columns.RANK: rank,
                                Columns.ITEM: self.items.ids([item])[0],
                                "step": now + 1,
                                "digit": int(new[place]),
                                "code": int(code[new[place]]),
                                "confidence": float(own[place]),
                                "rival": int(others[place].argmax()),
                                "rival_confidence": float(others[place].max()),
                                "items_left": int(fits.sum()),
                            }
                        )
        return pl.DataFrame(rows)


def _digits(code: list[int], known: list[bool]) -> list[int | None]:
    return [c if k else None for c, k in zip(code, known, strict=True)]
