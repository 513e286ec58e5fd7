from __future__ import annotations

import numpy as np
import pytest

from diffgrm.data import mapped
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError
from diffgrm.ranking import neighbours
from diffgrm.ranking.neighbours import ItemKNN, TextKNN
from diffgrm.recommenders.neighbours import ItemKNNRecommender, TextKNNRecommender

TRAIN = Ragged.from_lists([[0, 1, 2], [0, 1, 1], [1, 2], [3], []])


def test_similarity_is_the_shrunk_cosine_of_who_met_what():
    found = ItemKNN(shrink=0).fit(TRAIN, 5).toarray()
    assert found[0, 1] == pytest.approx(2 / np.sqrt(2 * 3)) and found[1, 2] == pytest.approx(2 / np.sqrt(3 * 2))
    assert found[0, 2] == pytest.approx(1 / 2)
    assert (np.diag(found) == 0).all() and (found[3:] == 0).all() and np.allclose(found, found.T)
    assert ItemKNN(shrink=2).fit(TRAIN, 5).toarray()[0, 1] == pytest.approx(2 / (np.sqrt(6) + 2))


def test_only_the_best_neighbours_are_kept():
    found = ItemKNN(shrink=0, neighbours=1).fit(TRAIN, 5).toarray()
    assert (found > 0).sum(1).max() == 1 and found[0, 1] > 0 and found[0, 2] == 0


def test_of_neighbours_that_are_equally_near_the_first_are_kept():
    train = Ragged.from_lists([[0, 1], [0, 2], [0, 3], [0, 4], [0, 4]])
    assert ItemKNN(shrink=0, neighbours=3).fit(train, 5)[[0]].indices.tolist() == [1, 2, 4]


@pytest.mark.parametrize("at_once", [1, 40, 300])
def test_how_many_pairs_are_sorted_at_once_changes_nothing(at_once, monkeypatch):
    generator = np.random.default_rng(0)
    train = Ragged.from_lists([generator.integers(0, 50, size) for size in generator.integers(0, 12, 60)])
    whole = ItemKNN(neighbours=5).fit(train, 53)
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", at_once)
    monkeypatch.setattr(mapped, "BLOCK", at_once)  # and how many events are counted at once neither
    found = ItemKNN(neighbours=5).fit(train, 53)
    assert all(np.array_equal(getattr(found, part), getattr(whole, part)) for part in ("data", "indices", "indptr"))


def test_recent_items_count_more():
    model = ItemKNN(shrink=0, decay=0.5)
    similarity = model.fit(TRAIN, 5)
    scores = model.scores(Ragged.from_lists([[3, 0], [0, 3], [0, 2]]), similarity)
    assert np.allclose(scores[0], similarity.toarray()[0]) and np.allclose(scores[1], 0.5 * similarity.toarray()[0])
    assert np.allclose(scores[2], 0.5 * similarity.toarray()[0] + similarity.toarray()[2])


def test_text_neighbours_are_those_of_the_weighted_history():
    vectors = np.eye(3, dtype=np.float32)
    scores = TextKNN(last=2, decay=0.5).scores(Ragged.from_lists([[2, 0, 1]]), vectors)
    assert np.allclose(scores, [[1 / 3, 2 / 3, 0]])


@pytest.mark.parametrize(
    ("recommender", "model", "missing"),
    [
        (ItemKNNRecommender, "text_knn", "fit"),
        (ItemKNNRecommender, "sasrec", "fit, scores"),
        (TextKNNRecommender, "sasrec", "scores"),
    ],
)
def test_a_model_that_knows_no_neighbours_is_refused(recommender, model, missing):
    recipe = Recipe(recommender=recommender.name, model=model)
    with pytest.raises(RecipeError, match=f"'{model}' has no {missing}; leave model.name out"):
        recommender(recipe).new_parts()
