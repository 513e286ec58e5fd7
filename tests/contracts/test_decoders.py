"""What every decoder must do."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import names, resolve
from diffgrm.foundation.schema import DiffGRMError
from diffgrm.networks.autoregressive import Autoregressive
from diffgrm.networks.contracts import lacks
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.epic import Epic
from diffgrm.ranking.catalogue import Catalogue
from helpers.networks import begin
from helpers.tiny_catalogues import scoring_ranker

ALL = pytest.mark.parametrize("name", names("decoding"))
GENERATOR = np.random.default_rng(3)
CODES = torch.from_numpy(GENERATOR.permutation(np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3))[:50])
HISTORIES = Ragged.from_lists([GENERATOR.integers(0, 50, size) for size in (1, 4, 12, 2)])


@pytest.fixture(scope="module")
def network():
    """By the function that a decoder asks of it."""
    torch.manual_seed(1)
    denoising = DiffGRM(3, 4, width=16, heads=2)
    steered = Epic(3, 4, n_items=50, frozen=denoising, width=8, candidates=16)
    begin(steered)
    return {"denoise": denoising, "next_digit": Autoregressive(3, 4, width=16, heads=2), "steered": steered}


def ranker(network, name, catalogue):
    decoder = resolve("decoding", name)()
    return scoring_ranker(network[decoder.asks], decoder, catalogue)


def rank(network, name, histories=HISTORIES, k=6, exclude_seen=True, allowed=None):
    return ranker(network, name, Catalogue(CODES, 4, allowed)).rank(histories, k, exclude_seen)


@ALL
def test_it_needs_what_it_asks_for(network, name):
    """What a decoder calls is among the methods of what it says that it needs."""
    decoder = resolve("decoding", name)
    methods = {method for need in decoder.needs for method in lacks(object, need)}
    assert decoder.asks in methods and decoder.uses_item_scores == ("user_vectors" in methods)
    assert decoder.uses_code_tables == ("code_tables" in methods)
    assert not any(lacks(type(network[decoder.asks]), need) for need in decoder.needs)


@ALL
def test_items_are_real_distinct_and_unseen(network, name):
    items, scores = rank(network, name)
    for row, history in enumerate(HISTORIES[i] for i in range(len(HISTORIES))):
        assert len(set(items[row])) == 6 and items[row].min() >= 0 and items[row].max() < 50
        assert not set(items[row]) & set(history)
        assert (np.diff(scores[row]) <= 1e-6).all() and np.isfinite(scores[row]).all()


@ALL
def test_seen_items_come_back_when_asked_for(network, name):
    items, _ = rank(network, name, k=50, exclude_seen=False)
    assert all(sorted(row) == list(range(50)) for row in items)


@ALL
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_items_forbidden_one_by_one_are_those_of_a_smaller_catalogue(network, name, exclude_seen):
    allowed = torch.ones(50, dtype=torch.bool)
    allowed[[3, 8, 9, 40]] = False
    items, scores = rank(network, name, k=46, exclude_seen=exclude_seen, allowed=allowed)
    whole = ranker(network, name, Catalogue(CODES, 4))
    same, same_scores = whole.rank(HISTORIES, 46, exclude_seen, without=np.array([3, 8, 9, 40]))
    np.testing.assert_array_equal(items, same)
    np.testing.assert_allclose(scores, same_scores, atol=1e-5)


@ALL
def test_fewer_possible_items_give_fewer(network, name):
    allowed = torch.zeros(50, dtype=torch.bool)
    allowed[[1, 7]] = True
    items, scores = rank(network, name, exclude_seen=False, allowed=allowed)
    assert all(set(row[:2]) == {1, 7} and (row[2:] == -1).all() for row in items)
    assert np.isneginf(scores[:, 2:]).all()


@ALL
def test_one_history_or_many_give_the_same_answer(network, name):
    items, scores = rank(network, name)
    for row in range(len(HISTORIES)):
        alone, alone_scores = rank(network, name, HISTORIES.rows(np.array([row])))
        assert (alone[0] == items[row]).all() and np.allclose(alone_scores[0], scores[row], atol=1e-5)


@ALL
def test_a_network_without_numbers_gives_no_lists_but_an_error(network, name):
    lost = {asks: copy.deepcopy(asked) for asks, asked in network.items()}
    with torch.no_grad():
        for parameter in lost[resolve("decoding", name).asks].parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(DiffGRMError, match="no list can be made of"):
        rank(lost, name)


@ALL
def test_the_global_random_state_and_the_mode_of_the_network_are_left_alone(network, name):
    asked = network[resolve("decoding", name).asks].train()
    state = torch.random.get_rng_state()
    rank(network, name)
    assert (torch.random.get_rng_state() == state).all() and asked.training


@ALL
def test_the_sids_behind_the_items_are_distinct_even_where_items_share_them(network, name):
    shared = CODES[torch.from_numpy(GENERATOR.integers(0, 50, 70))]
    for codes in (CODES, shared):
        for _, decoded in ranker(network, name, Catalogue(codes, 4)).decode(HISTORIES, 6, exclude_seen=True):
            for row in range(len(decoded.items)):
                live = decoded.sid_scores[row] > -torch.inf
                sids = decoded.codes[row][live].tolist()
                assert len({tuple(s) for s in sids}) == len(sids) > 0
                assert (decoded.sid_scores[row][live].diff() <= 1e-6).all()
            assert (decoded.items >= 0).all()
