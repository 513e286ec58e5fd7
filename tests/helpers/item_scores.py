"""A catalogue of items as scorers see it: one that nobody met in training, and one that came later."""

from __future__ import annotations

import numpy as np
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.item_scoring.base import Rescorer, ScoredItems, Users
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours

TRAIN = Ragged.from_lists([[0, 1, 2], [0, 1], [1, 2, 3], [3, 4], [0, 1, 4]])  # nobody meets item 5
TEXTS = np.eye(6, 4, dtype=np.float32)
TEXTS[4] = [0.8, 0.6, 0, 0]
TEXTS[5] = [0, 0, 1, 0]  # as item 2
HISTORIES = Ragged.from_lists([[0], [3, 1], [5], [2], [6, 4, 0]])
NEW = np.array([[0, 1, 0, 0]], dtype=np.float32)  # as item 1
ITEMS, USERS, WIDTH = 7, len(HISTORIES), 3
GENERATOR = np.random.default_rng(0)
USER_VECTORS = GENERATOR.normal(size=(USERS, WIDTH)).astype(np.float32)
ITEM_VECTORS = GENERATOR.normal(size=(ITEMS, WIDTH)).astype(np.float32)


def neighbours() -> TextNeighbours:
    return TextNeighbours.fit(TRAIN, 6, TEXTS).grown(NEW, TEXTS)


def scored(of=np.asarray) -> tuple[Users, ScoredItems]:
    """Users and items, of arrays or, by ``torch.from_numpy``, of tensors."""
    return Users(of(USER_VECTORS), HISTORIES), ScoredItems(of(ITEM_VECTORS), neighbours())


class Table(Rescorer):
    """A second look that says what stands in a table, of candidates and of the newest item of the history."""

    def __init__(self, table, weight=1.0, candidates=4):
        self.table, self.weight, self.candidates = table, weight, candidates
        self.seen = []

    def rescore(self, users, items, candidates, scores):
        chosen = np.asarray(candidates)
        self.seen.append(chosen)
        newest = users.histories.values[users.histories.offsets[1:] - 1]
        found = self.table[newest[:, None], chosen].astype(np.float32)
        return torch.from_numpy(found) if isinstance(candidates, torch.Tensor) else found
