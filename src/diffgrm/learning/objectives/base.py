"""Objective: what the training loop optimises and validates (floor 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.learning.batches import Batch


class Objective(nn.Module, ABC):
    """A network, its loss, and how it ranks during validation.

    Attributes:
        network: the module whose weights are trained and kept.
    """

    network: nn.Module

    @property
    def shared(self) -> bool:
        """Whether one stretch of events serves all its targets (a causal encoder)."""
        return bool(getattr(self.network, "causal", False))

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Loss of a batch in the network's present mode (dropout on in training).

        Args:
            generator: draws whatever is drawn besides dropout, on the batch's device.
        """

    @abstractmethod
    def rank(self, histories: Ragged, k: int) -> np.ndarray:
        """Item positions [U, k] for histories, best first, what is in the history left out, -1 after the last."""

    def observe(self, validation: EvaluationSet) -> dict[str, float]:
        """More figures to log at every validation; nothing is chosen by them."""
        return {}

    @abstractmethod
    def identity(self) -> list[Any]:
        """Facts and arrays from which the losses follow, but for the network, whose shapes speak for themselves."""
