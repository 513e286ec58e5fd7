"""Candidates by item score, ranked by item score, a second look and digits, in NumPy.

What :mod:`diffgrm.ranking.decoding.item_proposals` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.top_k import best_places
from diffgrm.ranking.first_stage import FirstStage
from diffgrm.ranking.item_scoring.base import ItemScoring, Users
from diffgrm.runtime_onnx.search import Task, log_softmax


@dataclass(frozen=True)
class ItemProposals:
    """Candidates by item score, ranked by item score and digits together.

    Attributes:
        scoring: of all items.
        candidates: items that are looked at for each user (raised to k where k is larger).
        weight: what the log-probability of an item's digits counts for beside that of the item; 0: nothing.
        first_stage: looks up the best items of large catalogues; None: all items are scored.
    """

    scoring: ItemScoring
    candidates: int
    weight: float
    first_stage: FirstStage | None = None
    takes_offsets: ClassVar[bool] = True

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`diffgrm.runtime_onnx.decoding.Decoding.rows`; scores weigh as 1024 logits do."""
        scored = n_items if (first_stage := self._look_up(n_items)) is None else first_stage.candidates
        return (max(self.candidates, k) if self.weight else 0) + 1 + scored // 1024

    def decode(self, task: Task, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`diffgrm.runtime_onnx.decoding.Decoding.decode`."""
        items, score = self._proposed(task, Users(task.memory.users, histories))
        if self.weight:
            score = score + np.float32(self.weight) * _digits(task, task.catalogue.codes_of(items))
        order = np.argsort(-score, axis=1, kind="stable")[:, : task.k]
        items, score = np.take_along_axis(items, order, 1), np.take_along_axis(score, order, 1)
        short = ((0, 0), (0, task.k - items.shape[1]))
        items, score = np.pad(items, short, constant_values=-1), np.pad(score, short, constant_values=-np.inf)
        return np.where(score > -np.inf, items, -1), score

    def _proposed(self, task: Task, users: Users) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [B, C] of highest item score, best first, and their log-probabilities among all that the user may
        get, or that are looked up; -inf for those that are not."""
        count = max(self.candidates, self.scoring.candidates, task.k)
        if task.offsets is None and (first_stage := self._look_up(len(task.catalogue))) is not None:
            excluded = None if task.excluded is None else task.excluded.histories
            items, score = first_stage.best(users, count, task.catalogue.recommendable, excluded)
            items, score = items[:, :count], _log_softmax(score)[:, :count]
            return items, self.scoring.rescored(users, items, score)
        score = np.where(task.catalogue.recommendable, self.scoring.scores(users), np.float32(-np.inf))
        if task.offsets is not None:
            score += task.offsets
        if task.excluded is not None:
            score[task.excluded.pairs(np.arange(len(score)))] = -np.inf
        score = _log_softmax(score)
        items = best_places(score, count)
        score = np.take_along_axis(score, items, 1)
        return items, self.scoring.rescored(users, np.where(score > -np.inf, items, -1), score)

    def _look_up(self, n_items: int) -> FirstStage | None:
        """The first stage, where it serves so many items."""
        return self.first_stage if self.first_stage is not None and self.first_stage.serves(n_items) else None


def _log_softmax(score: np.ndarray) -> np.ndarray:
    """-inf for users for whom nothing is left."""
    if not score.shape[1]:
        return score
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(log_softmax(score), nan=-np.inf, neginf=-np.inf)


def _digits(task: Task, codes: np.ndarray) -> np.ndarray:
    """[B, C] log-probability of the digits of codes [B, C, n], the surest first."""
    batch, count, n = codes.shape
    known, total = np.zeros(codes.shape, dtype=bool), np.zeros((batch, count), dtype=np.float32)
    for now in range(n):
        asked = (codes, ~known) if now else (codes[:, :1] * 0, ~known[:, :1])
        log_p = log_softmax(task.network.denoise(*asked, task.memory))
        log_p = np.broadcast_to(log_p, (batch, count, *log_p.shape[2:]))
        own = np.take_along_axis(log_p, codes[..., None], 3)[..., 0]
        own = np.where(known, -np.inf, own)
        digit = own.argmax(-1)[..., None]
        total += np.take_along_axis(own, digit, 2)[..., 0]
        np.put_along_axis(known, digit, True, 2)
    return total
