"""NoisingSchedule: from a clean target to its masked views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffgrm.learning.context import LearningContext

Probe = Callable[[Tensor, Tensor], Tensor]
"""``probe(codes [B, Q, n], mask [B, Q, n]) -> logits [B, Q, n, K]``: denoise without gradient and without dropout."""


class Views(NamedTuple):
    """V masked views of each target.

    Attributes:
        mask: [B, V, n] bool, true where the digit is hidden and has to be predicted.
        view_weight: [B, V] float, what the mean loss of a view counts for; 0 for a view that hides nothing.
        digit_weight: [B, V] float, what each hidden digit of a view counts for where digits are pooled.
    """

    mask: Tensor
    view_weight: Tensor
    digit_weight: Tensor

    @classmethod
    def equal(cls, mask: Tensor) -> Views:
        """Views that all count the same, but for those that hide nothing."""
        weight = mask.any(-1).float()
        return cls(mask, weight, weight)


@dataclass(frozen=True)
class NoisingContext:
    """What a schedule may go by.

    Attributes:
        probe: asks the network; schedules that need no confidence never call it.
        generator: source of all randomness, on the device of the targets.
        learning: how far training is, for curricula.
        history: gives the digits [N, S, n] of each target's history, oldest first, and which of its S places are known
            [N, S].
    """

    probe: Probe
    generator: torch.Generator
    learning: LearningContext
    history: Callable[[], tuple[Tensor, Tensor]]


class NoisingSchedule(ABC):
    """Draws masked views of targets. Sees the network only through ``probe``."""

    def check(self, n_digits: int, n_items: int) -> None:
        """Refuse sizes that the schedule cannot work with, before anything is trained for it.

        Raises:
            RecipeError: with the way out.
        """

    @abstractmethod
    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        """Views of targets with digits ``codes`` [N, n]."""


def nested_views(order: Tensor) -> Views:
    """View t = 1..n hides the first t digits of an order (paper, section 3.3: coherent views).

    >>> nested_views(torch.tensor([[2, 0, 1]])).mask.int().tolist()
    [[[0, 0, 1], [1, 0, 1], [1, 1, 1]]]
    """
    n = order.shape[-1]
    rank = order.argsort(-1)  # rank[b, j]: place of digit j in the order
    count = torch.arange(1, n + 1, device=order.device)
    return Views.equal(rank[:, None, :] < count[:, None])
