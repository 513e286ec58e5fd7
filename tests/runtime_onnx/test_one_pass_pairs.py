"""One pass with scores of pairs of digits: both runtimes give the same lists; what does not go together is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.ranking import catalogue as in_torch
from diffgrm.ranking.decoding import base
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.runtime_onnx import numpy_catalogue as in_numpy
from diffgrm.runtime_onnx import one_pass as by_numpy
from diffgrm.runtime_onnx import search

USERS, ITEMS, N, K, RANK = 3, 40, 3, 4, 2
DRAWN = np.random.default_rng(0)
CODES, LOGITS = DRAWN.integers(0, K, (ITEMS, N)), DRAWN.normal(size=(USERS, 1, N, K)).astype(np.float32)
OF_USERS, OF_ITEMS = (DRAWN.normal(size=(count, RANK)).astype(np.float32) for count in (USERS, ITEMS))
_, FIRST = np.unique(CODES, axis=0, return_index=True)
SEEN = Ragged.from_lists([[0, 3], [], [5]])


class Memory(SimpleNamespace):
    def __len__(self):
        return USERS


def of_sids():
    """[I, r] equal for items of one semantic ID, as sums over its digits are."""
    _, place = np.unique(CODES, axis=0, return_inverse=True)
    return OF_ITEMS[FIRST[place]]


def ranked(items, users=OF_USERS):
    network = SimpleNamespace(denoise=lambda *_: LOGITS)
    catalogue = in_numpy.Catalogue(CODES, K, np.arange(ITEMS) % 5 > 0)
    task = search.Task(network, Memory(pairs=users), catalogue, 8, in_numpy.Excluded(SEEN, ITEMS))
    return by_numpy.OnePass(0.0, items).decode(task, SEEN)


@pytest.mark.parametrize("block", [7, 2**16])
def test_both_runtimes_give_the_same_lists(block, monkeypatch):
    monkeypatch.setattr(by_numpy, "BLOCK", block)
    catalogue = in_torch.Catalogue(torch.from_numpy(CODES), K, torch.arange(ITEMS) % 5 > 0)
    pairs = base.PairScores(torch.from_numpy(OF_USERS), torch.from_numpy(of_sids()))
    excluded = in_torch.Excluded.from_ragged(SEEN, ITEMS)
    task = base.Task(
        lambda *_: torch.from_numpy(LOGITS), range(USERS), catalogue, 8, excluded, torch.zeros(USERS).long(), pairs=pairs
    )
    wanted, found = OnePass().decode(task), ranked(of_sids())
    assert np.array_equal(found[0], wanted.items.numpy()) and np.allclose(found[1], wanted.scores.numpy(), atol=1e-5)
    assert not np.array_equal(found[0], ranked(None, None)[0])


@pytest.mark.parametrize(("items", "users"), [(None, OF_USERS), (OF_ITEMS, None), (OF_ITEMS[:, :1], OF_USERS)])
def test_users_and_items_that_do_not_go_together_are_refused(items, users):
    with pytest.raises(ModelFolderError, match=r"pairs of digits do not go together: items have .*; export the"):
        ranked(items, users)
