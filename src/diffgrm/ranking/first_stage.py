"""The first stage of ranking by item scores: few items of each user that may be the best, scored exactly.

A sum of item scores is split in two. What its scorers say as inner products (:meth:`Scorer.item_factors`), or to all users
alike (:meth:`Scorer.item_offsets`), is one inner product of longer vectors, with the weights on the users' side; an index
(:mod:`diffgrm.ranking.item_index`) finds the items where it is large. What they say of few items only
(:meth:`Scorer.sparse_scores`) brings those items along. All of them together are scored exactly.

What is said of few items is not below 0. So an item that neither part finds scores its inner product alone, and none of
the items that the index finds scores less: if those are the best C by inner product that the user may get, the best C by
the sum are among the candidates. With an exact index the list is the exact one. The index is asked for as many more items
as the user must not get; users for whom it finds fewer than it was asked for, though there are more, are scored against all
items.

Letters: B users, I items, C candidates, f width of factors, P pairs of a user and an item.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy.sparse as sp

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.sections import RetrievalSettings
from diffgrm.foundation.top_k import best_places
from diffgrm.ranking.item_index import IndexKind, ItemIndex, KeptIndex
from diffgrm.ranking.item_scoring.base import Array, ItemScoring, Rescorer, Scorer, Users, as_numpy
from diffgrm.ranking.item_scoring.checks import checked, finite

Way = Literal["item_factors", "item_offsets", "sparse_scores"]
WAYS: tuple[Way, ...] = get_args(Way)
EXACT_BELOW, QUANTISED_FROM = 100_000, 500_000  # items; what retrieval.index=auto goes by
FEWEST_LEFT = 0.1  # share of the items that a filter must leave, or all of those are scored
MORE = 64  # items that a user must not get are asked for in multiples of this, so that who else asks changes nothing
NUMBERS_AT_ONCE = 2**22  # of vectors that are multiplied pair by pair


class Pairs(NamedTuple):
    """Pairs of a user and an item, each once: row [P], item [P], score [P]."""

    row: np.ndarray
    item: np.ndarray
    score: np.ndarray

    def replaced(self, users: np.ndarray, others: list[Pairs]) -> Pairs:
        """With other pairs for some users [b]."""
        keep = ~np.isin(self.row, users)
        return Pairs(*map(np.concatenate, zip(Pairs(*(part[keep] for part in self)), *others, strict=True)))

    def lists(self, batch: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The best items [B, C] and scores [B, C] of each user, equal ones in order of item; -1 and -inf after the last.

        >>> items, scores = Pairs(np.array([1, 0, 1]), np.array([7, 3, 2]), np.array([1.0, 2.0, 5.0])).lists(2, 9)
        >>> items.tolist(), scores.tolist()
        ([[3, -1], [2, 7]], [[2.0, -inf], [5.0, 1.0]])
        """
        order = np.lexsort((self.item, -self.score, self.row))
        lengths = np.bincount(self.row, minlength=batch)
        column = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        row, item, score = (part[order[column < count]] for part in self)
        items = np.full((batch, min(count, int(lengths.max(initial=0)))), -1, dtype=np.int64)
        scores = np.full(items.shape, -np.inf, dtype=np.float32)
        column = column[column < count]
        items[row, column], scores[row, column] = item, score
        return items, scores


