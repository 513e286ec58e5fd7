from __future__ import annotations

import numpy as np
import pytest

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.item_scoring.base import ScoredItems, Users
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrenceScorer
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.ranking.neighbours import ItemKNN
from helpers.item_scores import TEXTS, TRAIN

HISTORIES = Ragged.from_lists([[0], [3, 1], [5], [2]])


@pytest.fixture
def found():
    return CoOccurrenceScorer().fit(TRAIN, 6)


@pytest.fixture
def neighbours():
    return TextNeighbours.fit(TRAIN, 6, TEXTS)


def scores(scorer, neighbours):
    return scorer.scores(Users(np.zeros((4, 1)), HISTORIES), ScoredItems(None, neighbours))


def test_items_with_events_score_as_item_knn_does(found, neighbours):
    knn = ItemKNN()
    wanted = knn.scores(HISTORIES, knn.fit(TRAIN, 6))
    said = scores(found, neighbours)
    for row in (0, 1, 3):
        ours, theirs = said[row, :5], wanted[row, :5]
        assert ours / ours.max() == pytest.approx(theirs / theirs.max(), rel=1e-5)
    assert said.min() >= 0 and said.max(axis=1).tolist() == pytest.approx([1] * 4)


def test_settings_are_those_of_item_knn(neighbours):
    settings = {"neighbours": 1, "shrink": 3.0, "last": 1, "decay": 0.5}
    knn = ItemKNN(**settings)
    wanted = knn.scores(HISTORIES, knn.fit(TRAIN, 6))
    said = scores(CoOccurrenceScorer(**settings).fit(TRAIN, 6), TextNeighbours.fit(TRAIN, 6, None))
    for row in (0, 1, 3):
        assert said[row, :5] == pytest.approx(wanted[row, :5] / wanted[row, :5].max(), rel=1e-5)


def test_an_item_without_events_goes_with_what_its_neighbour_by_text_goes_with(found, neighbours):
    said = scores(found, neighbours)
    assert said[0, 5] == pytest.approx(said[0, 2])  # by text it is item 2
    assert said[1, 5] == pytest.approx(said[1, 2])
    assert said[3, 5] == pytest.approx(1)  # and goes with item 2 itself as its best neighbour does
    assert np.argmax(said[2, :5]) == np.argmax(said[3, :5])  # and stands for it in histories


def test_without_texts_nothing_is_borrowed(found):
    said = scores(found, TextNeighbours.fit(TRAIN, 6, None))
    assert (said[:, 5] == 0).all() and (said[2] == 0).all()


def test_items_that_come_later_borrow_and_nothing_else_changes(found, neighbours):
    new = np.array([[0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32)  # as item 1; a text nobody knows
    grown = neighbours.grown(new, TEXTS)
    before, after = scores(found, neighbours), scores(found, grown)
    assert after.shape == (4, 8)
    assert (after[:, 7] == 0).all() and after[0, 6] > 0
    assert after[3, :6] == pytest.approx(before[3])
    assert scores(found, grown.grown(new[:1], None))[:, 8].tolist() == [0] * 4


def test_it_comes_back_from_its_state(found, neighbours):
    grown = neighbours.grown(TEXTS[:1], TEXTS)
    again = CoOccurrenceScorer().load_state(found.state())
    assert np.array_equal(scores(again, grown), scores(found, grown))
