"""The objective over items: tell the next item from the others."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.item_losses import draw, item_loss
from diffgrm.learning.objectives.base import LearningTask, Objective
from diffgrm.networks.contracts import AlignsTexts, ScoresItems, compared, contract, encoded

TextAlignment = Annotated[
    float,
    Field(ge=0),
    "weight of the alignment of ID embeddings to texts beside the loss over items, as in FLASH (0.1 to 0.2), over the "
    "items that a step asks for; for item vectors with the branch aligned_id",
]


class Compared(NamedTuple):
    """What comes of telling a batch's targets from other items.

    Attributes:
        loss: as one number.
        memory: of the batch's histories.
        users: [N, d] what was known before each target.
    """

    loss: Tensor
    memory: Any
    users: Tensor


class NextItemObjective(Objective):
    """Next-item prediction by the product of a history's vector and an item's; ``item_loss`` says how they are compared."""

    needs: ClassVar[tuple[type, ...]] = (ScoresItems,)
    sections: ClassVar[tuple[str, ...]] = ("item_loss",)

    def __init__(self, task: LearningTask, text_alignment: TextAlignment = 0.0) -> None:
        super().__init__(task)
        self.text_alignment = text_alignment

    def loss(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`Objective.loss`."""
        return self.compared(batch, generator).loss

    def compared(self, batch: Batch, generator: torch.Generator) -> Compared:
        """A batch's targets told from other items."""
        network, settings, features = contract(self.network, ScoresItems), self.task.item_loss, self.items.features
        items = batch.histories.items
        target, sample = batch.target, draw(settings, self.items.counts, len(batch.target), generator)
        if sample is None:
            seen = features
        else:  # only the items that are asked for need vectors
            asked = torch.cat([items, target, sample.items.flatten()]).unique()
            seen = features.of(asked)
            items, target = (torch.searchsorted(asked, part) for part in (items, target))
            sample = sample._replace(items=torch.searchsorted(asked, sample.items))
        vectors = network.item_vectors(seen)  # [M, ...], of all items or of those asked for
        memory = encoded(self.network, vectors[items], batch.histories)
        vectors = compared(network, vectors)
        length = batch.length.flatten()[batch.slot]  # [N] items that each target's history knows
        users = self.users(memory, batch.slot // batch.length.shape[1], length, vectors[target], generator)
        loss = item_loss(users, target, vectors, settings, sample, len(features), batch.weight)
        if self.text_alignment:
            apart = contract(self.network, AlignsTexts).text_alignment(seen)
            assert apart is not None
            loss = loss + self.text_alignment * apart
        return Compared(loss, memory, users)

    def users(self, memory: Any, history: Tensor, length: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """[N, d] what is known before each target.

        Args:
            history, length: [N] see :meth:`ScoresItems.user_vectors`.
            targets: [N, d] vectors of the targets.
        """
        return contract(self.network, ScoresItems).user_vectors(memory, history, length)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["next item", self.text_alignment, self.task.item_loss.model_dump(), *self.items.identity()]
