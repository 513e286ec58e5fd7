"""Scores of every two digits, against sums written out."""

from __future__ import annotations

import itertools

import pytest
import torch

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.digit_pairs import DigitPairs
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.item_table import ItemTable
from helpers.networks import SMALL, K, N, build, close, encode, features, histories, questions

CODES = torch.tensor(list(itertools.product(range(4), repeat=3)))


def test_an_item_is_the_sum_over_all_pairs_of_its_digits():
    torch.manual_seed(0)
    pairs = DigitPairs(3, 4, rank=5, width=8)
    first, second = pairs.first.view(2, 4, 5), pairs.second.view(2, 4, 5)  # of digits 0, 1 and of digits 1, 2
    for row, code in zip(pairs.of(CODES), CODES.tolist(), strict=True):
        wanted = sum(first[i, code[i]] * second[j - 1, code[j]] for i in range(3) for j in range(i + 1, 3))
        assert torch.allclose(row, wanted, atol=1e-6)
    assert pairs.of(CODES).std().item() == pytest.approx(1, abs=0.5)
    assert sum(p.numel() for p in pairs.parameters()) == 2 * 2 * 4 * 5 + 8 * 5 + 5


def test_a_user_says_what_each_of_the_numbers_counts_for():
    """By the state of the newest item; nothing at the start, when all but that state's map has no gradient yet."""
    torch.manual_seed(0)
    network = DiffGRM(N, K, **SMALL, pairwise_rank=4)
    memory = encode(network, *histories(5))
    scores = network.pair_users(memory)[:, 0] @ network.pair_vectors(features().codes).T
    assert not scores.any()
    scores.sum().backward()
    assert network.pairs.user.weight.grad.any() and not network.pairs.first.grad.any()
    with torch.no_grad():
        network.pairs.user.weight.normal_()
        network.pairs.user.bias.normal_()
    wanted = memory.newest() @ network.pairs.user.weight.T + network.pairs.user.bias
    assert close(network.pair_users(memory)[:, 0], wanted)


def test_rank_0_is_the_network_without_and_another_rank_changes_no_other_weight():
    plain, paired = build("diffgrm", **SMALL), build("diffgrm", **SMALL, pairwise_rank=4)
    assert plain.pairs is None and plain.pair_users(None) is None and plain.pair_vectors(None) is None
    assert ItemTable(plain, features()).pair_vectors is None
    own = {"pairs.first", "pairs.second", "pairs.user.weight", "pairs.user.bias"}
    assert paired.state_dict().keys() - plain.state_dict().keys() == own
    assert all(torch.equal(value, paired.state_dict()[key]) for key, value in plain.state_dict().items())
    ask, known = questions(4, 3), histories(4)
    assert torch.equal(plain.denoise(*ask, encode(plain, *known)), paired.denoise(*ask, encode(paired, *known)))


def test_items_are_looked_at_once_for_a_catalogue():
    network = build("diffgrm", **SMALL, pairwise_rank=4)
    table = ItemTable(network, ItemFeatures(features().codes))
    assert torch.equal(table.pair_vectors, network.pair_vectors(features().codes))
    assert table.pair_vectors is table.pair_vectors and not table.pair_vectors.requires_grad


def test_a_single_digit_has_no_pairs():
    with pytest.raises(RecipeError, match=r"model\.pairwise_rank = 4 scores pairs of digits, but a semantic ID has 1; set"):
        DiffGRM(1, K, **SMALL, pairwise_rank=4)
