from __future__ import annotations

import numpy as np
import pytest

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrence
from diffgrm.ranking.neighbours import ItemKNN

TRAIN = Ragged.from_lists([[0, 1, 2], [0, 1], [1, 2, 3], [3, 4], [0, 1, 4]])  # nobody meets item 5
TEXTS = np.eye(6, 4, dtype=np.float32)
TEXTS[4] = [0.8, 0.6, 0, 0]
TEXTS[5] = [0, 0, 1, 0]  # as item 2
HISTORIES = Ragged.from_lists([[0], [3, 1], [5], [2]])


@pytest.fixture
def found():
    return CoOccurrence.fit(TRAIN, 6, TEXTS)


def test_items_with_events_score_as_item_knn_does(found):
    knn = ItemKNN()
    wanted = knn.scores(HISTORIES, knn.fit(TRAIN, 6))
    scores = found.scores(HISTORIES)
    for row in (0, 1, 3):
        ours, theirs = scores[row, :5], wanted[row, :5]
        assert ours / ours.max() == pytest.approx(theirs / theirs.max(), rel=1e-5)
    assert scores.min() >= 0 and scores.max(axis=1).tolist() == pytest.approx([1] * 4)


def test_an_item_without_events_goes_with_what_its_lender_goes_with(found):
    scores = found.scores(HISTORIES)
    assert scores[0, 5] == pytest.approx(scores[0, 2])  # by text it is item 2
    assert scores[1, 5] == pytest.approx(scores[1, 2])
    assert scores[3, 5] == pytest.approx(1)  # and goes with item 2 itself as its best neighbour does
    assert np.argmax(scores[2, :5]) == np.argmax(scores[3, :5])  # and stands for it in histories


def test_without_texts_nothing_is_lent():
    scores = CoOccurrence.fit(TRAIN, 6, None).scores(HISTORIES)
    assert (scores[:, 5] == 0).all() and (scores[2] == 0).all()


def test_items_that_come_later_borrow_and_nothing_else_changes(found):
    new = np.array([[0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32)  # as item 1; a text nobody knows
    grown = found.grown(new, TEXTS)
    before, after = found.scores(HISTORIES), grown.scores(HISTORIES)
    assert after.shape == (4, 8)
    lenders = grown.lenders[[6]].toarray()[0]
    assert lenders[1] == pytest.approx(1 / 1.6) and lenders[4] == pytest.approx(0.6 / 1.6)
    assert (after[:, 7] == 0).all() and after[0, 6] > 0
    assert after[3, :6] == pytest.approx(before[3])
    moved = grown.lent(np.array([0, 6]), np.array([[0, 0, 1, 0]] * 2, dtype=np.float32), np.vstack([TEXTS, new]))
    assert moved.lenders[[6]].toarray()[0, 2] == pytest.approx(1)
    assert moved.lenders[[0]].toarray()[0].tolist() == [1, 0, 0, 0, 0, 0]  # what has events lends to itself
    assert grown.grown(new[:1], None).scores(HISTORIES)[:, 8].tolist() == [0] * 4


def test_it_comes_back_from_its_state(found):
    grown = found.grown(TEXTS[:1], TEXTS)
    again = CoOccurrence.of_state(grown.state())
    assert np.array_equal(again.scores(HISTORIES), grown.scores(HISTORIES))
