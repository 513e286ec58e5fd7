"""SimHash tells angles, and prices a change of digits by the sides that become wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from diffgrm.foundation.schema import TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.semantic_ids import SemanticIds
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.simhash import SimHashTokenizer

VECTORS = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
WORLD = TokenizerContext.of(VECTORS)


def bits(codes, number):
    return (codes[..., None] >> np.arange(number) & 1).reshape(len(codes), -1)


@pytest.mark.parametrize("degrees", [0, 20, 60, 90, 135, 180])
def test_the_share_of_equal_bits_is_one_less_the_angle_over_pi(degrees):
    angle = np.radians(degrees)
    first, second = np.eye(12, dtype=np.float32)[:2]
    pair = np.stack([first, np.cos(angle) * first + np.sin(angle) * second]).astype(np.float32)
    found = []
    for seed in range(20):  # 20 x 1,024 hyperplanes: a standard deviation of .0035 at most
        one, other = bits(SimHashTokenizer(64, 65_536, seed=seed).fit(WORLD).encode(pair), 16)
        found.append((one == other).mean())
    assert np.mean(found) == pytest.approx(1 - degrees / 180, abs=0.012)


def test_equal_vectors_get_equal_codes_whatever_their_length():
    tokenizer = SimHashTokenizer(8, 16).fit(WORLD)
    codes = tokenizer.encode(np.concatenate([VECTORS, VECTORS[::-1], 7 * VECTORS]))
    assert (codes[:300] == codes[300:600][::-1]).all() and (codes[:300] == codes[600:]).all()


def test_errors_are_squared_distances_to_the_wrong_side():
    tokenizer = SimHashTokenizer(2, 4).fit(WORLD)
    some = VECTORS[:20]
    projections = some @ tokenizer.hyperplanes
    for codes in itertools.product(range(4), repeat=2):
        wanted = bits(np.array([codes]), 2)[0]
        distance = (projections**2)[:, :] * ((projections > 0) != wanted)
        rows = np.tile(codes, (20, 1))
        assert np.allclose(tokenizer.error(some, rows), distance.sum(1), atol=1e-5)
        costs = tokenizer.digit_costs(some, rows)
        for digit, code in itertools.product(range(2), range(4)):
            changed = rows.copy()
            changed[:, digit] = code
            assert np.allclose(costs[:, digit, code], tokenizer.error(some, changed), atol=1e-5)
    assert not tokenizer.error(some, tokenizer.encode(some)).any()


def test_an_item_that_collides_moves_over_the_nearest_hyperplane():
    tokenizer = SimHashTokenizer(4, 16).fit(WORLD)
    twice = np.concatenate([VECTORS[:1], VECTORS[:1] * np.float32(1 + 1e-6)])
    codes = SemanticIds.build(tokenizer, twice)[0].codes
    before, after = (bits(codes, 4)[row] for row in (0, 1))
    nearest = np.abs(VECTORS[0] @ tokenizer.hyperplanes).argmin()
    assert np.flatnonzero(before != after).tolist() == [nearest]


def test_the_seed_draws_the_hyperplanes_and_what_was_saved_keeps_them(tmp_path):
    one, same, other = (SimHashTokenizer(4, 16, seed=seed).fit(WORLD) for seed in (0, 0, 1))
    assert (one.encode(VECTORS) == same.encode(VECTORS)).all() and (one.encode(VECTORS) != other.encode(VECTORS)).any()
    one.state().save(tmp_path / "t.safetensors")
    again = SimHashTokenizer(4, 16, seed=9).load_state(State.load(tmp_path / "t.safetensors"))
    assert (again.encode(VECTORS) == one.encode(VECTORS)).all()
    with pytest.raises(TokenizerError, match=r"shapes .*'hyperplanes': \(12, 16\).* expected .*\(12, 8\)"):
        SimHashTokenizer(4, 4).load_state(State.load(tmp_path / "t.safetensors"))
