"""SPRINT's loss of digits (arXiv 2609.34306): tell the code of a digit from those of drawn semantic IDs.

Letters: N targets, V views, n digits, K codes, I items, m drawn semantic IDs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.losses import masked_cross_entropy
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.diffusion import DiffusionObjective


class TokenContrastObjective(DiffusionObjective):
    """Masked diffusion in which the rivals of a hidden code are those that m drawn items have at the same digit.

    A code counts as often as it was drawn; where it is the target's own it is no rival. A step draws once for all targets,
    every item alike, so that frequent codes are met more often. The paper's exact draw was not to be had. Its contrast of
    whole semantic IDs is the loss over items of the objective ``joint``, with ``item_loss.cosine`` and the model
    ``sprint``.
    """

    def __init__(
        self,
        task: LearningTask,
        negatives: Annotated[int, Field(ge=1, le=2**20), "m, semantic IDs that are drawn for a step"] = 100,
        reduction: Annotated[
            Literal["view_mean", "token_mean"],
            "view_mean: mean inside a view, then over views; token_mean: all masked digits",
        ] = "view_mean",
    ) -> None:
        super().__init__(task, reduction, label_smoothing=0.0)
        self.negatives = negatives

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`DigitObjective.digit_loss`."""
        target = self.codes[batch.target]
        views, logits = self.asked(batch, memory, generator, context)
        drawn = torch.randint(len(self.codes), (self.negatives,), generator=generator, device=target.device)
        rivals = among_drawn(logits.float(), target, self.codes[drawn])
        return masked_cross_entropy(rivals, target, views, reduction=self.reduction, weight=batch.weight)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["token contrast", self.negatives, *super().identity()]


def among_drawn(logits: Tensor, target: Tensor, drawn: Tensor) -> Tensor:
    """Logits [N, V, n, K] with each code as often as it was drawn, but the target's once: a softmax over them is one over
    the target's code and the drawn ones that differ from it.

    Args:
        target: [N, n] digits of the targets; drawn: [m, n] of the drawn items.
    """
    times = F.one_hot(drawn, logits.shape[3]).sum(0)  # [n, K]
    own = target[:, None, :, None].expand(*logits.shape[:3], 1)
    return (logits + times.log()).scatter(3, own, logits.gather(3, own))
