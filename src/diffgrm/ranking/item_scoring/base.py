"""Scorers of items, and their weighted sum.

A scorer says of every item what it is worth to a user, in its own way: by vectors, by co-occurrence, by how new the item
is. A decoder or ranker receives the sum and knows nothing of its terms. Nothing here depends on the runtime: arrays are
those of PyTorch or of NumPy, whichever the users' vectors are.

Letters: B users, I items, J items that were there at fit, C candidates of each user, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.checks import Array, checked, rankable, unrankable
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours


@dataclass(frozen=True)
class Users:
    """Whom items are scored for.

    Attributes:
        vectors: [B, d] of the users, ready to be multiplied with those of items.
        histories: their items, oldest first.
    """

    vectors: Array
    histories: Ragged

    def rows(self, chosen: Array) -> Users:
        """Some of them [b]."""
        return Users(self.vectors[chosen], self.histories.rows(as_numpy(chosen)))


@dataclass(frozen=True)
class ScoredItems:
    """The catalogue as scorers see it.

    Attributes:
        vectors: [I, d] of all items, ready to be multiplied with those of users.
        neighbours: which items have events, and which items' texts are near those of the others.
    """

    vectors: Array
    neighbours: TextNeighbours


class Scorer(ABC):
    """One opinion on all items. Settings are the constructor's; what ``fit`` learns is kept with the model.

    Attributes:
        weight: what the scores count for in the sum.
    """

    weight: float

    def fit(self, events: Ragged, n_items: int) -> Self:
        """Learn from the training events of every user; scorers that learn nothing need nothing."""
        return self

    def items_changed(self, items: TextNeighbours) -> Self:
        """The scorer for a catalogue to which items came, or whose texts changed; this one stays as it is."""
        return self

    @abstractmethod
    def scores(self, users: Users, items: ScoredItems) -> Array:
        """[B or 1, I] what each item is worth to each user, before the weight: finite, or -inf to leave an item out."""

    # What large catalogues are looked up by (:mod:`diffgrm.ranking.first_stage`), where one of them says the same scores.

    def item_factors(self, items: ScoredItems) -> Array | None:
        """[I, f] whose inner products with :meth:`user_factors` are the scores; None: they are no inner products."""
        return None

    def user_factors(self, users: Users) -> Array | None:
        """[B, f], where there are :meth:`item_factors`."""
        return None

    def item_offsets(self, items: ScoredItems) -> np.ndarray | None:
        """[I] float32, what each item is worth to all users alike; None: they are told different things, or -inf."""
        return None

    def sparse_scores(self, users: Users, items: ScoredItems) -> sp.csr_array | None:
        """[B, I] float32, the scores: 0 for all but few items of each user, none below, finite; None: they are not."""
        return None

    def state(self) -> State | None:
        """What ``fit`` learnt; None: nothing."""
        return None

    def load_state(self, state: State) -> Self:
        """Take back what :meth:`state` gave."""
        return self


class Rescorer(Scorer):
    """A second look at the candidates that the other scorers choose: too dear, or too narrow, for all items.

    Attributes:
        candidates: best items of each user that are looked at.
    """

    candidates: int

    def scores(self, users: Users, items: ScoredItems) -> Array:
        """A second look says nothing at the first."""
        return np.zeros((1, len(items.neighbours.has_events)), dtype=np.float32)

    @abstractmethod
    def rescore(self, users: Users, items: ScoredItems, candidates: Array, scores: Array) -> Array:
        """[B, C] what is added, times the weight, to the scores [B, C] of the candidates [B, C] (-1: none, of which it
        may say anything)."""


@dataclass(frozen=True)
class ItemScoring:
    """The weighted sum of some scorers."""

    scorers: tuple[Scorer, ...]
    items: ScoredItems

    def scores(self, users: Users) -> Array:
        """[B, I] of every item for each user, before softmax.

        Args:
            users: of whom the vectors decide whether the answer is a tensor or an array.

        Raises:
            DiffGRMError: a scorer gives another shape, or scores that are NaN or +inf.
        """
        total, shape = None, (len(users.vectors), len(self.items.neighbours.has_events))
        for scorer in self.scorers:
            if scorer.weight and not isinstance(scorer, Rescorer):
                found = self._said(scorer, users, shape)
                total = found if total is None else total + found
        if total is None:
            return _like(np.zeros(shape, dtype=np.float32), users.vectors)
        if not rankable(total):
            firsts = [scorer for scorer in self.scorers if scorer.weight and not isinstance(scorer, Rescorer)]
            said = [(scorer, self._said(scorer, users, shape)) for scorer in firsts]
            raise unrankable(said, (users.vectors, self.items.vectors))
        return total if total.shape == shape else _like(np.zeros(shape, dtype=np.float32), users.vectors) + total

    def _said(self, scorer: Scorer, users: Users, shape: tuple[int, int]) -> Array:
        """[B or 1, I] what a scorer adds to the sum of shape [B, I]."""
        found = checked(scorer, "scores", scorer.scores(users, self.items), shape, (1, shape[1]))
        found = _like(found, users.vectors)
        return found if scorer.weight == 1 else scorer.weight * found

    @property
    def rescorers(self) -> tuple[Rescorer, ...]:
        """Those that look at candidates."""
        return tuple(s for s in self.scorers if isinstance(s, Rescorer) and s.weight)

    @property
    def candidates(self) -> int:
        """Candidates that the second look needs; 0: there is none."""
        return max((scorer.candidates for scorer in self.rescorers), default=0)

    def rescored(self, users: Users, candidates: Array, scores: Array) -> Array:
        """[B, C] the scores of candidates [B, C], best first, after the second look at each rescorer's best.

        Args:
            candidates: item positions, -1 after the last.

        Raises:
            DiffGRMError: a rescorer gives another shape, or scores that are NaN or +inf.
        """
        for scorer in self.rescorers:
            looked, before = candidates[:, : scorer.candidates], scores[:, : scorer.candidates]
            more = checked(scorer, "rescore", scorer.rescore(users, self.items, looked, before), tuple(looked.shape))
            more = scorer.weight * _like(more, scores)
            more[_like(looked, scores) < 0] = 0  # whatever is said of no item
            rest = _like(np.zeros((len(scores), scores.shape[1] - more.shape[1]), dtype=np.float32), scores)
            scores = scores + _joined([more, rest])
            if scores.shape[1] and not rankable(scores):
                raise unrankable([(scorer, more)], (users.vectors, self.items.vectors))
        return scores


@dataclass(frozen=True)
class SecondLook:
    """What the rescorers of a sum say of the candidates of some users."""

    scoring: ItemScoring
    users: Users

    def __call__(self, candidates: Array, scores: Array) -> Array:
        """See :meth:`ItemScoring.rescored`."""
        return self.scoring.rescored(self.users, candidates, scores)

    def rows(self, chosen: Array) -> SecondLook:
        """That of some users [b]."""
        return SecondLook(self.scoring, self.users.rows(chosen))


def as_numpy(array: Array) -> np.ndarray:
    """The array in NumPy, wherever it is."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _joined(parts: Sequence[Array]) -> Array:
    """Columns side by side."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis=1)
    import torch

    return torch.cat(list(parts), dim=1)


def _like(array: Array, other: Array) -> Array:
    """The array as a tensor on the other's device where that is a tensor; its precision stays."""
    if isinstance(other, np.ndarray) or not isinstance(array, np.ndarray):
        return array
    import torch

    return torch.tensor(array, device=other.device)
