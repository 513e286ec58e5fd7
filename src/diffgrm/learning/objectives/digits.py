"""What objectives over the digits of the next item share.

Letters: B stretches, T slots for targets in each, N targets, S history length, n digits, K codes, Q questions a target.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import EvaluationSet
from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError, bullet_list
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.base import LearningTask, Objective, Ranking
from diffgrm.learning.smoothing import closeness, smoothing_problems
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.contracts import EncodesHistories, contract, encoded
from diffgrm.ranking.ranker import Ranker

OBSERVED = 1024  # validation users whose digits' difficulty is logged


class DigitObjective(Objective):
    """The loss of the next item's digits.

    Args:
        label_smoothing: mass of a digit that is spread over its codes.
        smoothing_temperature: of the closeness by which it is spread; None: evenly.
    """

    def __init__(
        self, task: LearningTask, label_smoothing: float = 0.0, smoothing_temperature: float | None = None
    ) -> None:
        super().__init__(task)
        self.label_smoothing, self.smoothing_temperature = label_smoothing, smoothing_temperature
        close = None
        if smoothing_temperature is not None:
            if task.code_vectors is None:
                raise RecipeError(
                    "objective.smoothing_temperature smooths over codes by what they stand for, and nothing tells it here; "
                    "leave it out"
                )
            close = closeness(task.code_vectors(), smoothing_temperature)
        self.close: Tensor | None
        self.register_buffer("close", close, persistent=False)  # [n, K, K]

    @classmethod
    def check(cls, part: Part, recipe: Recipe) -> None:
        """See :meth:`Objective.check`."""
        if problems := cls.problems(part, recipe):
            raise RecipeError("the recipe has problems:\n" + bullet_list(problems))

    @classmethod
    def problems(cls, part: Part, recipe: Recipe) -> list[str]:
        """Settings of the objective that it cannot work with, or that do nothing, a line each."""
        return smoothing_problems(part, recipe) if "smoothing_temperature" in part.options else []

    @property
    def smoothing(self) -> list[Any]:
        """Of the objective's identity."""
        if self.close is None:
            return [self.label_smoothing]
        return [self.label_smoothing, self.smoothing_temperature, self.close.cpu().numpy()]

    @property
    def codes(self) -> Tensor:
        """[I, n] digits of all items."""
        assert self.items.codes is not None
        return self.items.codes

    def loss(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`Objective.loss`."""
        return self.digit_loss(batch, self.encode(batch), generator, context)

    @abstractmethod
    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """The loss of the digits of a batch's targets.

        Args:
            memory: of the batch's histories.
            generator, context: see :meth:`Objective.loss`.
        """

    @abstractmethod
    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """[N, n] log-probability that the network gives each digit of the targets ``codes`` [N, n] of N histories."""

    def encode(self, batch: Batch) -> Any:
        """Memory of a batch's histories."""
        vectors = contract(self.network, EncodesHistories).item_vectors(self.items.in_histories.of(batch.histories.items))
        return encoded(self.network, vectors, batch.histories)

    def observe(self, ranking: Ranking, validation: EvaluationSet) -> dict[str, float]:
        """How hard each digit is: its negative log-likelihood in nats, mean over users and targets."""
        if not isinstance(ranking, Ranker):  # digits are learnt, but rank nothing
            return {}
        users = np.arange(min(len(validation), OBSERVED))
        targets = validation.targets.rows(users)
        total, device = torch.zeros(self.codes.shape[1], device=self.codes.device), self.codes.device
        with torch.no_grad(), evaluating(self.network):
            for rows, memory in ranking.encoded(validation.histories.rows(users), rows=1):
                wanted = targets.rows(rows)
                row = torch.from_numpy(np.repeat(np.arange(len(rows)), wanted.lengths)).to(device)
                codes = self.codes[torch.from_numpy(wanted.values).to(device)]  # [N, n]
                total -= self.log_likelihood(codes, memory.rows(row)).sum(0)
        return {f"val_digit_{j}_nll": nll for j, nll in enumerate((total / len(targets.values)).tolist())}


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
