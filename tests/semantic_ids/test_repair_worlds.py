"""Collision repair against brute force, in small worlds whose tokenizers' errors do not add over digits."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from diffgrm.foundation.schema import TokenizerError
from diffgrm.semantic_ids import collisions, crowds
from diffgrm.semantic_ids.collisions import place, reassign
from diffgrm.semantic_ids.tokenizers.base import Tokenizer
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext


class TableTokenizer(Tokenizer):
    """Every combination of codes has a point of its own, so nothing is known of a code from its digits.

    A careless one knows only combinations with 0 as the last digit when it encodes, which leaves better codes free.
    """

    needs_items_per_code = False

    def __init__(self, sizes, seed=0, careless=False):
        super().__init__(len(sizes), sizes, seed)
        self.careless = careless
        self.every = np.indices(sizes).reshape(len(sizes), -1).T.astype(np.int32)  # [room, n]

    def _fit(self, context):
        points = np.random.default_rng(self.seed).normal(size=(len(self.every), context.embeddings.shape[1]))
        self.points = points.astype(np.float32)

    def _encode(self, embeddings):
        distances = ((embeddings[:, None] - self.points) ** 2).sum(-1)
        distances[:, self.careless & (self.every[:, -1] > 0)] = np.inf
        return self.every[distances.argmin(1)]

    def _error(self, embeddings, codes):
        return ((embeddings - self.points[np.ravel_multi_index(codes.T, self.codebook_sizes)]) ** 2).sum(1)

    def _arrays(self):
        return {"points": self.points}

    def _load_arrays(self, arrays):
        self.points = arrays["points"]


class World:
    """Items of which many are alike, with their tokenizer and colliding codes."""

    def __init__(self, sizes, n_items, kinds, seed=0, careless=False):
        generator = np.random.default_rng(seed)
        points = generator.normal(size=(kinds, 3))[generator.integers(0, kinds, n_items)]
        noise = generator.choice([0, 0.3], (n_items, 1)) * generator.normal(size=points.shape)
        self.vectors = (points + noise).astype(np.float32)
        self.tokenizer = TableTokenizer(sizes, seed, careless).fit(TokenizerContext.of(self.vectors))
        self.codes = self.tokenizer.encode(self.vectors)
        _, group, counts = np.unique(self.codes, axis=0, return_inverse=True, return_counts=True)
        self.alone = counts[group.reshape(-1)] == 1

    def error(self, codes):
        return float(self.tokenizer.error(self.vectors, codes).sum())

    def best(self):
        """The least total error of distinct codes among those that move the fewest items; items alone stay."""
        items, every = np.flatnonzero(~self.alone), self.tokenizer.every
        usable = every[~(every[:, None] == self.codes[self.alone]).all(-1).any(1)]
        errors = [self.tokenizer.error(np.repeat(self.vectors[[i]], len(usable), 0), usable) for i in items]
        moves = (usable != self.codes[items][:, None]).any(-1)
        cost = np.array(errors, dtype=np.float64).reshape(moves.shape) + 1e4 * moves
        row, column = linear_sum_assignment(cost)
        codes = self.codes.copy()
        codes[items[row]] = usable[column]
        return codes


@st.composite
def worlds(draw):
    sizes = draw(st.sampled_from([(3,), (2, 2), (4, 3), (2, 5, 3), (3, 4, 5), (2, 2, 2, 2), (4, 4, 4)]))
    n_items = draw(st.integers(1, prod(sizes)))
    return World(sizes, n_items, draw(st.integers(1, n_items)), draw(st.integers(0, 10_000)), draw(st.booleans()))


@given(worlds())
@settings(max_examples=40, deadline=None)
def test_codes_are_distinct_the_fewest_items_move_and_the_error_is_the_least(world):
    repaired = reassign(world.tokenizer, world.vectors, world.codes)
    assert len(np.unique(repaired.codes, axis=0)) == len(world.vectors)
    assert (repaired.codes >= 0).all() and (repaired.codes < world.tokenizer.codebook_sizes).all()
    assert repaired.moved.sum() == len(world.vectors) - len(np.unique(world.codes, axis=0))
    assert not repaired.moved[world.alone].any()
    assert (repaired.moved == (repaired.codes != world.codes).any(1)).all()
    best = world.best()
    assert repaired.moved.sum() == (best != world.codes).any(1).sum()
    assert world.error(repaired.codes) == pytest.approx(world.error(best), rel=1e-4, abs=1e-4)
    assert (reassign(world.tokenizer, world.vectors, world.codes).codes == repaired.codes).all()


@given(worlds(), st.data())
@settings(max_examples=30, deadline=None)
def test_later_items_get_free_codes_while_there_are_any(world, data):
    taken = data.draw(st.integers(1, len(world.tokenizer.every)))
    there, room = world.tokenizer.every[:taken], len(world.tokenizer.every) - taken
    if room < len(world.vectors):
        with pytest.raises(TokenizerError, match=rf"leave {room} beside the {taken} in use"):
            place(world.tokenizer, world.vectors, world.codes, there)
        return
    placed = place(world.tokenizer, world.vectors, world.codes, there)
    assert len(np.unique(np.concatenate([there, placed]), axis=0)) == taken + len(placed)


@given(worlds())
@settings(max_examples=30, deadline=None)
def test_crowds_get_distinct_codes_and_move_the_fewest_items(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collisions, "CROWD", 2)
        patch.setattr(crowds, "BLOCK", 3)
        repaired = reassign(world.tokenizer, world.vectors, world.codes)
    assert len(np.unique(repaired.codes, axis=0)) == len(world.vectors)
    assert repaired.moved.sum() == len(world.vectors) - len(np.unique(world.codes, axis=0))
    assert not repaired.moved[world.alone].any()


def test_costs_that_do_not_add_are_not_added(monkeypatch):
    world = World((3, 4, 5), 40, 4)
    best = world.error(world.best())
    assert world.error(reassign(world.tokenizer, world.vectors, world.codes).codes) == pytest.approx(best, rel=1e-5)
    monkeypatch.setattr(TableTokenizer, "costs_add", True)
    assert world.error(reassign(world.tokenizer, world.vectors, world.codes).codes) > 1.1 * best


def test_the_costs_of_single_changes_come_from_the_true_error_block_by_block(monkeypatch):
    world = World((3, 4, 5), 20, 20)
    costs = world.tokenizer.digit_costs(world.vectors, world.codes)
    for digit, size in enumerate(world.tokenizer.codebook_sizes):
        for code in range(size):
            changed = world.codes.copy()
            changed[:, digit] = code
            assert np.allclose(costs[:, digit, code], world.tokenizer.error(world.vectors, changed), atol=1e-5)
        assert np.isinf(costs[:, digit, size:]).all()
    monkeypatch.setattr("diffgrm.semantic_ids.tokenizers.base.AT_ONCE", 20)  # six pairs at once
    assert (world.tokenizer.digit_costs(world.vectors, world.codes) == costs).all()


def test_many_copies_get_the_codes_of_least_true_error():
    tokenizer = TableTokenizer((6, 6, 5)).fit(TokenizerContext.of(np.zeros((1, 3), dtype=np.float32)))
    vectors = np.zeros((100, 3), dtype=np.float32)
    repaired = reassign(tokenizer, vectors, tokenizer.encode(vectors))
    least = np.sort(tokenizer.error(np.zeros((180, 3), dtype=np.float32), tokenizer.every))[:100]
    assert tokenizer.error(vectors, repaired.codes).sum() == pytest.approx(least.sum(), rel=1e-5)
