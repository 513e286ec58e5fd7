from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from diffgrm.foundation.sparse import product_of_few


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
