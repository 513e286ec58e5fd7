from __future__ import annotations

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.ranking import catalogue as torch_catalogue
from diffgrm.runtime_onnx.numpy_catalogue import Catalogue, Excluded

USERS, BEAMS = 3, 5


def world(n_digits, codebook_size, seed):
    """Codes with repeats, of which some are not offered, and histories with repeats."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, codebook_size, (200, n_digits))
    histories = Ragged.from_lists([generator.integers(0, 200, size) for size in (1, 12, 40)])
    return codes, generator.random(200) < 0.7, histories, generator


@pytest.mark.parametrize(("n_digits", "codebook_size"), [(1, 16), (3, 4), (4, 8), (10, 4), (3, 2048)])
@pytest.mark.parametrize("seen", [False, True])
def test_it_says_what_the_torch_catalogue_says(n_digits, codebook_size, seen):
    codes, offered, histories, generator = world(n_digits, codebook_size, seed=n_digits)
    ours = Catalogue(codes, codebook_size, offered)
    theirs = torch_catalogue.Catalogue(torch.from_numpy(codes), codebook_size, torch.from_numpy(offered))
    excluded = Excluded(histories, len(codes)) if seen else None
    other = torch_catalogue.Excluded.from_ragged(histories, len(codes)) if seen else None
    for count in range(n_digits):
        partial = codes[generator.integers(0, len(codes), (USERS, BEAMS))]
        known = np.argsort(generator.random(partial.shape), axis=2) < count
        wanted = theirs.allowed(torch.from_numpy(partial), torch.from_numpy(known), other).numpy()
        assert np.array_equal(ours.allowed(partial, known, excluded), wanted)
    assert np.array_equal(ours.possible(excluded, USERS), theirs.possible(other, USERS).numpy())
    complete = codes[generator.integers(0, len(codes), (USERS, BEAMS))]
    names = ours.words[np.arange(n_digits), complete].sum(-1)
    assert np.array_equal(ours.items_of(names, excluded), theirs.items_of(torch.from_numpy(complete), other).numpy())
    if seen:
        chosen = np.array([2, 0])
        again = excluded.rows(chosen)
        assert np.array_equal(ours.possible(again, 2), ours.possible(excluded, USERS)[chosen])
