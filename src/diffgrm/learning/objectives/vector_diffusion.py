"""Gaussian diffusion over item vectors, as in DiQDiff (arXiv 2501.17670): the next item is told from its noisy vector.

Letters: N targets, d width.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError, bullet_list, switched_off
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.losses import cross_entropy
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.networks.blocks import unrounded
from diffgrm.networks.contracts import DenoisesVectors, contract


class VectorDiffusionObjective(NextItemObjective):
    """The loss of telling items apart (``item_loss``) by what the network makes of the targets' noisy vectors.

    A step is drawn for each target, evenly, and its vector is noised as far. Beside this loss, the vectors told for the
    targets of a batch are pushed apart: each has to be found among all by its cosine to itself (:func:`contrast`).
    """

    needs: ClassVar[tuple[type, ...]] = (DenoisesVectors,)

    def __init__(
        self,
        task: LearningTask,
        contrast_weight: Annotated[
            float, Field(ge=0), "weight of pushing the vectors told for a batch's targets apart; 0: left out"
        ] = 0.05,
        contrast_temperature: Annotated[float, Field(gt=0), "their cosines are divided by it"] = 0.07,
    ) -> None:
        super().__init__(task)
        self.contrast_weight, self.contrast_temperature = contrast_weight, contrast_temperature

    @classmethod
    def check(cls, part: Part, recipe: Recipe) -> None:
        """See :meth:`Objective.check`."""
        usual, model = part.usual, recipe.model
        problems = switched_off("objective", "contrast_weight", ["contrast_temperature"], part.options, usual)
        usual = model.usual | {"steps": 1}  # more of them take time, whether asked for or not
        problems += switched_off("model", "guidance", ["guidance_codes", "code_temperature"], model.options, usual)
        problems += switched_off("model", "noise_scale", ["steps", "betas"], model.options, usual)
        betas, alone = model.options.get("betas"), model.options.get("steps") == 1 and model.options.get("noise_scale")
        if alone and betas and betas[1] != usual["betas"][1]:
            problems.append(
                f"model.betas = {list(betas)}: the second does nothing with model.steps = 1; set it to "
                f"{usual['betas'][1]}, or raise model.steps"
            )
        if problems:
            raise RecipeError("the recipe has problems:\n" + bullet_list(problems))

    def loss(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`Objective.loss`."""
        found = self.compared(batch, generator)
        if not self.contrast_weight:
            return found.loss
        return found.loss + self.contrast_weight * contrast(found.users, self.contrast_temperature, batch.weight)

    def users(self, memory: Any, history: Tensor, length: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`NextItemObjective.users`; what the targets' noisy vectors are told to be."""
        return contract(self.network, DenoisesVectors).denoised(targets, memory, history, length, generator)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["vector diffusion", self.contrast_weight, self.contrast_temperature, *super().identity()]


def contrast(vectors: Tensor, temperature: float, weight: Tensor | None = None) -> Tensor:
    """Mean over N vectors [N, d] of the cross-entropy of finding each among all by cosines with it, in nats.

    It is 0 for one vector, log N where all are alike, and falls as they part.

    Args:
        weight: [N] see :func:`diffgrm.learning.losses.weighted_mean`.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    own = torch.arange(len(unit), device=unit.device)
    with unrounded(unit.device):
        return cross_entropy(unit @ unit.T / temperature, own, weight)
