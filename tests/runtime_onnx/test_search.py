from __future__ import annotations

import numpy as np
import pytest

from diffgrm.runtime_onnx.search import best_of


@pytest.mark.parametrize("count", [7, 200, 700, 1000])
def test_equal_scores_stand_in_order_of_place(count):
    scores = np.random.default_rng(0).integers(0, 1000, (20, 700)).astype(np.float32)
    scores[:, ::7] = 1000 + (np.arange(700)[::7] % 2)  # a hundred at the top, of two scores
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    found = best_of(scores, count)
    assert found.shape == wanted.shape
    assert np.take_along_axis(scores, found, 1).tolist() == np.take_along_axis(scores, wanted, 1).tolist()
    if count >= 100:  # none of those that tie is cut off
        assert found[:, :100].tolist() == wanted[:, :100].tolist()
