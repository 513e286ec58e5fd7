"""The objective of left-to-right networks: every digit from those before it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.diffusion import LabelSmoothing
from diffgrm.learning.objectives.digits import DigitObjective, ask_targets
from diffgrm.networks.contracts import PredictsDigits, contract


class LeftToRightObjective(DigitObjective):
    """Teacher forcing."""

    needs: ClassVar[tuple[type, ...]] = (PredictsDigits,)

    def __init__(self, task: LearningTask, label_smoothing: LabelSmoothing = 0.1) -> None:
        super().__init__(task)
        self.label_smoothing = label_smoothing

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`DigitObjective.digit_loss`; the mean over targets and digits."""
        target = self.codes[batch.target]  # [N, n]
        logits = ask_targets(
            contract(self.network, PredictsDigits).predict, (target[:, None],), memory, batch
        )  # [N, 1, n, K]
        return F.cross_entropy(logits.flatten(0, 2).float(), target.flatten(), label_smoothing=self.label_smoothing)

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """See :meth:`DigitObjective.log_likelihood`; every digit given those before it."""
        logits = contract(self.network, PredictsDigits).predict(codes[:, None], memory)[:, 0]
        return logits.float().log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["left to right", self.label_smoothing, *self.items.identity()]
