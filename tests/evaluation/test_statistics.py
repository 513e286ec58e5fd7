"""Tests of differences, against their definitions on few users."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from diffgrm.evaluation.statistics import holm, signed_rank_p


def enumerated(differences):
    """Two-sided p by all ways to give signs to the ranks."""
    differences = np.array(differences)[np.array(differences) != 0]
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    found = ranks[differences > 0].sum()
    middle = ranks.sum() / 2
    sums = [ranks[np.array(signs)].sum() for signs in product([False, True], repeat=len(ranks))]
    return np.mean(np.abs(np.array(sums) - middle) >= abs(found - middle))


@pytest.mark.parametrize("seed", range(4))
def test_signed_ranks_are_those_of_every_way_to_give_signs(seed):
    differences = np.random.default_rng(seed).normal(0.5, 1, 9)
    assert signed_rank_p(differences, np.zeros(9)) == pytest.approx(enumerated(differences))
    padded = np.append(differences, [0, 0])  # users without a difference are left out
    assert signed_rank_p(padded, np.zeros(11)) == pytest.approx(enumerated(differences))


def test_lists_of_a_user_count_as_one():
    gain, owners = np.array([1.0, 3, -4, 2, 5, 5]), np.array([0, 0, 1, 2, 3, 3])
    wanted = enumerated([2, -4, 2.5, 5])
    gain[3] = 2.5
    assert signed_rank_p(gain, np.zeros(6), owners) == pytest.approx(wanted) == pytest.approx(0.625)


def test_no_difference_is_chance():
    assert signed_rank_p(np.ones(5), np.ones(5)) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_holm_is_the_step_down_rule(seed):
    p = np.random.default_rng(seed).random(7) ** 3
    corrected = holm(p.tolist())
    for level in np.linspace(0.001, 0.999, 50):
        refused, order = set(), np.argsort(p)
        for step, place in enumerate(order):
            if p[place] > level / (len(p) - step):
                break
            refused.add(int(place))
        assert {place for place, value in enumerate(corrected) if value <= level} == refused
    assert holm([]) == [] and max(holm([0.9, 0.8])) == 1.0
