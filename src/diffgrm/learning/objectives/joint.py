"""Items and their digits, learnt together on one history encoder."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.data.dataset import EvaluationSet
from diffgrm.foundation.parts import PartLike, PartOf, as_part
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.base import LearningTask, Objective, Ranking
from diffgrm.learning.objectives.digits import DigitObjective
from diffgrm.learning.objectives.next_item import NextItemObjective, TextAlignment
from diffgrm.networks.contracts import ScoresItems


class JointObjective(Objective):
    """The loss of telling items apart and, beside it, that of the digits of some of the targets.

    Raises:
        RecipeError: ``digits`` is no objective over digits.
    """

    needs: ClassVar[tuple[type, ...]] = (ScoresItems,)
    sections: ClassVar[tuple[str, ...]] = ("item_loss",)

    def __init__(
        self,
        task: LearningTask,
        digits: Annotated[PartLike, PartOf("objective"), "how digits are learnt"] = "diffusion",
        item_weight: Annotated[float, Field(gt=0), "weight of the loss over items beside that of digits"] = 1.0,
        digit_fraction: Annotated[
            float, Field(gt=0, le=1), "fraction of a step's histories whose digits are learnt; items are learnt from all"
        ] = 1.0,
        text_alignment: TextAlignment = 0.0,
    ) -> None:
        super().__init__(task)
        part = as_part("objective", digits)
        self.digits, self.next_item = part.build(task=task), NextItemObjective(task, text_alignment)
        if not isinstance(self.digits, DigitObjective):
            raise RecipeError(
                f"objective.digits is {part.name!r}, which learns no digits; choose diffusion or left_to_right"
            )
        self.item_weight, self.digit_fraction = item_weight, digit_fraction

    @property
    def shared(self) -> bool:
        """See :meth:`Objective.shared`; as digits are learnt."""
        return self.digits.shared

    @property
    def newest_only(self) -> bool:
        """See :meth:`Objective.newest_only`; as digits are learnt."""
        return self.digits.newest_only

    def loss(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`Objective.loss`."""
        everyone = self.digit_fraction == 1
        rows = torch.arange(len(batch.length), device=batch.length.device)
        if not everyone:
            shuffled = torch.randperm(len(rows), generator=generator, device=rows.device)
            rows = shuffled[: max(1, round(self.digit_fraction * len(rows)))]
        items, memory, _ = self.next_item.compared(batch, generator)
        some, remembered = (batch, memory) if everyone else (batch.rows(rows), memory.rows(rows))
        return self.item_weight * items + self.digits.digit_loss(some, remembered, generator, context)

    def observe(self, ranking: Ranking, validation: EvaluationSet) -> dict[str, float]:
        """See :meth:`DigitObjective.observe`."""
        return self.digits.observe(ranking, validation)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        mine = [
            "joint",
            self.item_weight,
            self.digit_fraction,
            self.next_item.text_alignment,
            self.task.item_loss.model_dump(),
        ]
        return [*mine, *self.digits.identity()]
