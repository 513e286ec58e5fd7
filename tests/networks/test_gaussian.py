"""Gaussian diffusion of vectors: its closed form against its steps, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffgrm.networks.gaussian import GaussianDiffusion

SCHEDULES = [GaussianDiffusion.linear(*given) for given in ((1, 0.3, 0.9), (5, 0.05, 0.6), (32, 0.0131, 0.635))]


@pytest.mark.parametrize("diffusion", SCHEDULES, ids=lambda d: f"{len(d.betas)} steps")
def test_all_steps_at_once_are_the_product_of_the_steps(diffusion):
    """q(x_t | x_0) is normal; its mean and variance follow from those of one step after another."""
    mean, variance = 1.0, 0.0
    for step, beta in enumerate(diffusion.betas):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        at, unit, none = torch.tensor([step]), torch.ones(1, 1), torch.zeros(1, 1)
        assert diffusion.noised(unit, at, none).item() == pytest.approx(mean, rel=1e-5)
        assert diffusion.noised(none, at, unit).item() == pytest.approx(np.sqrt(variance), rel=1e-5)


def test_noise_added_step_by_step_is_spread_as_noise_added_at_once():
    diffusion, generator = GaussianDiffusion.linear(5, 0.05, 0.6), torch.Generator().manual_seed(0)
    start = torch.full((200_000, 1), 1.5)
    walked = start
    for beta in diffusion.betas:
        walked = (1 - beta) ** 0.5 * walked + beta**0.5 * torch.randn(start.shape, generator=generator)
    noise = torch.randn(start.shape, generator=generator)
    at_once = diffusion.noised(start, torch.full((len(start),), 4), noise)
    for level in (0.1, 0.5, 0.9):
        assert walked.quantile(level).item() == pytest.approx(at_once.quantile(level).item(), abs=0.02)


def test_variances_grow_evenly():
    assert GaussianDiffusion.linear(1, 0.3, 0.9).betas == (0.3,)
    betas = GaussianDiffusion.linear(32, 0.0131, 0.635).betas
    assert betas[0] == 0.0131 and betas[-1] == pytest.approx(0.635) and np.allclose(np.diff(betas, 2), 0)


@pytest.mark.parametrize("diffusion", SCHEDULES, ids=lambda d: f"{len(d.betas)} steps")
def test_the_way_back_of_one_who_knows_goes_through_the_same_noise(diffusion):
    """Told the vector itself, each step back gives what the same noise makes of it one step earlier; at last itself."""
    generator = torch.Generator().manual_seed(0)
    vectors, noise = (torch.randn(3, 4, generator=generator) for _ in range(2))
    last = len(diffusion.betas) - 1
    noisy = diffusion.noised(vectors, torch.full((3,), last), noise)
    for step in range(last, 0, -1):
        noisy = diffusion.before(noisy, vectors, step)
        assert torch.allclose(noisy, diffusion.noised(vectors, torch.full((3,), step - 1), noise), atol=1e-4)
    assert torch.allclose(diffusion.before(noisy, vectors, 0), vectors, atol=1e-4)
