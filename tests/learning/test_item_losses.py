from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from diffgrm.foundation.recipe import ItemLossSettings
from diffgrm.learning.item_losses import draw, item_loss

N, ITEMS, D = 64, 50, 8


@pytest.fixture
def world():
    generator = torch.Generator().manual_seed(0)
    hidden, items = torch.randn(N, D, generator=generator), torch.randn(ITEMS, D, generator=generator)
    counts = torch.arange(ITEMS) ** 2 + 1
    return hidden, torch.randint(0, ITEMS, (N,), generator=generator), items, counts


def loss(world, generator=None, **settings):
    hidden, target, items, counts = world
    chosen = ItemLossSettings(**settings)
    sample = draw(chosen, counts, len(target), generator or torch.Generator())
    return item_loss(hidden, target, items, chosen, sample, len(items)).item()


def test_softmax_is_cross_entropy_over_all_items(world):
    hidden, target, items, _ = world
    assert loss(world) == pytest.approx(F.cross_entropy(hidden @ items.T, target).item())
    smooth = F.cross_entropy(hidden @ items.T / 2, target, label_smoothing=0.2).item()
    assert loss(world, temperature=2, label_smoothing=0.2) == pytest.approx(smooth)


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_sampled_softmax_with_logq_comes_near_the_full_one(world, power):
    """Many negatives, drawn unevenly: the correction takes out what the drawing put in."""
    exact = loss(world)
    found = loss(world, kind="sampled_softmax", negatives=20_000, negative_power=power)
    assert found == pytest.approx(exact, rel=0.03)


def test_without_logq_popular_negatives_weigh_more(world):
    settings = {"kind": "sampled_softmax", "negatives": 20_000, "negative_power": 0.75}
    assert abs(loss(world, logq=False, **settings) - loss(world)) > 0.3


def test_bce_is_the_sum_of_binary_losses():
    """One item besides the target, so that every negative is known."""
    hidden, items = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.5], [1.0, -1.0]])
    chosen = torch.tensor([1.0, 1e6])  # item 1 is drawn practically always
    found = loss((hidden, torch.tensor([0]), items, chosen), kind="bce", negatives=3, negative_power=1)
    wanted = -(F.logsigmoid(torch.tensor(1.5)) + 3 * F.logsigmoid(torch.tensor(1.0))).item() / 4
    assert found == pytest.approx(wanted, rel=1e-5)


def test_gbce_without_calibration_is_bce_and_with_it_weighs_positives_less(world):
    def make(**settings):
        return loss(world, torch.Generator().manual_seed(3), negatives=7, **settings)

    assert make(kind="gbce", calibration=0.0) == pytest.approx(make(kind="bce"), rel=1e-6)
    hidden, target, items, _ = world
    own = -F.logsigmoid((hidden * items[target]).sum(-1)).mean().item()
    beta = 7 / (ITEMS - 1)  # calibration 1: beta is the sampling rate
    assert make(kind="bce") - make(kind="gbce", calibration=1.0) == pytest.approx((1 - beta) * own / 8, rel=1e-4)


def test_a_target_among_the_negatives_does_not_count_against_itself():
    hidden, items = torch.tensor([[3.0]]), torch.tensor([[1.0], [0.0]])
    only_target = torch.tensor([1.0, 0.0])
    for kind in ("sampled_softmax", "bce"):
        world = hidden, torch.tensor([0]), items, only_target
        found = loss(world, kind=kind, negatives=5, negative_power=1, logq=False)
        wanted = 0.0 if kind == "sampled_softmax" else math.log1p(math.exp(-3)) / 6
        assert found == pytest.approx(wanted, abs=1e-6)


def test_cosine_does_not_care_for_lengths(world):
    hidden, target, items, counts = world
    settings = {"cosine": True, "temperature": 0.1}
    assert loss(world, **settings) == pytest.approx(loss((5 * hidden, target, 3 * items, counts), **settings), rel=1e-5)
