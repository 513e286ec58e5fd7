from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.storage import State
from diffgrm.ranking import item_index
from diffgrm.ranking.item_scoring import text_neighbours
from diffgrm.ranking.item_scoring.text_neighbours import NEIGHBOURS, TextNeighbours
from diffgrm.semantic_ids.embeddings.base import normalise
from helpers.item_scores import TEXTS, TRAIN

KNOWN, UNKNOWN = [0, 1, 0, 0], [0, 0, 0, 1]  # as item 1; as item 3


@pytest.fixture
def found():
    return TextNeighbours.fit(TRAIN, 6, TEXTS)


def unit(generator, count, width=5):
    vectors = generator.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_hand(text, texts, able):
    """The positive cosines to the nearest items with events, as shares."""
    similarity = np.where(able, texts @ text, -np.inf)
    best = np.argsort(-similarity, kind="stable")[: min(NEIGHBOURS, able.sum())]
    weight = np.zeros(len(texts))
    weight[best] = np.maximum(similarity[best], 0)
    return weight / max(weight.sum(), 1e-12)


@given(seed=st.integers(0, 1000), items=st.integers(2, 12), more=st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_an_item_with_events_stands_for_itself_and_another_borrows_of_the_nearest_texts(seed, items, more):
    generator = np.random.default_rng(seed)
    texts, events = unit(generator, items), Ragged.from_lists([generator.integers(0, items, 4) for _ in range(2)])
    new = unit(generator, more)
    grown = TextNeighbours.fit(events, items, texts).grown(new, texts)
    able = np.bincount(events.values, minlength=items) > 0
    weights = grown.weights.toarray()
    assert weights.shape == (items + more, items) and grown.n_fitted == items
    assert grown.has_events.tolist() == [*able.tolist(), *[False] * more]
    for item, text in enumerate(np.concatenate([texts, new])):
        if grown.has_events[item]:
            assert weights[item].tolist() == np.eye(items)[item].tolist()
        else:
            assert weights[item] == pytest.approx(by_hand(text, texts, able), abs=1e-5)
            assert weights[item].sum() == pytest.approx(1, abs=1e-5) or not weights[item].any()


@pytest.mark.parametrize("at_once", [1, 30])
def test_how_many_texts_are_compared_at_once_changes_nothing(at_once, monkeypatch):
    generator = np.random.default_rng(0)
    texts, events = unit(generator, 20), Ragged.from_lists([[0, 3, 4, 7, 9, 12]])
    whole = TextNeighbours.fit(events, 20, texts)
    monkeypatch.setattr(text_neighbours, "SIMILARITIES_AT_ONCE", at_once)
    assert TextNeighbours.fit(events, 20, texts).weights.toarray() == pytest.approx(whole.weights.toarray(), abs=1e-6)


def clustered(generator, count, width=16):
    """Unit vectors about twenty middles."""
    middles = unit(generator, 20, width)[generator.integers(0, 20, count)]
    return normalise(middles + 0.2 * generator.normal(size=middles.shape))


def test_many_texts_are_looked_up_and_weigh_what_they_do_where_all_are_compared(monkeypatch):
    generator = np.random.default_rng(0)
    texts, events = clustered(generator, 2000), Ragged.from_lists([range(0, 2000, 2)])
    exact = TextNeighbours.fit(events, 2000, texts).weights.toarray()
    monkeypatch.setattr(text_neighbours, "MOST_SIMILARITIES", 10_000)
    for at_once in (2**24, 1000):
        monkeypatch.setattr(text_neighbours, "SIMILARITIES_AT_ONCE", at_once)
        found = TextNeighbours.fit(events, 2000, texts)
        weights = found.weights.toarray()
        same = [np.allclose(weights[item], exact[item], atol=1e-5) for item in np.flatnonzero(~found.has_events)]
        assert np.mean(same) > 0.9 and np.array_equal(weights[::2], exact[::2])
        assert weights.sum(1) == pytest.approx(np.ones(2000), abs=1e-5) and (weights[:, 1::2] == 0).all()


@pytest.mark.parametrize("looking", [7, 2**16])
@pytest.mark.parametrize("probed", [2, 1000])
def test_rows_that_are_looked_up_are_the_nearest_of_the_lists_that_are_looked_at(probed, looking, monkeypatch):
    """All of them where all lists are; and few at a time, or many, are the same."""
    generator = np.random.default_rng(1)
    others, vectors = clustered(generator, 500), clustered(generator, 60)
    monkeypatch.setattr(item_index, "NEAR_LISTS", probed)
    whole = item_index.near_rows(vectors, others, 20)
    monkeypatch.setattr(item_index, "LOOKING", looking)
    found = item_index.near_rows(vectors, others, 20)
    assert np.array_equal(found, whole) and found.shape == (60, 20)
    cosine = vectors @ others.T
    wanted = -np.sort(-cosine, axis=1)[:, :20]
    mine = np.where(found < 0, -np.inf, np.take_along_axis(cosine, found, 1))
    assert (mine[:, 1:] <= mine[:, :-1] + 1e-6).all() and (mine <= wanted + 1e-6).all()
    assert probed == 2 or np.allclose(mine, wanted, atol=1e-6)
    assert item_index.near_rows(vectors[:0], others, 20).shape == (0, 20)
    assert item_index.near_rows(vectors, others[:1], 20).tolist() == [[0]] * 60


def test_of_equal_texts_that_are_looked_up_the_first_are_borrowed_from(monkeypatch):
    texts = np.repeat(np.eye(4, dtype=np.float32), [3, 6, 9, 6], axis=0)
    events = Ragged.from_lists([range(0, 20)])
    exact = TextNeighbours.fit(events, 24, texts)
    monkeypatch.setattr(text_neighbours, "MOST_SIMILARITIES", 1)
    looked_up = TextNeighbours.fit(events, 24, texts)
    assert looked_up.weights.toarray() == pytest.approx(exact.weights.toarray())
    grown = looked_up.grown(np.zeros((2, 4), dtype=np.float32), texts)  # of a text that is like no other
    assert (grown.weights[24:].toarray() == 0).all()


def test_weights_add_up_to_one_and_never_go_to_items_without_events(found):
    weights = found.weights.toarray()
    assert weights.sum(1) == pytest.approx(np.ones(6)) and (weights >= 0).all()
    assert (weights[:, ~found.has_events] == 0).all() and not found.has_events[5]


def test_items_that_come_later_borrow_and_nothing_else_changes(found):
    new = np.array([KNOWN, [0, 0, 0, 0]], dtype=np.float32)  # the second of a text that nobody knows
    grown = found.grown(new, TEXTS)
    weights = grown.weights[[6]].toarray()[0]
    assert weights[1] == pytest.approx(1 / 1.6) and weights[4] == pytest.approx(0.6 / 1.6)
    assert (grown.weights[[7]].toarray() == 0).all()
    assert np.array_equal(grown.weights[:6].toarray(), found.weights.toarray())
    assert found.weights.shape == (6, 6) and len(found.has_events) == 6


def test_what_came_before_is_kept_when_more_comes(found):
    first = found.grown(np.array([KNOWN], dtype=np.float32), TEXTS)
    texts = np.vstack([TEXTS, np.array([KNOWN], dtype=np.float32)])
    second = first.grown(np.array([UNKNOWN], dtype=np.float32), texts)
    assert np.array_equal(second.weights[:7].toarray(), first.weights.toarray())
    assert second.weights[[7]].toarray()[0].tolist() == np.eye(6)[3].tolist()


def test_texts_that_change_move_items_without_events_only(found):
    grown = found.grown(np.array([KNOWN], dtype=np.float32), TEXTS)
    texts = np.vstack([TEXTS, np.array([KNOWN], dtype=np.float32)])
    moved = grown.changed(np.array([0, 6]), np.array([[0, 0, 1, 0]] * 2, dtype=np.float32), texts)
    assert moved.weights[[6]].toarray()[0, 2] == pytest.approx(1)
    assert moved.weights[[0]].toarray()[0].tolist() == [1, 0, 0, 0, 0, 0]  # what has events stands for itself
    assert np.array_equal(moved.weights[:6].toarray(), grown.weights[:6].toarray())
    assert grown.changed(np.array([0]), TEXTS[:1], texts) is grown


def test_without_texts_nothing_is_borrowed():
    found = TextNeighbours.fit(TRAIN, 6, None)
    assert (found.weights[[5]].toarray() == 0).all()
    assert (found.grown(TEXTS[:1], None).weights[[6]].toarray() == 0).all()


def test_where_nobody_has_events_nothing_is_borrowed():
    found = TextNeighbours.fit(Ragged.from_lists([[]]), 3, TEXTS[:3])
    assert found.weights.toarray().tolist() == np.zeros((3, 3)).tolist() and not found.has_events.any()


def test_it_comes_back_from_its_state(found, tmp_path):
    grown = found.grown(TEXTS[:1], TEXTS)
    grown.state().save(tmp_path / "state.safetensors")
    again = TextNeighbours.of_state(State.load(tmp_path / "state.safetensors"))
    assert np.array_equal(again.weights.toarray(), grown.weights.toarray()) and again.n_fitted == 6
    assert np.array_equal(again.has_events, grown.has_events) and again.has_events.dtype == bool
