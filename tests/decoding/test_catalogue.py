from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffgrm.ranking.catalogue as module
from diffgrm.data.dataset import Ragged
from diffgrm.ranking.catalogue import Catalogue, Excluded, code_words


def naive(codes, recommendable, known_codes, known, excluded):
    """[n, K] by looking at every item."""
    K = 4
    allowed = np.zeros((codes.shape[1], K), dtype=bool)
    for item, row in enumerate(codes):
        if recommendable[item] and item not in excluded and (row[known] == known_codes[known]).all():
            for digit in np.flatnonzero(~known):
                allowed[digit, row[digit]] = True
    return allowed


@pytest.mark.parametrize("shortcuts", ["all", "lists only", "single lists only"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_allowed_codes_are_those_of_matching_items(shortcuts, data):
    seed = data.draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    n, n_items = int(generator.integers(1, 5)), int(generator.integers(1, 40))
    codes = generator.integers(0, 4, (n_items, n))
    recommendable = generator.random(n_items) < 0.8
    seen = [generator.integers(0, n_items, generator.integers(0, 6)) for _ in range(3)]
    count = int(generator.integers(0, n))
    catalogue = Catalogue(torch.from_numpy(codes), 4).restricted(torch.from_numpy(recommendable))
    partial = torch.from_numpy(
        np.where(generator.random((3, 5, 1)) < 0.7, codes[generator.integers(0, n_items, (3, 5))], 3)
    )
    known = torch.zeros(3, 5, n, dtype=torch.bool)
    for b in range(3):
        for w in range(5):
            known[b, w, generator.permutation(n)[:count]] = True
    excluded = Excluded.from_ragged(Ragged.from_lists(seen), n_items) if data.draw(st.booleans()) else None
    with pytest.MonkeyPatch.context() as patch:
        if shortcuts != "all":
            patch.setattr(module, "PAIR_TABLE_LIMIT", 0)
        if shortcuts == "single lists only":
            patch.setattr(module, "PAIR_INDEX_DIGITS", 0)
        patch.setattr(module, "LIST_BLOCK", data.draw(st.sampled_from([3, 2**22])))
        allowed = catalogue.allowed(partial, known, excluded).numpy()
    for b in range(3):
        for w in range(5):
            away = set(seen[b].tolist()) if excluded is not None else set()
            wanted = naive(codes, recommendable, partial[b, w].numpy(), known[b, w].numpy(), away)
            assert (allowed[b, w] == wanted).all()


def test_items_of_complete_sids_with_sharing_and_exclusion():
    codes = torch.tensor([[0, 1], [2, 3], [0, 1], [3, 3]])
    catalogue = Catalogue(codes, 4)
    asked = torch.tensor([[[0, 1], [1, 1]], [[0, 1], [3, 3]]])
    assert catalogue.items_of(asked).tolist() == [[[0, 2], [-1, -1]], [[0, 2], [3, -1]]]
    excluded = Excluded.from_ragged(Ragged.from_lists([[2, 2], [3, 0]]), 4)
    assert catalogue.items_of(asked, excluded).tolist() == [[[0, -1], [-1, -1]], [[-1, 2], [-1, -1]]]


def test_possible_items_count_exclusions_once_and_only_inside_the_catalogue():
    catalogue = Catalogue(torch.tensor([[0], [1], [2]]), 4).restricted(torch.tensor([True, True, False]))
    excluded = Excluded.from_ragged(Ragged.from_lists([[0, 0], [2], [], [0, 1, 2]]), 3)
    assert catalogue.possible(excluded, 4).tolist() == [1, 2, 2, 0]
    assert catalogue.possible(None, 2).tolist() == [2, 2]


def test_restrictions_add_up():
    catalogue = Catalogue(torch.tensor([[0], [1], [2]]), 4)
    twice = catalogue.restricted(torch.tensor([True, True, False])).restricted(torch.tensor([False, True, True]))
    assert twice.items.tolist() == [1] and twice.n_items == 3


@pytest.mark.parametrize(("n", "size"), [(4, 256), (8, 256), (64, 1024), (3, 65536)])
def test_words_name_sets_of_digits(n, size):
    words = code_words(n, size)
    generator = np.random.default_rng(0)
    codes = generator.integers(0, min(size, 5), (4000, n))
    known = generator.random((4000, n)) < 0.5
    names = np.where(known, words.numpy()[np.arange(n), codes], 0).sum(1)
    sets = np.unique(np.where(known, codes, -1), axis=0)
    assert len(np.unique(names)) == len(sets)
