"""The k best of many scores, against a whole sort, with many ties."""

from __future__ import annotations

import numpy as np
import pytest

from diffgrm.foundation.top_k import best_places


@pytest.mark.parametrize("values", [1, 2, 4, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_best_places_are_the_head_of_the_whole_order_whatever_k_is(values, dtype):
    scores = np.random.default_rng(values).integers(0, values, (60, 37)).astype(dtype)
    scores[::7, ::3] = -np.inf
    whole = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 2, 5, 10, 36, 37, 50):
        assert np.array_equal(best_places(scores, k), whole[:, :k])


def test_no_rows_and_one_column():
    assert best_places(np.zeros((0, 5)), 3).shape == (0, 3) and best_places(np.zeros((2, 1)), 4).tolist() == [[0], [0]]


@pytest.mark.parametrize("count", [7, 200, 700, 1000])
def test_equal_scores_stand_in_order_of_place(count):
    scores = np.random.default_rng(0).integers(0, 1000, (20, 700)).astype(np.float32)
    scores[:, ::7] = 1000 + (np.arange(700)[::7] % 2)  # a hundred at the top, of two scores
    assert np.array_equal(best_places(scores, count), np.argsort(-scores, axis=1, kind="stable")[:, :count])
