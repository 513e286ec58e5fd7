"""What objectives over semantic IDs share (floor 4)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.catalogue import Catalogue
from diffgrm.data.batches import Batch
from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.decoding.base import Decoder
from diffgrm.decoding.ranker import Ranker, evaluating
from diffgrm.recipe import LossSettings
from diffgrm.training.objective import Objective

OBSERVED = 1024  # validation users whose digits' difficulty is logged


class SidObjective(Objective):
    """A network over semantic IDs, and the decoder that ranks with it during validation.

    Args:
        network: has ``encode_history`` and ``max_len``.
        codes: [I, n] codes of all items.
        decoder: ranks during validation.
    """

    def __init__(self, network: nn.Module, loss: LossSettings, codes: Tensor, codebook_size: int, decoder: Decoder) -> None:
        super().__init__()
        self.network, self.settings, self.decoder = network, loss, decoder
        self.codebook_size = codebook_size
        self.codes: Tensor
        self.register_buffer("codes", codes, persistent=False)

    def rank(self, histories: Ragged, k: int) -> np.ndarray:
        """See :meth:`Objective.rank`."""
        return self._ranker().rank(histories, k, exclude_seen=True)[0]

    def observe(self, validation: EvaluationSet) -> dict[str, float]:
        """How hard each digit is: its negative log-likelihood in nats, mean over users and targets."""
        users = np.arange(min(len(validation), OBSERVED))
        targets = validation.targets.rows(users)
        total, device = torch.zeros(self.codes.shape[1], device=self.codes.device), self.codes.device
        with torch.no_grad(), evaluating(self.network):
            for rows, memory in self._ranker().encoded(validation.histories.rows(users), rows=1):
                wanted = targets.rows(rows)
                row = torch.from_numpy(np.repeat(np.arange(len(rows)), wanted.lengths)).to(device)
                codes = self.codes[torch.from_numpy(wanted.values).to(device)]  # [N, n]
                total -= self.log_likelihood(codes, memory.rows(row)).sum(0)
        return {f"val_digit_{j}_nll": nll for j, nll in enumerate((total / len(targets.values)).tolist())}

    @abstractmethod
    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """[N, n] log-probability that the network gives each digit of the targets ``codes`` [N, n] of N histories."""

    def _ranker(self) -> Ranker:
        return Ranker(self.network, self.decoder, Catalogue(self.codes, self.codebook_size))


def encode(network: nn.Module, codes: Tensor, batch: Batch) -> Any:
    """Memory of a batch's histories; ``codes`` [I, n] of all items."""
    items, places, valid = batch.histories
    return cast(Any, network).encode_history(codes[items], places, valid)


def ask_targets(ask: Callable[..., Tensor], questions: tuple[Tensor, ...], memory: Any, batch: Batch) -> Tensor:
    """Logits [N, Q, n, K] of questions about the N targets of a batch, each about its own part of a history.

    Args:
        ask: takes the questions [B, T Q, n] of each history's slots, and the memory.
        questions: each [N, Q, n].
    """
    if batch.length.shape[1] == 1:
        return ask(*questions, memory)
    logits = ask(*(_in_slots(x, batch) for x in questions), memory.slots(batch.length))
    return logits.view(batch.length.numel(), -1, *logits.shape[2:])[batch.slot]


def _in_slots(x: Tensor, batch: Batch) -> Tensor:
    """X [N, Q, n] at the targets' slots: [B, T Q, n], zeros elsewhere."""
    grid = x.new_zeros(batch.length.numel(), *x.shape[1:])
    grid[batch.slot] = x
    return grid.view(len(batch.length), -1, x.shape[-1])
