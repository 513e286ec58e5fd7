"""Metrics by item, over the whole catalogue, from tables of recommendations.

``evaluate`` takes anything that has ``.recommend``. It walks over the users in blocks and keeps one rank per target and
one count per item, so memory does not grow with users x items.

``validity`` is the share of the places of the (filtered) lists that hold a real item: an invented item lowers it, and so
does a list that is shorter than it could be, as when a decoder ends in semantic IDs that no item has. ``distinctness`` is
the share of real entries that do not repeat in their list. ``novelty@k`` is the mean self-information of the items of the
filtered lists, in bits, and ``diversity@k`` how unlike each other their texts are.

Names: ``recall@10`` ranks with the user's history filtered out, ``recall@10_unfiltered`` without filter, and
``sid_recall@10`` counts semantic IDs instead of items, unfiltered, for comparison with the paper only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
import scipy.sparse as sp

from diffgrm.data.asking import request_of
from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.data.histories import ReadHistories
from diffgrm.data.ids import IdMap
from diffgrm.evaluation.beyond_accuracy import diversity, novelty, self_information
from diffgrm.evaluation.seen_targets import warn_of_seen
from diffgrm.foundation.schema import Columns, DataError

logger = logging.getLogger(__name__)
LIST = "list"  # column of held-out events: which list they are a target of


class Recommends(Protocol):
    """What ``evaluate`` needs of a recommender."""

    def recommend(self, histories: Any, k: int, *, exclude_seen: bool) -> pl.DataFrame:
        """Table of user_id, item_id, score, rank (from 1)."""
        ...


# ---- metrics of ranks: rank 1 is the top of the list, 0 means not in the list ----------------------------------------


def recall(ranks: Ragged, k: int) -> np.ndarray:
    """Recall@k per user [U]: share of the user's targets among the first k.

    >>> recall(Ragged.from_lists([[1], [0], [3, 0]]), 2).tolist(), recall(Ragged.from_lists([[3, 0]]), 3).tolist()
    ([1.0, 0.0, 0.0], [0.5])
    """
    hit = (ranks.values > 0) & (ranks.values <= k)
    return _sum_rows(ranks, hit) / ranks.lengths


def ndcg(ranks: Ragged, k: int) -> np.ndarray:
    """NDCG@k per user [U]: sum of 1/log2(rank + 1) over targets in the first k, over its best possible value.

    >>> ndcg(Ragged.from_lists([[1], [3], [0]]), 10).tolist()
    [1.0, 0.5, 0.0]
    """
    hit = (ranks.values > 0) & (ranks.values <= k)
    gains = np.where(hit, 1 / np.log2(np.maximum(ranks.values, 1) + 1), 0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return _sum_rows(ranks, gains) / ideal[np.minimum(ranks.lengths, k) - 1]


def reciprocal_rank(ranks: Ragged, k: int) -> np.ndarray:
    """MRR@k per user [U]: 1/rank of the first target in the first k, else 0.

    >>> reciprocal_rank(Ragged.from_lists([[4, 2], [0]]), 10).tolist()
    [0.5, 0.0]
    """
    hit = (ranks.values > 0) & (ranks.values <= k)
    inverse = np.where(hit, 1 / np.maximum(ranks.values, 1), 0)
    return np.maximum.reduceat(inverse, ranks.offsets[:-1]) if len(ranks) else np.empty(0)


def _sum_rows(ranks: Ragged, values: np.ndarray) -> np.ndarray:
    return np.bincount(np.repeat(np.arange(len(ranks)), ranks.lengths), weights=values, minlength=len(ranks))


def accuracy(ranks: Ragged, ks: Iterable[int]) -> dict[str, float]:
    """Mean recall@k and ndcg@k for every k, and mrr@10."""
    metrics: dict[str, float] = {}
    for k in ks:
        metrics[f"recall@{k}"] = float(recall(ranks, k).mean())
        metrics[f"ndcg@{k}"] = float(ndcg(ranks, k).mean())
    return metrics | {"mrr@10": float(reciprocal_rank(ranks, 10).mean())}


def selection_score(ndcg_at_10: float, recall_at_10: float) -> float:
    """What checkpoints are chosen by on validation: 0.8 NDCG@10 + 0.2 Recall@10, by item."""
    return 0.8 * ndcg_at_10 + 0.2 * recall_at_10


def lists_of(table: pl.DataFrame, asker: str, found: np.ndarray, asked: pl.Series, k: int) -> np.ndarray:
    """Ranked rows as lists [U, k] of what was found, in the order of those who asked, -1 in unused places.

    Args:
        table: with the columns ``asker`` and ``rank`` (from 1).
        found: [rows] what stands in each, such as positions of items.
        asked: [U] ids.
    """
    lists = np.full((len(asked), k), -1, dtype=np.int64)
    lists[IdMap(asked).positions(table[asker]), table[Columns.RANK].to_numpy().astype(np.int64) - 1] = found
    return lists


def ranks_in_lists(lists: np.ndarray, targets: Ragged) -> Ragged:
    """Rank of every target in its user's list of item positions [U, k]; 0 where it is not in it.

    >>> ranks_in_lists(np.array([[7, 5], [1, -1]]), Ragged.from_lists([[5], [2]])).values.tolist()
    [2, 0]
    """
    match = np.repeat(lists, targets.lengths, axis=0) == targets.values[:, None]
    return Ragged(np.where(match.any(1), match.argmax(1) + 1, 0), targets.offsets)


# ---- metrics of the lists themselves ---------------------------------------------------------------------------------


def gini(counts: np.ndarray) -> float:
    """Gini index of how often each catalogue item is recommended: 0 all alike, towards 1 all to one item.

    >>> gini(np.array([2, 2, 2])), round(gini(np.array([0, 0, 6])), 3)
    (0.0, 0.667)
    """
    ordered = np.sort(counts.astype(float))
    total, n = ordered.sum(), len(ordered)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * total)) if total else 0.0


def long_tail(item_counts: np.ndarray, head_share: float = 0.2) -> np.ndarray:
    """[I] bool, true for items outside the ``head_share`` most popular ones (by training events; ties by position).

    >>> long_tail(np.array([9, 1, 5, 0, 2])).tolist()
    [False, True, True, True, True]
    """
    head = np.argsort(-item_counts, kind="stable")[: int(np.ceil(head_share * len(item_counts)))]
    tail = np.ones(len(item_counts), dtype=bool)
    tail[head] = False
    return tail


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        n_users: users evaluated.
        metrics: name -> mean over lists, of which most splits make one for each user.
        per_user: user_id, item_id (the target), ``list`` (its row in the evaluation set), ``rank``, ``rank_unfiltered`` (0:
            not in the list).
        n_skipped: lists left out because the recommender knows no item of their history.
        n_lists: lists evaluated.
    """

    n_users: int
    metrics: dict[str, float]
    per_user: pl.DataFrame
    n_skipped: int
    n_lists: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``{"n_users": .., "n_lists": .., "n_skipped": .., "metrics": {..}}``."""
        counts = {"n_users": self.n_users, "n_lists": self.n_lists, "n_skipped": self.n_skipped}
        return {**counts, "metrics": self.metrics}


def evaluate(
    recommender: Recommends,
    evaluation_set: EvaluationSet,
    items: IdMap,
    item_counts: np.ndarray,
    ks: Sequence[int] = (5, 10, 20),
    users_at_once: int = 8192,
    progress: Callable[[int], None] | None = None,
    known: IdMap | None = None,
    texts: sp.csr_array | None = None,
) -> Evaluation:
    """Full-ranking evaluation by item, with and without the history filtered out.

    Args:
        recommender: anything with ``.recommend``, which is told the moment of each target and what is known of users too
            (``at``, ``profiles``), where the dataset was read so that networks are told of them. Where it also has
            ``sid_numbers(item_ids)`` (the number of each item's SID) and ``recommend_sids``, the SID-level metrics are
            added. Histories come as a table, or, with an attribute ``takes_read_histories``, as
            :class:`diffgrm.data.histories.ReadHistories`.
        evaluation_set: users, histories and targets.
        items: the catalogue.
        item_counts: [I] training events of every item, for the long tail and novelty.
        ks: list lengths; 10 is always added.
        users_at_once: users in one call of ``recommend``.
        progress: called with the number of lists made since the last call (two for each user).
        known: the items that the recommender knows, where those may be others; users with none of them in their history
            are left out and counted. None: everybody is asked for.
        texts: [I, f] vectors of the items' texts, of length 1, from which ``diversity@k`` comes; None: without it.

    Raises:
        DataError: nobody to evaluate, or a number below 1 in ``ks`` or ``users_at_once``.
    """
    if wrong := [f"{k!r} in ks" for k in ks if k < 1] + [f"users_at_once={users_at_once!r}"] * (users_at_once < 1):
        raise DataError(f"{wrong[0]}: expected a whole number from 1 on")
    rows_asked = _rows_of_known_items(evaluation_set, known, items)
    asked, evaluation_set = len(evaluation_set), evaluation_set.rows(rows_asked)
    warn_of_seen(evaluation_set, "held-out")
    ks = sorted({*ks, 10})
    k = min(max(ks), len(items) if known is None else len(known))
    with_sids: Any = recommender if hasattr(recommender, "recommend_sids") else None
    sid_numbers = with_sids.sid_numbers(items.series) if with_sids else None
    is_known = np.ones(len(items), dtype=bool) if known is None else known.positions(items.series) >= 0
    tally = _Tally(item_counts, ks, texts)
    ranks: dict[str, list[np.ndarray]] = {"filtered": [], "unfiltered": [], "sid": []}
    for start in range(0, len(evaluation_set), users_at_once):
        rows = np.arange(start, min(start + users_at_once, len(evaluation_set)))
        histories = _histories(evaluation_set, rows, items, recommender)
        user_ids, targets = evaluation_set.keys.gather(rows), evaluation_set.targets.rows(rows)
        asked_with = request_of(user_ids, evaluation_set.histories.rows(rows))
        for name, exclude_seen in (("filtered", True), ("unfiltered", False)):
            table = recommender.recommend(histories, k, exclude_seen=exclude_seen, **asked_with)
            positions = items.positions(table[Columns.ITEM])
            lists = lists_of(table, Columns.USER, positions, user_ids, k)
            ranks[name].append(ranks_in_lists(lists, targets).values)
            if exclude_seen:
                tally.check_rows(table[Columns.USER], positions)
                seen = evaluation_set.histories.rows(rows).seen().distinct()
                unseen = is_known.sum() - seen.filter(is_known[seen.values]).lengths
                tally.add(lists, possible=np.minimum(k, unseen))
            elif sid_numbers is not None:
                ranks["sid"].append(
                    _sid_ranks(recommender, histories, user_ids, asked_with, lists, targets, sid_numbers, k)
                )
            if progress:
                progress(len(rows))
    found = {name: Ragged(np.concatenate(r), evaluation_set.targets.offsets) for name, r in ranks.items() if r}
    metrics = accuracy(found["filtered"], ks)
    for name, suffixed in (("unfiltered", "{}_unfiltered"), ("sid", "sid_{}")):
        if name in found:
            metrics |= {suffixed.format(metric): value for metric, value in accuracy(found[name], ks).items()}
    metrics |= tally.metrics()
    user = np.repeat(np.arange(len(evaluation_set)), evaluation_set.targets.lengths)
    per_user = pl.DataFrame(
        {
            Columns.USER: evaluation_set.user_ids.gather(user),
            Columns.ITEM: items.gather(evaluation_set.targets.values),
            LIST: rows_asked[user],
            "rank": found["filtered"].values,
            "rank_unfiltered": found["unfiltered"].values,
        }
    )
    return Evaluation(evaluation_set.n_users, metrics, per_user, asked - len(evaluation_set), len(evaluation_set))


def _rows_of_known_items(evaluation_set: EvaluationSet, known: IdMap | None, items: IdMap) -> np.ndarray:
    """The lists with an item in their history that a recommender knows; None: all.

    Raises:
        DataError: there are none.
    """
    asked = len(evaluation_set)
    rows = np.arange(asked) if known is None else evaluation_set.known_to(known, items)
    if len(rows) < asked:
        logger.warning("%d of %d lists have no known item in their history and are not evaluated", asked - len(rows), asked)
    if len(rows) == 0:
        raise DataError("there are no users to evaluate: the split keeps no events for this set, or none of known items")
    return rows


class _Tally:
    """Running counts over blocks of users."""

    def __init__(self, item_counts: np.ndarray, ks: Sequence[int], texts: sp.csr_array | None) -> None:
        self.tail, self.information, self.texts = long_tail(item_counts), self_information(item_counts), texts
        self.counts = {k: np.zeros(len(item_counts), dtype=np.int64) for k in ks}
        self.tail_share, self.novelty, self.diversity = (dict.fromkeys(ks, 0.0) for _ in range(3))
        self.paired = dict.fromkeys(ks, 0)  # lists of two items or more
        self.users = self.returned = self.real = self.distinct = self.places = 0

    def add(self, lists: np.ndarray, possible: np.ndarray) -> None:
        """Count lists [U, k] of item positions, -1 in unused places; ``possible`` [U] items could have been in them."""
        self.users += len(lists)
        self.places += int(possible.sum())
        for k, counts in self.counts.items():
            first, used = lists[:, :k], lists[:, :k] >= 0
            counts += np.bincount(first[used], minlength=len(counts))
            in_tail = np.where(used, self.tail[np.maximum(first, 0)], False).sum(1)
            self.tail_share[k] += float((in_tail / np.maximum(used.sum(1), 1)).sum())
            self.novelty[k] += float(novelty(first, self.information).sum())
            if self.texts is not None:
                unlike = diversity(first, self.texts)
                self.diversity[k] += float(np.nansum(unlike))
                self.paired[k] += int(np.isfinite(unlike).sum())

    def check_rows(self, user: pl.Series, position: np.ndarray) -> None:
        """Count returned rows: how many are items of the catalogue, and how many of those repeat in a list."""
        self.returned += len(position)
        real = position >= 0
        self.real += int(real.sum())
        pairs = pl.DataFrame({"user": user, "item": position}).filter(pl.Series(real))
        self.distinct += pairs.n_unique()

    def metrics(self) -> dict[str, float]:
        """Validity, distinctness, and coverage, Gini, APLT, novelty and diversity for every k."""
        result = {
            "validity": self.real / max(self.places, self.returned, 1),
            "distinctness": self.distinct / self.real if self.real else 0.0,
        }
        for k, counts in self.counts.items():
            result[f"coverage@{k}"] = float((counts > 0).mean())
            result[f"gini@{k}"] = gini(counts)
            result[f"aplt@{k}"] = self.tail_share[k] / self.users
            result[f"novelty@{k}"] = self.novelty[k] / self.users
            if self.paired[k]:
                result[f"diversity@{k}"] = self.diversity[k] / self.paired[k]
        return result


def _histories(
    evaluation_set: EvaluationSet, rows: np.ndarray, items: IdMap, recommender: Recommends
) -> ReadHistories | pl.DataFrame:
    histories = evaluation_set.histories.rows(rows)
    found = ReadHistories(evaluation_set.keys.gather(rows), items.gather(histories.values), histories)
    return found if getattr(recommender, "takes_read_histories", False) else found.table()


def _sid_ranks(
    recommender: Any,
    histories: ReadHistories | pl.DataFrame,
    user_ids: pl.Series,
    asked_with: dict[str, Any],
    lists: np.ndarray,
    targets: Ragged,
    sid_numbers: np.ndarray,
    k: int,
) -> np.ndarray:
    """Ranks of the targets' SIDs among the recommended SIDs."""
    if len(np.unique(sid_numbers)) == len(sid_numbers):  # one item a SID: the lists of items are lists of SIDs
        sids = np.where(lists >= 0, sid_numbers[np.maximum(lists, 0)], -1)
    else:
        table = recommender.recommend_sids(histories, k, **asked_with)
        sids = lists_of(table, Columns.USER, table["sid"].to_numpy(), user_ids, k)
    return ranks_in_lists(sids, Ragged(sid_numbers[targets.values], targets.offsets)).values
