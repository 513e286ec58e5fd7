"""Sizes of steps, and what they lose, against distributions written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.group_sizes import divergence, planned_sizes, warmed_up
from helpers.recipes import small_recipe
from helpers.tiny_catalogues import rank

N, K = 5, 3


def tied(strength):
    """A distribution of five digits in which nothing is known of the others before two of them are, and all is then."""
    codes = np.array(list(itertools.product(range(K), repeat=N)))
    off = [(codes[:, 0] + codes[:, 1] + codes[:, 2]) % K, (codes[:, 0] + 2 * codes[:, 1] + codes[:, 3]) % K]
    off.append((codes.sum(1) + codes[:, 4]) % K)
    p = np.exp(-strength * sum(part != 0 for part in off)).reshape((K,) * N)
    return p / p.sum()


def uneven(seed):
    p = np.exp(np.random.default_rng(seed).normal(size=(K,) * N) * 2)
    return p / p.sum()


WORLDS = pytest.mark.parametrize("p", [tied(3), uneven(0), uneven(1)], ids=["tied", "uneven", "other"])


def marginal(p, kept):
    """The distribution of some digits, spread out to the shape of all."""
    return p.sum(tuple(set(range(N)) - set(kept)), keepdims=True)


def true_difficulty(p):
    """f(j) by its definition: the mean conditional entropy over all digits and all sets of j others."""
    found = [[] for _ in range(N)]
    for digit in range(N):
        others = [d for d in range(N) if d != digit]
        for j in range(N):
            for known in itertools.combinations(others, j):
                conditional = marginal(p, {*known, digit}) / marginal(p, known)
                found[j].append(-(p * np.log(np.broadcast_to(conditional, p.shape))).sum())
    return [float(np.mean(part)) for part in found]


def brute_force(p, sizes):
    """KL from the product of what the steps draw, over all orders of the digits."""
    ends, losses = np.cumsum(sizes), []
    for order in itertools.permutations(range(N)):
        drawn = np.ones_like(p)
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            known = order[:start]
            for digit in order[start:end]:
                drawn = drawn * marginal(p, {*known, digit}) / marginal(p, known)
        losses.append((p * np.log(p / drawn)).sum())
    return float(np.mean(losses))


def all_sizes(steps):
    return [sizes for sizes in itertools.product(range(1, N + 1), repeat=steps) if sum(sizes) == N]


@WORLDS
def test_what_steps_lose_is_the_divergence_by_brute_force(p):
    difficulty = true_difficulty(p)
    for sizes in [(5,), (2, 3), (2, 1, 2), (1, 1, 3), (1, 1, 1, 2), (1, 1, 1, 1, 1)]:
        assert divergence(difficulty, sizes) == pytest.approx(brute_force(p, sizes), abs=1e-9)
    assert divergence(difficulty, [1] * N) == 0


@WORLDS
def test_planned_sizes_lose_least_of_all(p):
    difficulty = true_difficulty(p)
    for steps in range(1, N + 1):
        losses = {sizes: brute_force(p, sizes) for sizes in all_sizes(steps)}
        planned = planned_sizes(difficulty, steps)
        assert losses[tuple(planned)] == pytest.approx(min(losses.values()), abs=1e-9)


def test_where_two_digits_tell_the_rest_the_best_three_steps_are_two_one_two():
    difficulty = true_difficulty(tied(3))
    assert planned_sizes(difficulty, 3) == [2, 1, 2]
    assert divergence(difficulty, [2, 1, 2]) < divergence(difficulty, [5]) / 5


def test_a_warm_up_fills_every_digit():
    for n in range(1, 12):
        for single, after in itertools.product(range(n + 1), range(1, 6)):
            sizes = warmed_up(n, single, after)
            assert sum(sizes) == n and min(sizes) >= 1 and sizes[:single] == [1] * single
            assert set(sizes[single:-1]) <= {after}
    assert warmed_up(8, 0, 3) == [3, 3, 2]


def test_groups_of_one_digit_are_the_plain_search():
    network = DiffGRM(3, 4, width=16, heads=2)
    wanted = rank(network, AnyOrderBeam(beam=8))
    for decoder in (
        AnyOrderBeam(beam=8, group="warm_up", single=3),
        AnyOrderBeam(beam=8, group="warm_up", single=1, after=1),
        AnyOrderBeam(beam=8, group="planned", sizes=(1, 1, 1)),
    ):
        found = rank(network, decoder)
        assert (found[0] == wanted[0]).all() and np.allclose(found[1], wanted[1], atol=1e-6)


@pytest.mark.parametrize("order", ["confidence", "fixed"])
def test_steps_fill_as_many_digits_as_they_are_told(order):
    torch.manual_seed(0)
    network, asked = DiffGRM(3, 4, width=16, heads=2), []
    whole = network.denoise

    def denoise(codes, mask, memory):
        asked.append(int(mask[0, 0].sum()))
        return whole(codes, mask, memory)

    network.denoise = denoise
    for settings, left in (
        ({"group": "warm_up", "single": 1, "after": 2}, [3, 2]),
        ({"group": "planned", "sizes": (2, 1)}, [3, 1]),
        ({"group": "planned", "sizes": (3,)}, [3]),
    ):
        asked.clear()
        rank(network, AnyOrderBeam(beam=40, order=order, **settings), k=3, exclude_seen=False)
        assert sorted(set(asked), reverse=True) == left


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": "planned"}, r"sizes that add up to the 3 digits of a semantic ID, found None; diffgrm plan"),
        ({"group": "planned", "sizes": (1, 1)}, r"add up to the 3 digits of a semantic ID, found \[1, 1\]"),
        ({"group": "warm_up", "single": 4}, r"decoding\.single 4 is more than the 3 digits"),
        (
            {"group": "warm_up", "steps": 2},
            r"group warm_up says itself how many digits a step fills; leave decoding\.steps",
        ),
        ({"group": "planned", "sizes": (3,), "threshold": 0.5}, r"group planned says itself"),
        ({"group": "random"}, r"decoding\.group random does nothing without decoding\.steps"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        AnyOrderBeam(**settings).check(3, 40)


@pytest.mark.parametrize("setting", ["sizes=[1, 2]", "single=2", "after=3"])
def test_settings_of_other_groups_are_refused(setting):
    recipe = small_recipe("diffgrm").override([f"decoding.{setting}"])
    with pytest.raises(
        RecipeError, match=rf"decoding\.{setting.split('=')[0]} .* does nothing with decoding\.group = even"
    ):
        recipe.refuse_idle()
