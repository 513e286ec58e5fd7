from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.ranking.best_of_tensor import best_of_tensor
from diffgrm.ranking.query import Hidden, best_of_array


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 14),
    st.sampled_from([2, 5, 10**6]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_it_gives_what_the_best_of_an_array_are(seed, users, items, k, values, offset, candidates, left_out):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, values, (users, items)).astype(np.float32)  # of few values most are ties
    hidden = Hidden(
        generator.integers(0, 2, items).astype(np.float32) if offset else None,
        generator.random(items) < 0.6 if candidates else None,
        *(generator.integers(0, size, 3 if left_out else 0) for size in (users, items)),
    )
    wanted, best = best_of_array(scores.copy(), k, hidden)
    found, told = best_of_tensor(torch.from_numpy(scores.copy()), k, hidden)
    assert np.array_equal(told, best)
    assert np.array_equal(found[best > -np.inf], wanted[best > -np.inf])


@pytest.mark.parametrize("k", [3, 5, 9])
def test_all_items_and_more_may_be_asked_for(k):
    scores = torch.tensor([[1.0, 3.0, 1.0, 3.0, 2.0]])
    found, told = best_of_tensor(scores, k, Hidden(None, None, *np.empty((2, 0), dtype=np.int64)))
    assert found.tolist() == [[1, 3, 4, 0, 2][:k]] and told.tolist() == [[3.0, 3.0, 2.0, 1.0, 1.0][:k]]
