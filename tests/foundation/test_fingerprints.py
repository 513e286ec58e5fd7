from __future__ import annotations

import numpy as np
import pytest

from diffgrm.foundation import fingerprints as module
from diffgrm.foundation.fingerprints import fingerprints


@pytest.mark.parametrize("hashed", [3, 2**16])
def test_rows_have_one_number_where_they_are_equal_only(hashed, monkeypatch):
    vectors = np.random.default_rng(0).integers(-1, 2, (500, 6)).astype(np.float32)
    vectors[vectors == 0] *= np.random.default_rng(1).choice([-1, 1], (vectors == 0).sum())  # 0 and -0 are equal
    whole = fingerprints(vectors)
    monkeypatch.setattr(module, "HASHED", hashed)
    _, wanted = np.unique(vectors + 0, axis=0, return_inverse=True)
    _, found = np.unique(fingerprints(vectors), return_inverse=True)
    assert len(np.unique(np.stack([wanted.ravel(), found]), axis=1).T) == wanted.max() + 1 == found.max() + 1
    some = np.array([7, 3, 499, 7])
    assert fingerprints(vectors, some).tolist() == whole[some].tolist()
    assert fingerprints(vectors[:0]).tolist() == []
