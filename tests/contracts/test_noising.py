"""What every noising schedule must do."""

from __future__ import annotations

import pytest
import torch

from diffgrm.foundation.registry import names, resolve
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext

ALL = pytest.mark.parametrize("name", names("noising"))
START = LearningContext.start()
CODES = torch.randint(0, 8, (50, 4), generator=torch.Generator().manual_seed(0))


def probe(codes, mask):
    """Logits that depend on the row, so that confidences differ."""
    generator = torch.Generator().manual_seed(int(mask.sum()))
    return 3 * torch.randn(*codes.shape, 8, generator=generator)


def histories():
    """Digits of three items before each target, of which the first one or more are known."""
    return CODES[:, None].expand(-1, 3, -1), torch.arange(3) <= torch.arange(50)[:, None] % 3


def views(name, seed=0, learning=START):
    context = NoisingContext(probe, torch.Generator().manual_seed(seed), learning, histories)
    return resolve("noising", name)().views(CODES, context)


@ALL
def test_views_have_their_shapes_and_something_is_hidden(name):
    mask, *weights = views(name)
    assert mask.dtype == torch.bool and mask.shape[0] == 50 and mask.shape[2] == 4
    assert mask.any()
    for weight in weights:
        assert weight.shape == mask.shape[:2] and torch.isfinite(weight).all() and (weight >= 0).all()
    assert (weights[0][~mask.any(-1)] == 0).all()


@ALL
def test_randomness_comes_from_the_generator_alone(name):
    state = torch.random.get_rng_state()
    first, second = views(name, 3), views(name, 3)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (torch.random.get_rng_state() == state).all()


@ALL
def test_targets_are_left_alone(name):
    before = CODES.clone()
    views(name)
    assert (before == CODES).all()


@ALL
def test_something_is_hidden_however_far_training_is(name):
    for step in (0, 50, 100):
        found = views(name, learning=LearningContext(step, 100, step // 10, 10))
        assert found.mask.any() and (found.view_weight >= 0).all() and found.view_weight.sum() > 0


@ALL
def test_one_target_alone_has_views_too(name):
    context = NoisingContext(probe, torch.Generator().manual_seed(0), START, lambda: tuple(x[:1] for x in histories()))
    mask = resolve("noising", name)().views(CODES[:1], context).mask
    assert mask.shape[0] == 1 and mask.shape[2] == 4
