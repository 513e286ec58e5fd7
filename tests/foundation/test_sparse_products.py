from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

from diffgrm.foundation import sparse
from diffgrm.foundation.sparse import largest_of_rows, product_of_few


@pytest.mark.parametrize(("users", "items", "others"), [(1, 7, 5), (6, 40, 30), (3, 5, 1), (0, 4, 4)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_the_product_of_few_rows_is_the_product(users, items, others, density):
    draw = np.random.default_rng(0)
    rows, matrix = (
        sp.csr_array(np.where(draw.random(shape) < density, draw.normal(size=shape), 0))
        for shape in ((users, items), (items, others))
    )
    found = product_of_few(rows, matrix)
    assert found.shape == (users, others) and found.has_canonical_format
    assert found.toarray() == pytest.approx(rows.toarray() @ matrix.toarray())


def test_rows_that_name_a_column_twice_count_it_twice():
    rows = sp.csr_array((np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2])), shape=(1, 3))
    matrix = sp.csr_array(np.arange(6.0).reshape(3, 2))
    assert product_of_few(rows, matrix).toarray().tolist() == [[6.0, 9.0]]


def test_types_are_those_of_the_product():
    rows, matrix = sp.csr_array(np.ones((1, 2))), sp.csr_array(np.ones((2, 2), dtype=np.float32))
    assert product_of_few(rows, matrix).dtype == (rows @ matrix).dtype


@pytest.mark.parametrize("at_once", [1, 30, 2**22])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_the_largest_of_rows_are_those_of_a_sort_and_of_equal_ones_the_first(count, at_once, monkeypatch):
    """However many numbers are compared at once; a few values, so that many are equal."""
    monkeypatch.setattr(sparse, "AT_ONCE", at_once)
    generator = np.random.default_rng(0)
    lengths = np.concatenate([[0, 1], generator.integers(0, 40, 30), [0]])
    starts = np.concatenate([[0], lengths.cumsum()])
    values = generator.integers(0, 6, starts[-1]) / 3
    found = largest_of_rows(values, starts, count)
    for first, last in pairwise(starts):
        best = np.argsort(-values[first:last], kind="stable")[:count]
        assert np.flatnonzero(found[first:last]).tolist() == sorted(best)


def test_the_numbers_compared_at_once_are_bounded_by_one_row(monkeypatch):
    sizes, partition = [], np.partition
    monkeypatch.setattr(sparse, "AT_ONCE", 100)
    monkeypatch.setattr(
        np, "partition", lambda array, *rest, **more: sizes.append(array.size) or partition(array, *rest, **more)
    )
    starts = np.concatenate([[0], np.cumsum([20] * 30 + [150])])
    assert largest_of_rows(np.arange(starts[-1]), starts, 5).sum() == 31 * 5
    assert sizes[0] == 150 and max(sizes[1:]) <= 100 and len(sizes) == 1 + 30 // 5
