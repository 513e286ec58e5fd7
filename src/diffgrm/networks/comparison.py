"""How vectors of users and of items are compared: alike in training and in use."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from diffgrm.foundation.sections import ItemLossSettings


@dataclass(frozen=True)
class Comparison:
    """Dot products, or cosines, over a temperature.

    Attributes:
        cosine: compare directions only.
        temperature: scores are divided by it.
    """

    cosine: bool = False
    temperature: float = 1.0

    @classmethod
    def of(cls, settings: ItemLossSettings) -> Comparison:
        """As a recipe's ``item_loss`` says."""
        return cls(settings.cosine, settings.temperature)

    def users(self, vectors: Tensor) -> Tensor:
        """Vectors [N, d] of users, ready to be multiplied with those of items."""
        return (F.normalize(vectors, dim=-1) if self.cosine else vectors) / self.temperature

    def items(self, vectors: Tensor) -> Tensor:
        """Vectors [I, d] of items, ready to be multiplied with those of users."""
        return F.normalize(vectors, dim=-1) if self.cosine else vectors
