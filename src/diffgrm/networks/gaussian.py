"""Gaussian diffusion of vectors (Ho et al., arXiv 2006.11239), undone without chance (DDIM, Song et al., arXiv 2010.02502).

Letters: N vectors, d width, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianDiffusion:
    """Adds normal noise in T steps, numbered from 0: q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t).

    Attributes:
        betas: [T] variance that each step adds.
    """

    betas: tuple[float, ...]

    @classmethod
    def linear(cls, steps: int, first: float, last: float) -> GaussianDiffusion:
        """Of variances that grow evenly from that of the first step to that of the last; one step has the first.

        >>> GaussianDiffusion.linear(3, 0.1, 0.3).betas == (0.1, 0.2, 0.3)
        True
        """
        return cls(tuple(first + (last - first) * step / max(steps - 1, 1) for step in range(steps)))

    @property
    def kept(self) -> tuple[float, ...]:
        """[T] share of the variance that is still the vector's after each step: the product of 1 - beta up to there."""
        kept, shares = 1.0, []
        for beta in self.betas:
            kept *= 1 - beta
            shares.append(kept)
        return tuple(shares)

    def noised(self, vectors: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """[N, d] what the vectors are after steps [N], all at once: q(x_t | x_0), for standard normal noise [N, d]."""
        kept = torch.tensor(self.kept, device=vectors.device)[step][:, None]
        return kept.sqrt() * vectors + (1 - kept).sqrt() * noise

    def before(self, noisy: Tensor, told: Tensor, step: int) -> Tensor:
        """[N, d] what the noisy vectors after a step were before it, where they were ``told`` without noise (eta 0)."""
        kept = self.kept
        earlier = kept[step - 1] if step else 1.0
        noise = (noisy - kept[step] ** 0.5 * told) / (1 - kept[step]) ** 0.5
        return earlier**0.5 * told + (1 - earlier) ** 0.5 * noise
