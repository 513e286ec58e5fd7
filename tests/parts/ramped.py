"""Parts that go by how far training is: a loss whose weight follows the epoch, and masks that follow the step."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext, NoisingSchedule, Views
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.diffusion import DiffusionObjective


class RampedObjective(DiffusionObjective):
    """Masked diffusion of which the first epochs count less."""

    def __init__(
        self, task: LearningTask, ramp: Annotated[int, Field(ge=1), "epochs until the loss has its full weight"] = 4
    ) -> None:
        super().__init__(task)
        self.ramp = ramp

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        weight = min(1.0, (context.epoch + 1) / self.ramp)
        return weight * super().digit_loss(batch, memory, generator, context)

    def identity(self) -> list[Any]:
        return ["ramped", self.ramp, *super().identity()]


class RareFirst(NoisingSchedule):
    """More digits are hidden as training goes on, and first those whose code is rare in the history (as in MDGR)."""

    def __init__(self) -> None:
        pass

    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        digits, known = context.history()
        met = ((digits == codes[:, None]) & known[..., None]).sum(1)  # [N, n] how often the code stands in the history
        hidden = max(1, round(codes.shape[1] * context.learning.progress))
        rank = met.argsort(dim=1, stable=True).argsort(dim=1)
        return Views.equal((rank < hidden)[:, None])
