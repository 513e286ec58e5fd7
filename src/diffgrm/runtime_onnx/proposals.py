"""Candidates by item score, ranked by item score and digits, in NumPy: :mod:`diffgrm.ranking.decoding.item_proposals`."""

from __future__ import annotations

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrence
from diffgrm.runtime_onnx.search import Task, best_of, log_softmax


class ItemScores:
    """What the vectors of users say of items, and what the digits count for beside it.

    Args:
        vectors: [I, d] of all items.
        cosine, temperature: of the recipe's ``item_loss``.
        weight: of the digits' log-probability.
        neighbours, co_occurrence: what goes with histories, and its weight.
        new_items: added for items without training events.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        cosine: bool,
        temperature: float,
        weight: float,
        neighbours: CoOccurrence,
        co_occurrence: float,
        new_items: float,
    ) -> None:
        self.cosine, self.temperature, self.weight = cosine, temperature, weight
        self.neighbours, self.co_occurrence, self.new_items = neighbours, np.float32(co_occurrence), np.float32(new_items)
        self._table = _unit(vectors) if cosine else vectors

    def of(self, users: np.ndarray, histories: Ragged) -> np.ndarray:
        """[B, I] scores for the vectors [B, d] and the histories of users, before softmax."""
        users = _unit(users) if self.cosine else users
        scores = (users / np.float32(self.temperature)) @ self._table.T
        if self.co_occurrence:
            scores += self.co_occurrence * self.neighbours.scores(histories)
        scores[:, ~self.neighbours.own] += self.new_items
        return scores


def proposals(task: Task, histories: Ragged, scoring: ItemScores, candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """Item positions [B, k], best first, -1 after the last, and scores [B, k].

    Args:
        histories: of the users.
        candidates: items that are looked at for each user (raised to k where k is larger).
    """
    catalogue, users = task.catalogue, np.arange(len(task.memory))
    score = scoring.of(task.memory.users, histories)
    score[:, ~catalogue.recommendable] = -np.inf
    if task.excluded is not None:
        score[task.excluded.pairs(users)] = -np.inf
    with np.errstate(invalid="ignore"):
        score = np.nan_to_num(log_softmax(score), nan=-np.inf, neginf=-np.inf)  # users for whom nothing is left
    items = best_of(score, max(candidates, task.k))  # [B, C]
    score = np.take_along_axis(score, items, 1)
    if scoring.weight:
        score = score + np.float32(scoring.weight) * _digits(task, catalogue.codes_of(items))
    order = np.argsort(-score, axis=1, kind="stable")[:, : task.k]
    items, score = np.take_along_axis(items, order, 1), np.take_along_axis(score, order, 1)
    short = ((0, 0), (0, task.k - items.shape[1]))
    items, score = np.pad(items, short, constant_values=-1), np.pad(score, short, constant_values=-np.inf)
    return np.where(score > -np.inf, items, -1), score


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


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
