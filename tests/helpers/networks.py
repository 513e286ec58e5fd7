"""Small questions for networks over digits: histories, partly known items, and what an objective is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.noising.base import NoisingSchedule
from diffgrm.learning.objectives.base import LearningTask, TrainingItems
from diffgrm.networks.inputs import ItemFeatures

N, K, S = 3, 8, 5  # digits, codes, longest history
GENERATOR = torch.Generator().manual_seed(0)


def vectors(network: Any, codes: Tensor) -> Tensor:
    """Vectors of items given by their digits [M, n] only."""
    return network.item_vectors(ItemFeatures(codes))


def encode(network: Any, codes: Tensor, valid: Tensor) -> Any:
    """Memory of histories given by their digits [B, S, n]."""
    return network.encode_history(
        vectors(network, codes.flatten(0, 1)), torch.arange(valid.numel()).view(valid.shape), valid
    )


def histories(batch: int, length: int = S) -> tuple[Tensor, Tensor]:
    """Digits [B, S, n] of random histories, and which of their places are filled [B, S]."""
    codes = torch.randint(0, K, (batch, length, N), generator=GENERATOR)
    lengths = torch.randint(1, length + 1, (batch,), generator=GENERATOR)
    lengths[0] = length
    return codes, torch.arange(length) < lengths[:, None]


def questions(batch: int, count: int) -> tuple[Tensor, Tensor]:
    """Digits [B, Q, n] of random items, and which of them are unknown [B, Q, n]."""
    codes = torch.randint(0, K, (batch, count, N), generator=GENERATOR)
    return codes, torch.rand(batch, count, N, generator=GENERATOR) < 0.6


def close(a: Tensor, b: Tensor) -> bool:
    """Whether logits are the same but for rounding."""
    return torch.allclose(a, b, atol=2e-5)


def learning_task(
    network: nn.Module,
    codes: Tensor,
    noising: NoisingSchedule | None = None,
    ranking: Callable[[], Any] = lambda: None,
    **item_loss: Any,
) -> LearningTask:
    """What an objective is about, for items known by their digits, each with one training event."""
    items = TrainingItems(ItemFeatures(codes), np.ones(len(codes), dtype=np.int64))
    return LearningTask(network, items, ranking, ItemLossSettings(**item_loss), noising)
