"""The first stage: with an index that finds the best, lists are those of all items; with any, they hold what they may."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.sections import RetrievalSettings
from diffgrm.ranking import first_stage
from diffgrm.ranking.first_stage import FirstStage, LookUp, can_look_up
from diffgrm.ranking.item_index import KeptIndex
from diffgrm.ranking.item_ranker import ItemRanker
from diffgrm.ranking.item_scoring.base import ItemScoring, ScoredItems, Scorer, Users
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrenceScorer
from diffgrm.ranking.item_scoring.new_items import NewItemScorer
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.ranking.item_scoring.vectors import VectorScorer
from diffgrm.ranking.query import Query
from helpers.item_scores import Table
from helpers.networks import item_ranker

ITEMS, FITTED, USERS, WIDTH = 90, 80, 12, 6
GENERATOR = np.random.default_rng(0)
TRAIN = Ragged.from_lists([GENERATOR.integers(0, 70, size) for size in GENERATOR.integers(2, 9, 40)])
TEXTS = np.abs(GENERATOR.normal(size=(FITTED, 5))).astype(np.float32)
NEIGHBOURS = TextNeighbours.fit(TRAIN, FITTED, TEXTS).grown(TEXTS[:10] + 0.1, TEXTS)
HISTORIES = Ragged.from_lists([GENERATOR.integers(0, ITEMS, size) for size in (1, 2, 3, 70, 5, 8, 13, 2, 1, 4, 9, 30)])
ITEM_VECTORS = GENERATOR.normal(size=(ITEMS, WIDTH)).astype(np.float32)
USER_VECTORS = GENERATOR.normal(size=(USERS, WIDTH)).astype(np.float32)
RUNTIMES = pytest.mark.parametrize("of", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])


class Exact:
    """An index that looks at everything, or finds no more than ``most`` items."""

    def __init__(self, most=ITEMS):
        self.most = most

    def of(self, kind, vectors):
        self.vectors, self.n_items = vectors, len(vectors)
        return self

    def search(self, users, count, allowed=None):
        scores = users @ self.vectors.T
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :count]
        best[:, self.most :] = -1
        return np.where(np.take_along_axis(scores, best, 1) > -np.inf, best, -1)


class Opinion(Scorer):
    """Says something of all items, in no way that an index could use."""

    weight = 1.0

    def scores(self, users, items):
        return np.ones((1, ITEMS), dtype=np.float32)


def scorers(vectors=1.0, co_occurrence=2.0, new_items=1.5, more=()):
    found = VectorScorer(vectors), CoOccurrenceScorer(co_occurrence, shrink=1.0), NewItemScorer(new_items)
    return (*(scorer.fit(TRAIN, FITTED) for scorer in found), *more)


def staged(some, kept=None, candidates=4, of=np.asarray, exact_below=0):
    items = ScoredItems(of(ITEM_VECTORS), NEIGHBOURS)
    return FirstStage(ItemScoring(some, items), "hnsw", candidates, exact_below, kept or Exact())


def everything(stage, users, allowed, excluded):
    """[B, I] scores of all items, -inf for those that the user must not get."""
    scores = np.asarray(stage.scoring.scores(users)).copy()
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    if excluded is not None:
        scores[np.repeat(np.arange(len(excluded)), excluded.lengths), excluded.values] = -np.inf
    return scores


def check(found, scores, k):
    """The best k of what was found are the best k of all."""
    items, said = found
    for row in range(len(scores)):
        best = np.argsort(-scores[row], kind="stable")[:k]
        best = best[scores[row, best] > -np.inf]
        count = len(best)
        assert items[row, :count].tolist() == best.tolist()
        assert said[row, :count] == pytest.approx(scores[row, best], abs=1e-5)
        assert (items[row, count:] == -1).all() or count == k
        real = items[row] >= 0
        assert len(np.unique(items[row, real])) == real.sum() and np.isneginf(said[row, ~real]).all()
        assert said[row, real] == pytest.approx(scores[row, items[row, real]], abs=1e-5)
        assert (np.diff(said[row, real]) <= 0).all()


@RUNTIMES
@settings(max_examples=40, deadline=None)
@given(
    weights=st.tuples(st.floats(0.125, 3, width=32), st.floats(0, 3, width=32), st.floats(-3, 3, width=32)),
    k=st.integers(1, 25),
    candidates=st.integers(1, 10),
    share=st.sampled_from([None, 0.1, 0.7]),
    seen=st.booleans(),
    most=st.sampled_from([ITEMS, 30, 5, 0]),
)
def test_lists_are_those_of_all_items(of, weights, k, candidates, share, seen, most):
    """Whatever the scorers weigh, who may get what; and where the index comes short of what it was asked for."""
    stage = staged(scorers(*map(float, weights)), Exact(most), candidates, of)
    users = Users(of(USER_VECTORS), HISTORIES)
    allowed = None if share is None else np.random.default_rng(k).random(ITEMS) < share
    excluded = HISTORIES if seen else None
    check(stage.best(users, k, allowed, excluded), everything(stage, users, allowed, excluded), k)


def test_candidates_are_what_the_index_finds_and_what_is_said_of_few():
    stage, users = staged(scorers(), candidates=3), Users(USER_VECTORS, HISTORIES)
    items, _ = stage.best(users, 2, None, None)
    said = stage.scoring.scorers[1].sparse_scores(users, stage.scoring.items)
    for row in range(USERS):
        beside = set(said[[row]].tocoo().coords[1].tolist())
        best = set(np.argsort(-(USER_VECTORS[row] @ ITEM_VECTORS.T + 1.5 * ~NEIGHBOURS.has_events))[:3].tolist())
        assert set(items[row].tolist()) <= beside | best
    assert items.shape == (USERS, 3)


def test_who_else_asks_changes_nothing():
    stage, users = staged(scorers(), KeptIndex()), Users(USER_VECTORS, HISTORIES)
    together = stage.best(users, 5, None, HISTORIES)
    for row in range(USERS):
        alone = LookUp(stage, users).rows(np.array([row]))(5, None, HISTORIES.rows(np.array([row])))
        real = together[0][row] >= 0
        assert np.array_equal(alone[0][0], together[0][row, real])
        assert alone[1][0] == pytest.approx(together[1][row, real], abs=1e-6)


def test_a_user_for_whom_nothing_is_left_gets_nothing():
    allowed = np.zeros(ITEMS, dtype=bool)
    allowed[HISTORIES[3]] = True
    items, scores = staged(scorers()).best(Users(USER_VECTORS, HISTORIES), 3, allowed, HISTORIES)
    assert (items[3] == -1).all() and np.isneginf(scores[3]).all() and (items[0] >= 0).any()


def test_what_can_be_looked_up():
    vectors, few, new = (VectorScorer, 1.0), (CoOccurrenceScorer, 1.0), (NewItemScorer, -1.0)
    assert can_look_up([vectors]) and can_look_up([few, new, vectors]) and can_look_up([vectors, (Table, 1.0)])
    assert not can_look_up([]) and not can_look_up([few, new])  # the index would have nothing to tell items apart by
    assert not can_look_up([vectors, (Opinion, 1.0)]) and can_look_up([vectors, (Opinion, 0.0)])
    assert not can_look_up([vectors, (CoOccurrenceScorer, -1.0)])  # what few items lose, others win
    assert not can_look_up([(VectorScorer, 0.0), new])


def test_scores_of_its_own_are_not_looked_up_by_what_a_scorer_inherits():
    class Doubled(VectorScorer):
        def scores(self, users, items):
            return 2 * super().scores(users, items)

    class DoubledFactors(Doubled):
        def item_factors(self, items):
            return 2 * super().item_factors(items)

    class Renamed(VectorScorer):
        pass

    assert not can_look_up([(Doubled, 1.0)]) and can_look_up([(DoubledFactors, 1.0)]) and can_look_up([(Renamed, 1.0)])
    users = Users(USER_VECTORS, HISTORIES)
    stage = staged((DoubledFactors(), *scorers()))
    check(stage.best(users, 5, None, HISTORIES), everything(stage, users, None, HISTORIES), 5)


def test_auto_goes_by_size(monkeypatch):
    def chosen(index="auto", some=None):
        scoring = ItemScoring(some or scorers(), ScoredItems(ITEM_VECTORS, NEIGHBOURS))
        return FirstStage.of(RetrievalSettings(index=index), scoring, KeptIndex())

    assert chosen() is None and chosen("exact") is None and chosen("ivf_pq").kind == "ivf_pq"
    monkeypatch.setattr(first_stage, "EXACT_BELOW", ITEMS)
    assert chosen().kind == "hnsw" and chosen(some=scorers(more=[Opinion()])) is None and chosen("exact") is None
    assert chosen().serves(ITEMS) and not chosen().serves(ITEMS - 1)
    on_gpu = ScoredItems(SimpleNamespace(device=torch.device("cuda")), NEIGHBOURS)
    assert FirstStage.of(RetrievalSettings(), ItemScoring(scorers(), on_gpu), KeptIndex()) is None
    monkeypatch.setattr(first_stage, "QUANTISED_FROM", ITEMS)
    assert chosen().kind == "ivf_pq"
    assert chosen("hnsw").serves(9) and not chosen("hnsw").serves(8)  # of 90, a filter leaves less than a tenth


class Fixed(torch.nn.Module):
    """Items have the vectors of a table; a user's is that of the newest item."""

    max_len, causal = 50, True

    def item_vectors(self, items):
        return torch.from_numpy(ITEM_VECTORS)[items.row]

    def encode_history(self, vectors, index, valid):
        return vectors[index[torch.arange(len(index)), valid.sum(1) - 1]]

    def user_vectors(self, memory, *_):
        return memory


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("share", [None, 0.5, 0.02])
def test_item_rankers_rank_as_they_did(exclude_seen, share, monkeypatch):
    from diffgrm.networks.inputs import ItemFeatures
    from diffgrm.ranking import item_ranker as module

    monkeypatch.setattr(module, "USERS_AT_ONCE", 5)
    exact = item_ranker(Fixed(), ItemFeatures(row=torch.arange(ITEMS)))
    stage = FirstStage(exact.scoring, "hnsw", 4, 10, Exact())
    quick = ItemRanker(exact.network, exact.items, exact.scoring, stage)
    allowed, told = None if share is None else np.random.default_rng(2).random(ITEMS) < share, []
    for k in (1, 7, 40):
        query = Query(HISTORIES, k, exclude_seen, allowed, told.append)
        wanted, found = exact.rank(query), quick.rank(query)
        assert np.array_equal(found[0], wanted[0]) and found[1] == pytest.approx(wanted[1], abs=1e-5)
    assert sum(told) == 6 * USERS
