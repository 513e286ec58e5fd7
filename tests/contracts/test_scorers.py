"""What every scorer of whole items must do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffgrm.foundation.registry import names, resolve, settings
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.base import ItemScoring, Rescorer, ScoredItems, Users
from helpers.item_scores import GENERATOR, HISTORIES, ITEM_VECTORS, ITEMS, TRAIN, USER_VECTORS, USERS, scored

ALL = pytest.mark.parametrize("name", names("scorer"))


def make(name, **options):
    return resolve("scorer", name)(**options).fit(TRAIN, 6)


def said(scorer, users=None, items=None):
    """[B or 1, I] as an array, whatever it comes as."""
    some, all_items = scored()
    return np.asarray(scorer.scores(users or some, items or all_items))


@ALL
def test_scores_have_their_shape_and_are_finite(name):
    found = said(make(name))
    assert found.shape in {(USERS, ITEMS), (1, ITEMS)}
    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert found.any() or isinstance(make(name), Rescorer)


@ALL
def test_one_user_alone_is_told_what_all_are_told_together(name):
    scorer, (users, items) = make(name), scored()
    together = np.broadcast_to(said(scorer), (USERS, ITEMS))
    for row in range(USERS):
        assert said(scorer, users.rows(np.array([row]))) == pytest.approx(together[row : row + 1], abs=1e-6)
    order = GENERATOR.permutation(USERS)
    whole = ItemScoring((scorer,), items)
    assert whole.scores(users.rows(order)) == pytest.approx(whole.scores(users)[order], abs=1e-6)


@ALL
def test_what_it_is_looked_up_by_says_the_same(name):
    scorer, (users, items) = make(name), scored()
    wanted = np.broadcast_to(said(scorer), (USERS, ITEMS))
    if (factors := scorer.item_factors(items)) is not None:
        assert scorer.user_factors(users) @ factors.T == pytest.approx(wanted, abs=1e-6)
    if (offsets := scorer.item_offsets(items)) is not None:
        assert offsets.dtype == np.float32 and np.array_equal(np.broadcast_to(offsets, wanted.shape), wanted)
    if (few := scorer.sparse_scores(users, items)) is not None:
        assert few.dtype == np.float32 and np.array_equal(few.toarray(), wanted) and (few.data >= 0).all()


@ALL
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_sums_are_the_same_of_arrays_and_of_tensors(name, weight):
    arrays, tensors = (
        ItemScoring((make(name, weight=weight),), items).scores(users)
        for users, items in (scored(), scored(torch.from_numpy))
    )
    assert isinstance(arrays, np.ndarray) and isinstance(tensors, torch.Tensor)
    assert arrays.shape == tensors.shape == (USERS, ITEMS)
    assert arrays.dtype == np.float32 and tensors.dtype == torch.float32
    assert arrays == pytest.approx(tensors.numpy(), abs=1e-6)


@ALL
def test_users_of_sixteen_bits_get_scores_of_thirty_two(name):
    def half(array):
        return torch.from_numpy(array).to(torch.bfloat16)

    scorer = make(name)
    found = ItemScoring((scorer,), scored(half)[1]).scores(scored(half)[0])
    assert found.dtype == torch.float32
    exact = ItemScoring((scorer,), scored()[1]).scores(scored()[0])
    rounded = scorer.scores(*scored(half))
    assert found.numpy() == pytest.approx(exact, abs=0.1 if isinstance(rounded, torch.Tensor) else 1e-6)


@ALL
def test_what_it_learnt_comes_back_from_its_state(name, tmp_path):
    scorer = make(name)
    again, state = resolve("scorer", name)(), scorer.state()
    if state is not None:
        state.save(tmp_path / "state.safetensors")
        again = again.load_state(State.load(tmp_path / "state.safetensors"))
    assert np.array_equal(said(again), said(scorer))


@ALL
def test_items_that_come_are_scored_and_the_old_scorer_stays(name):
    scorer, (users, items) = make(name), scored()
    before = said(scorer)
    vectors = np.concatenate([ITEM_VECTORS, ITEM_VECTORS[:2]])
    texts = np.eye(8, 4, dtype=np.float32)
    grown = ScoredItems(vectors, items.neighbours.grown(texts[:2], texts[:ITEMS]))
    changed = scorer.items_changed(grown.neighbours)
    after = said(changed, users, grown)
    assert after.shape[1] == ITEMS + 2 and np.isfinite(after).all() and after.dtype == np.float32
    assert np.array_equal(said(scorer), before)


@ALL
def test_texts_that_change_move_only_items_without_events(name):
    scorer, (_, items) = make(name), scored()
    moved = items.neighbours.changed(
        np.array([0, 5]), np.eye(4, dtype=np.float32)[[3, 3]], np.eye(ITEMS, 4, dtype=np.float32)
    )
    changed = scorer.items_changed(moved)
    kept = HISTORIES.rows(np.array([0, 1, 3]))  # of items with events
    some = Users(USER_VECTORS[[0, 1, 3]], kept)
    before, after = said(scorer, some, items), said(changed, some, ScoredItems(items.vectors, moved))
    share = before[:, :5].max(1, keepdims=True) / np.maximum(after[:, :5].max(1, keepdims=True), 1e-9)
    assert after[:, :5] * share == pytest.approx(before[:, :5], abs=1e-5)


@ALL
def test_it_has_a_weight_and_no_weight_is_no_say(name):
    assert make(name).weight == settings("scorer", name)["weight"].default
    users, items = scored()
    assert not ItemScoring((make(name, weight=0.0),), items).scores(users).any()


@ALL
def test_users_items_and_the_random_state_are_left_alone(name):
    users, items = scored()
    vectors, weights = items.vectors.copy(), items.neighbours.weights.toarray()
    state, values = np.random.get_state()[1].copy(), HISTORIES.values.copy()
    said(make(name), users, items)
    assert np.array_equal(items.vectors, vectors) and np.array_equal(users.vectors, USER_VECTORS)
    assert np.array_equal(items.neighbours.weights.toarray(), weights) and np.array_equal(HISTORIES.values, values)
    assert np.array_equal(np.random.get_state()[1], state)