@dataclass(frozen=True)
class FirstStage:
    """Looks up candidates of users and scores them exactly.

    Attributes:
        scoring: that :func:`can_look_up` has said yes to.
        kind: of the index.
        candidates: items that the index is asked for.
        exact_below: items that may be recommended, below which all of them are better scored.
        kept: gives the index.
    """

    scoring: ItemScoring
    kind: IndexKind
    candidates: int
    exact_below: int
    kept: KeptIndex

    @classmethod
    def of(cls, settings: RetrievalSettings, scoring: ItemScoring, kept: KeptIndex) -> FirstStage | None:
        """The first stage as a recipe has it; None: all items are scored.

        With ``auto`` those are all items where they are fewer than ``EXACT_BELOW``, where their vectors are on a GPU, and
        where a scorer can only say what all items are worth.
        """
        n_items, kind = len(scoring.items.neighbours.has_events), settings.index
        if kind == "exact" or not can_look_up((type(scorer), scorer.weight) for scorer in scoring.scorers):
            return None
        least = 0
        if kind == "auto":
            if n_items < EXACT_BELOW or getattr(getattr(scoring.items.vectors, "device", None), "type", "cpu") != "cpu":
                return None
            kind, least = ("hnsw" if n_items < QUANTISED_FROM else "ivf_pq"), EXACT_BELOW
        return cls(scoring, kind, settings.candidates, max(least, int(FEWEST_LEFT * n_items)), kept)

    def serves(self, n_items: int) -> bool:
        """Whether so many items that may be recommended are looked up, or all of them better scored."""
        return n_items >= self.exact_below

    @cached_property
    def _factors(self) -> list[tuple[Scorer, np.ndarray]]:
        """Scorers that say inner products, or the same to all users, with the items' part [I, f] of each."""
        items, found = self.scoring.items, []
        n_items = len(items.neighbours.has_events)
        for scorer in self.scoring.scorers:
            way = way_of(type(scorer))
            if way == "item_factors" and (factors := scorer.item_factors(items)) is not None:
                found.append((scorer, _single(scorer, way, factors, n_items)))
            elif way == "item_offsets" and (offsets := scorer.item_offsets(items)) is not None:
                checked(scorer, way, offsets, (n_items,))
                found.append((scorer, finite(scorer, way, offsets)[:, None]))
        return found

    @cached_property
    def index(self) -> ItemIndex:
        """Of the items' factors side by side, built when first asked for."""
        return self.kept.of(self.kind, np.concatenate([factors for _, factors in self._factors], axis=1))

    def best(
        self, users: Users, count: int, allowed: np.ndarray | None, excluded: Ragged | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A user's best items [B, C], best first (-1 after the last), and their scores (-inf after the last).

        C is the larger of ``count`` and ``candidates``, or as many as there are. Equal scores are in order of item.

        Args:
            count: items wanted.
            allowed: [I] bool, items that may be recommended; None is all.
            excluded: positions that single users must not get, repeats allowed; None is none.
        """
        n_items, count = self.index.n_items, max(count, self.candidates)
        out = np.empty(0, dtype=np.int64) if excluded is None else np.unique(_keys(excluded, n_items))
        asked = [self._asked(scorer, factors.shape[1], users) for scorer, factors in self._factors]
        found, short = self._found(asked, count, allowed, out)
        sparse = self._sparse(users)
        said = _keys(Ragged(sparse.indices, sparse.indptr), n_items)
        keys = np.unique(np.concatenate([found, said]))
        scores = self._inner_products(asked, *np.divmod(keys, n_items))
        scores[np.searchsorted(keys, said)] += sparse.data
        may = ~np.isin(keys, out, assume_unique=True)
        if allowed is not None:
            may &= allowed[keys % n_items]
        pairs = Pairs(*np.divmod(keys[may], n_items), scores[may])
        if len(short):
            pairs = pairs.replaced(short, [self._of_all_items(user, users, count, allowed, out) for user in short])
        return pairs.lists(len(users.histories), count)

    def _asked(self, scorer: Scorer, width: int, users: Users) -> np.ndarray:
        """[B, f] the users' part of a scorer's inner products, times its weight."""
        factors, count = scorer.user_factors(users), len(users.histories)
        if factors is None:
            return np.full((count, width), scorer.weight, dtype=np.float32)
        return np.float32(scorer.weight) * _single(scorer, "user_factors", factors, count, width)

    def _found(
        self, asked: list[np.ndarray], count: int, allowed: np.ndarray | None, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keys of the pairs that the index gives, and the users [b] for whom it gives fewer than there are."""
        users, n_items = np.concatenate(asked, axis=1), self.index.n_items
        most = n_items if allowed is None else int(np.count_nonzero(allowed))
        wanted = count + -(-np.bincount(out // n_items, minlength=len(users)) // MORE) * MORE
        keys, short = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for number in np.unique(wanted):
            rows = np.flatnonzero(wanted == number)
            items = self.index.search(users[rows], int(number), allowed)
            keys.append((rows[:, None] * n_items + items)[items >= 0])
            short.append(rows[(items >= 0).sum(1) < min(number, most)])
        return np.concatenate(keys), np.concatenate(short)

    def _sparse(self, users: Users) -> sp.csr_array:
        """[B, I] the weighted sum of what scorers say of few items."""
        total = sp.csr_array((len(users.histories), self.index.n_items), dtype=np.float32)
        for scorer in self.scoring.scorers:
            if scorer.weight and way_of(type(scorer)) == "sparse_scores":
                said = scorer.sparse_scores(users, self.scoring.items)
                assert said is not None
                finite(scorer, "sparse_scores", said.data)
                total = total + np.float32(scorer.weight) * said
        return total

    def _inner_products(self, asked: list[np.ndarray], row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """[P] of pairs."""
        scores = np.zeros(len(row), dtype=np.float32)
        for users, (_, items) in zip(asked, self._factors, strict=True):
            step = max(1, NUMBERS_AT_ONCE // items.shape[1])
            for start in range(0, len(row), step):
                part = slice(start, start + step)
                scores[part] += np.einsum("pf,pf->p", users[row[part]], items[item[part]])
        return scores

    def _of_all_items(self, user: int, users: Users, count: int, allowed: np.ndarray | None, out: np.ndarray) -> Pairs:
        """Those of one user with the best ``count`` of all items."""
        scores = as_numpy(self.scoring.scores(users.rows(np.array([user]))))[0].astype(np.float32)
        may = np.ones(len(scores), dtype=bool) if allowed is None else allowed.copy()
        may[out[out // len(scores) == user] % len(scores)] = False
        item = np.flatnonzero(may)
        if count < len(item):
            item = item[best_places(scores[None, item], count)[0]]
        return Pairs(np.full(len(item), user), item, scores[item])


@dataclass(frozen=True)
class LookUp:
    """What the first stage says of some users."""

    stage: FirstStage
    users: Users

    def __call__(self, count: int, allowed: np.ndarray | None, excluded: Ragged | None) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`FirstStage.best`."""
        return self.stage.best(self.users, count, allowed, excluded)

    def rows(self, chosen: Array) -> LookUp:
        """That of some users [b]."""
        return LookUp(self.stage, self.users.rows(chosen))


def can_look_up(scorers: Iterable[tuple[type[Scorer], float]]) -> bool:
    """Whether candidates can be looked up by a sum of scorers: inner products, and beside them what the index has room for.

    Args:
        scorers: the class and the weight of each.
    """
    told = [(way_of(kind), weight) for kind, weight in scorers if weight and not issubclass(kind, Rescorer)]
    if any(way is None or (way == "sparse_scores" and weight < 0) for way, weight in told):
        return False
    return any(way == "item_factors" for way, _ in told)


def way_of(kind: type[Scorer]) -> Way | None:
    """The method by which a class says quickly what its scores are; None where it, or the class that has other scores than
    those it inherits from, has none."""
    order = kind.__mro__[: kind.__mro__.index(Scorer)]
    own = next((place for place, parent in enumerate(order) if "scores" in vars(parent)), len(order))
    return next((way for way in WAYS if any(way in vars(parent) for parent in order[: own + 1])), None)


def _keys(items: Ragged, n_items: int) -> np.ndarray:
    """``user * n_items + item`` of every pair."""
    return np.repeat(np.arange(len(items)), items.lengths) * n_items + items.values


def _single(scorer: Scorer, method: str, factors: Array, rows: int, width: int | None = None) -> np.ndarray:
    """Factors [rows, width] in NumPy and 32 bits, as a scorer's method gave them; of any width where none is said."""
    if width is None:
        width = factors.shape[1] if len(getattr(factors, "shape", ())) == 2 else 1
    factors = checked(scorer, method, factors, (rows, width))
    single = factors.astype(np.float32, copy=False) if isinstance(factors, np.ndarray) else factors.float().cpu().numpy()
    return finite(scorer, method, single)
