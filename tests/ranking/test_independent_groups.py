"""Groups of independent digits, in worlds where it is known which are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.base import Task
from diffgrm.ranking.decoding.independent_groups import IndependentGroups
from helpers.tiny_catalogues import rank

K = 3


class Blocks:
    """Digits of a block are copies of each other, blocks are independent; counts how often it is asked."""

    def __init__(self, n, size):
        self.block, self.calls = torch.arange(n) // size, 0
        generator = torch.Generator().manual_seed(n + size)
        self.prior = torch.randn(n // size, K, generator=generator)[self.block]  # [n, K]

    def denoise(self, codes, mask, memory):
        self.calls += 1
        logits = self.prior.expand(*mask.shape, K).clone()
        for digit, block in enumerate(self.block.tolist()):
            for other in (self.block == block).nonzero()[:, 0].tolist():
                told = torch.nn.functional.one_hot(codes[..., other], K) * 30.0
                logits[..., digit, :] = torch.where(mask[..., other, None], logits[..., digit, :], told)
        return logits * mask[..., None]

    def consistent(self, codes):
        return all(len({codes[j] for j in (self.block == b).nonzero()[:, 0]}) == 1 for b in set(self.block.tolist()))

    def decoded(self, decoder, codes, k):
        seeds = torch.zeros(1, dtype=torch.long)
        found = decoder.decode(Task(self.denoise, torch.zeros(1, 1), Catalogue(codes, K), k, None, seeds))
        return found, [self.consistent(codes[item].tolist()) for item in found.items[0].tolist()]


EVERYTHING = torch.tensor(list(itertools.product(range(K), repeat=4)))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_copies_are_never_filled_apart(size):
    """Consistent SIDs come first, and one answer for all digits at once would not see to it."""
    world = Blocks(4, size)
    many = K ** (4 // size)  # consistent SIDs
    _, good = world.decoded(IndependentGroups(beam=200), EVERYTHING, many)
    assert all(good)
    _, blind = world.decoded(AnyOrderBeam(beam=200, steps=1), EVERYTHING, many)
    assert all(blind) == (size == 1)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_score_is_the_true_log_probability(size):
    world = Blocks(4, size)
    found, _ = world.decoded(IndependentGroups(beam=200), EVERYTHING, 1)
    best = world.prior.log_softmax(-1).amax(-1)[::size].sum()  # one digit of each block
    assert found.scores[0, 0].item() == pytest.approx(best.item(), abs=1e-4)


@pytest.mark.parametrize("n", [4, 16, 64])
def test_it_asks_logarithmically_often(n):
    codes = torch.randint(0, K, (50, n), generator=torch.Generator().manual_seed(0))
    for size, most in ((1, 1 + math.log2(n)), (2, 2 + 2 * math.log2(n))):
        world = Blocks(n, size)
        consistent = codes[:, world.block * size]
        _, good = world.decoded(IndependentGroups(beam=4), consistent, 1)
        assert all(good) and world.calls <= most


class Pair:
    """Two digits of two codes that depend on each other by half; counts how often it is asked."""

    first, second = torch.tensor([0.55, 0.45]), torch.tensor([[0.05, 0.95], [0.99, 0.01]])  # second: given each first

    def __init__(self):
        self.calls = 0

    def denoise(self, codes, mask, memory):
        self.calls += 1
        joint = self.first[:, None] * self.second
        of_first = torch.where(mask[..., 1, None], joint.sum(1), (joint / joint.sum(0)).T[codes[..., 1]])
        of_second = torch.where(mask[..., 0, None], joint.sum(0), self.second[codes[..., 0]])
        return torch.stack([of_first, of_second], -2).log()


@pytest.mark.parametrize(("tolerance", "calls"), [(0.44, 3), (0.6, 3), (0.75, 3), (0.755, 2), (1.0, 2)])
def test_digits_are_filled_together_while_their_divergence_is_within_the_tolerance(tolerance, calls):
    """KL(before || after): of .473, .527 against .05, .95, .7523 nats; the other way round it would be .4475."""
    before, after = np.array([0.473, 0.527]), np.array([0.05, 0.95])
    assert (before * np.log(before / after)).sum() == pytest.approx(0.7523, abs=1e-4)
    assert (after * np.log(after / before)).sum() == pytest.approx(0.4475, abs=1e-4)
    world, codes = Pair(), torch.tensor(list(itertools.product(range(2), repeat=2)))
    decoder = IndependentGroups(beam=1, tolerance=tolerance)
    decoder.decode(Task(world.denoise, torch.zeros(1, 1), Catalogue(codes, 2), 1, None, torch.zeros(1, dtype=torch.long)))
    assert world.calls == calls  # a trial, and one step or two


class Chain:
    """Four digits of two codes, the first the surest and so on; digit 1 turns with digit 0, and digit 3 with digit 1."""

    def __init__(self):
        self.known = []  # digits that were filled in at each question

    def denoise(self, codes, mask, memory):
        self.known.append(set((~mask[0, 0]).nonzero()[:, 0].tolist()))
        logits = torch.tensor([4.0, 3.0, 2.0, 1.0]).expand(mask.shape)
        turned = torch.stack([mask[..., 0] & False, ~mask[..., 0], mask[..., 0] & False, ~mask[..., 1]], -1)
        logits = torch.where(turned, -logits, logits)
        return torch.stack([logits, torch.zeros_like(logits)], -1)


def test_a_digit_that_has_left_the_group_is_not_filled_in_on_later_trials():
    """Places of the numbers 0 to 3 from the lowest: {0, 2} on trial drives 1 out; {0}, not {0, 1}, leaves 2 and 3 in."""
    world, codes = Chain(), torch.tensor(list(itertools.product(range(2), repeat=4)))
    decoder = IndependentGroups(beam=1, tolerance=0.1)
    decoder.decode(Task(world.denoise, torch.zeros(1, 1), Catalogue(codes, 2), 1, None, torch.zeros(1, dtype=torch.long)))
    assert world.known == [set(), {0, 2}, {0}, {0, 2, 3}]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiffGRM(3, 4, width=32, heads=2)


def same(found, wanted):
    return np.array_equal(found[0], wanted[0]) and np.allclose(found[1], wanted[1], atol=1e-5)


@pytest.mark.parametrize("merge", ["best_path", "sum_paths"])
def test_with_every_tolerance_it_is_one_step(network, merge):
    found = rank(network, IndependentGroups(beam=16, tolerance=1e9, merge=merge))
    assert same(found, rank(network, AnyOrderBeam(beam=16, steps=1, merge=merge)))


def test_with_none_and_digits_that_depend_on_each_other_it_is_step_by_step(network):
    """Of one beam; of several, all fill the digit that is surest in the best."""
    found = rank(network, IndependentGroups(beam=1, tolerance=0), k=1)
    assert same(found, rank(network, AnyOrderBeam(beam=1), k=1))
    asked, whole = [], network.denoise

    def denoise(codes, mask, memory):
        asked.append((mask.shape[1], mask[0].sum(-1).unique().tolist()))
        return whole(codes, mask, memory)

    network.denoise = denoise
    rank(network, IndependentGroups(beam=16, tolerance=0), exclude_seen=False)
    del network.denoise
    assert {tuple(left) for _, left in asked} == {(1,), (2,), (3,)}
