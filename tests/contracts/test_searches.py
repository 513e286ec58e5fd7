"""The any-order searches of both runtimes give the same lists, and those of looking at every item if nothing is pruned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.data.dataset import Ragged
from diffgrm.ranking import catalogue as in_torch
from diffgrm.ranking.decoding import base
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.exhaustive import Exhaustive
from diffgrm.runtime_onnx import numpy_catalogue as in_numpy
from diffgrm.runtime_onnx import search

USERS, WIDE = 3, 600  # so wide that nothing is pruned
ORDERS = pytest.mark.parametrize("order", ["confidence", "fixed"])
SIZES = pytest.mark.parametrize(("n", "codebook_size"), [(1, 16), (3, 4), (5, 3)])
EXCLUDED = pytest.mark.parametrize("excluded", [False, True])


class Users:
    """A memory that only knows who its users are."""

    def __init__(self, numbers):
        self.numbers = np.asarray(numbers)

    def __len__(self):
        return len(self.numbers)

    def rows(self, chosen):
        return Users(self.numbers[np.asarray(chosen)])


class World:
    """Items, of which some share a SID and some are not recommendable, what users have seen, and a random network."""

    def __init__(self, n, codebook_size, excluded, seed=0, items=30):
        generator = np.random.default_rng(seed)
        self.n, self.codebook_size = n, codebook_size
        self.codes = generator.integers(0, codebook_size, (items, n))
        self.recommendable = generator.random(items) < 0.9
        self.recommendable[0] = True
        histories = Ragged.from_lists([generator.integers(0, items, size) for size in (1, 4, 12)])
        self.seen = histories if excluded else None
        states = USERS * (codebook_size + 1) ** n
        self.logits = generator.normal(size=(states, n, codebook_size)).astype(np.float32) * 2

    def denoise(self, codes, mask, memory):
        """Logits [B, Q, n, K], fixed for each user and set of known digits."""
        radix = (self.codebook_size + 1) ** np.arange(self.n)
        known = (np.where(mask, 0, np.asarray(codes) + 1) * radix).sum(-1)
        return self.logits[known + memory.numbers[:, None] * (self.codebook_size + 1) ** self.n]

    def by_torch(self, decoder, k):
        catalogue = in_torch.Catalogue(
            torch.from_numpy(self.codes), self.codebook_size, torch.from_numpy(self.recommendable)
        )
        excluded = None if self.seen is None else in_torch.Excluded.from_ragged(self.seen, len(self.codes))

        def denoise(codes, mask, memory):
            return torch.from_numpy(self.denoise(codes.numpy(), mask.numpy(), memory))

        seeds = torch.zeros(USERS, dtype=torch.long)
        decoded = decoder.decode(base.Task(denoise, Users(range(USERS)), catalogue, k, excluded, seeds))
        return decoded.items.numpy(), decoded.scores.numpy()

    def by_numpy(self, beam, order, k):
        catalogue = in_numpy.Catalogue(self.codes, self.codebook_size, self.recommendable)
        excluded = None if self.seen is None else in_numpy.Excluded(self.seen, len(self.codes))
        return search.decode(search.Task(self, Users(range(USERS)), catalogue, k, excluded, order), beam)

    def possible(self, user):
        """How many items a user may get."""
        away = [] if self.seen is None else self.seen[user]
        return len(set(np.flatnonzero(self.recommendable)) - set(away))

    def score(self, user, item, order):
        """The log-probability of an item's digits, filled in this order."""
        mask, total = np.ones((1, 1, self.n), dtype=bool), 0.0
        for digit in order:
            logits = self.denoise(self.codes[item][None, None], mask, Users([user]))[0, 0, digit].astype(np.float64)
            total += logits[self.codes[item, digit]] - np.log(np.exp(logits).sum())
            mask[..., digit] = False
        return total


def assert_same(found, wanted):
    assert np.array_equal(found[0], wanted[0])
    assert np.allclose(found[1], wanted[1], atol=1e-5)


@SIZES
@ORDERS
@EXCLUDED
@pytest.mark.parametrize("k", [1, 5, 45])
@pytest.mark.parametrize("beam", [1, 4, 16, WIDE])
def test_both_searches_give_the_same_lists(n, codebook_size, order, excluded, k, beam):
    world = World(n, codebook_size, excluded)
    found = world.by_numpy(beam, order, k)
    assert_same(found, world.by_torch(AnyOrderBeam(beam=beam, order=order), k))
    for user in range(USERS):
        row = found[0][user]
        count = min(k, world.possible(user))  # all that are possible, whatever the beam
        assert len(set(row[:count])) == count and (row[:count] >= 0).all() and (row[count:] == -1).all()
        assert np.isneginf(found[1][user, count:]).all()


@SIZES
@EXCLUDED
@pytest.mark.parametrize("k", [5, 45])
def test_both_searches_equal_the_oracle_when_nothing_is_pruned(n, codebook_size, excluded, k):
    world = World(n, codebook_size, excluded)
    items, scores = world.by_torch(Exhaustive(), k)
    assert_same(world.by_numpy(WIDE, "confidence", k), (items, scores))
    assert_same(world.by_torch(AnyOrderBeam(beam=WIDE), k), (items, scores))
    for user, place in np.ndindex(items.shape):
        if items[user, place] >= 0:
            best = max(world.score(user, items[user, place], order) for order in itertools.permutations(range(n)))
            assert scores[user, place] == pytest.approx(best, abs=1e-4)


@SIZES
@EXCLUDED
def test_in_fixed_order_scores_are_those_of_digit_after_digit(n, codebook_size, excluded):
    world = World(n, codebook_size, excluded)
    items, scores = world.by_numpy(WIDE, "fixed", 10)
    for user, place in np.ndindex(items.shape):
        assert scores[user, place] == pytest.approx(world.score(user, items[user, place], range(n)), abs=1e-4)


@given(seed=st.integers(0, 10_000), items=st.integers(1, 40), k=st.integers(1, 12), beam=st.integers(1, 20), data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_searches_agree_on_any_world(seed, items, k, beam, data):
    n, codebook_size = data.draw(st.sampled_from([(1, 8), (2, 4), (3, 3), (4, 2)]))
    order = data.draw(st.sampled_from(["confidence", "fixed"]))
    world = World(n, codebook_size, data.draw(st.booleans()), seed, items)
    assert_same(world.by_numpy(beam, order, k), world.by_torch(AnyOrderBeam(beam=beam, order=order), k))
