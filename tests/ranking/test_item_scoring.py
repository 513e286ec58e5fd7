"""The weighted sum of scorers, and the second look at its best items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.foundation.registry import names, resolve
from diffgrm.ranking.item_scoring.base import ItemScoring, SecondLook
from helpers.item_scores import GENERATOR, HISTORIES, ITEMS, TRAIN, USERS, Table, scored

RUNTIMES = pytest.mark.parametrize("of", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])
TABLE = GENERATOR.normal(size=(ITEMS, ITEMS))
OTHER = GENERATOR.normal(size=(ITEMS, ITEMS))
BEST = np.array([[3, 1, 0, 2, 6], [0, 4, 2, -1, -1], [5, 6, 0, 1, 2], [2, 1, 0, 3, -1], [-1] * 5])
SCORES = np.where(BEST >= 0, -np.arange(5, dtype=np.float32) / 3, -np.inf).astype(np.float32)


def fitted():
    return [resolve("scorer", name)().fit(TRAIN, 6) for name in names("scorer")]


def looked(scores, *rescorers):
    """What each second look adds to the first of its candidates, by hand."""
    wanted = scores.astype(np.float64)
    for rescorer in rescorers:
        for user in range(USERS):
            newest = HISTORIES[user][-1]
            for place in range(min(rescorer.candidates, BEST.shape[1])):
                if BEST[user, place] >= 0:
                    wanted[user, place] += rescorer.weight * rescorer.table[newest, BEST[user, place]]
    return wanted


@RUNTIMES
@given(weights=st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_the_sum_is_what_each_scorer_says_times_its_weight(of, weights):
    users, items = scored(of)
    scorers, wanted = fitted(), np.zeros((USERS, ITEMS))
    for scorer, weight in zip(scorers, weights, strict=True):
        wanted += weight * np.asarray(scorer.scores(users, items), dtype=np.float64)
        scorer.weight = weight
    found = ItemScoring(tuple(scorers), items).scores(users)
    assert found.shape == (USERS, ITEMS) and np.asarray(found) == pytest.approx(wanted, abs=1e-4)


@RUNTIMES
def test_no_scorers_say_nothing(of):
    users, items = scored(of)
    for scorers in ((), (Table(TABLE),)):
        found = ItemScoring(scorers, items).scores(users)
        assert isinstance(found, type(users.vectors)) and tuple(found.shape) == (USERS, ITEMS) and not found.any()


def test_a_second_look_has_no_say_at_the_first():
    users, items = scored()
    scorers = tuple(fitted())
    alone, beside = (ItemScoring(chosen, items).scores(users) for chosen in (scorers, (Table(TABLE), *scorers)))
    assert np.array_equal(alone, beside)
    assert not Table(TABLE).scores(users, items).any()


@RUNTIMES
@pytest.mark.parametrize("candidates", [1, 3, 5, 50])
def test_a_second_look_adds_to_the_candidates_that_it_asks_for(of, candidates):
    users, items = scored(of)
    rescorer = Table(TABLE, weight=0.5, candidates=candidates)
    scoring = ItemScoring((*fitted(), rescorer), items)
    found = scoring.rescored(users, of(BEST), of(SCORES))
    assert isinstance(found, type(of(SCORES))) and np.asarray(found) == pytest.approx(looked(SCORES, rescorer), abs=1e-5)
    assert (np.isneginf(np.asarray(found)) == (BEST < 0)).all()
    assert np.array_equal(rescorer.seen[0], BEST[:, :candidates]) and scoring.candidates == candidates


@RUNTIMES
def test_several_second_looks_add_up_each_with_its_own_candidates(of):
    users, items = scored(of)
    near, far, idle = Table(TABLE, 2.0, 2), Table(OTHER, -1.0, 4), Table(OTHER, 0.0, 99)
    scoring = ItemScoring((near, *fitted(), far, idle), items)
    assert scoring.rescorers == (near, far) and scoring.candidates == 4
    found = np.asarray(scoring.rescored(users, of(BEST), of(SCORES)))
    assert found == pytest.approx(looked(SCORES, near, far), abs=1e-5)
    assert not idle.seen


def test_without_a_second_look_nothing_changes():
    users, items = scored()
    scoring = ItemScoring(tuple(fitted()), items)
    assert scoring.candidates == 0 and scoring.rescorers == ()
    assert scoring.rescored(users, BEST, SCORES) is SCORES


@RUNTIMES
def test_the_second_look_of_some_users_is_theirs(of):
    users, items = scored(of)
    look = SecondLook(ItemScoring((Table(TABLE),), items), users)
    whole, chosen = np.asarray(look(of(BEST), of(SCORES))), np.array([3, 0, 3])
    some = look.rows(of(chosen))
    assert np.asarray(some(of(BEST[chosen]), of(SCORES[chosen]))) == pytest.approx(whole[chosen])
    assert np.asarray(some.rows(of(np.array([1])))(of(BEST[:1]), of(SCORES[:1]))) == pytest.approx(whole[:1])


@RUNTIMES
def test_some_users_have_their_vectors_and_histories(of):
    users, _ = scored(of)
    chosen = np.array([4, 1])
    some = users.rows(of(chosen))
    assert np.array_equal(np.asarray(some.vectors), np.asarray(users.vectors)[chosen])
    assert [some.histories[row].tolist() for row in range(2)] == [HISTORIES[row].tolist() for row in chosen]
