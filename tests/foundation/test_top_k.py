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
