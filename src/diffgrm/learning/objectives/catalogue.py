"""Masked diffusion that knows the catalogue: a masked view is a question about the items that still fit it.

Letters: N targets, V views, n digits, K codes, I items, m drawn items, P pairs of a view and an item that fits it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.item_losses import Sample, draw
from diffgrm.learning.losses import masked_cross_entropy
from diffgrm.learning.noising.base import Views
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.diffusion import DiffusionObjective, LabelSmoothing
from diffgrm.ranking.catalogue import Catalogue


class CatalogueDiffusionObjective(DiffusionObjective):
    """Masked diffusion, normalised over the catalogue.

    Given the digits that a view shows, an item that has them scores the sum of the logits of its hidden digits. The loss is
    the cross-entropy of the target among the items that fit; of a view that hides all digits that is every item, or some
    drawn for the batch (``item_loss``).
    """

    sections: ClassVar[tuple[str, ...]] = ("noising", "item_loss")

    def __init__(
        self,
        task: LearningTask,
        digit_weight: Annotated[float, Field(ge=0), "weight of the loss of single digits beside that of items"] = 0.0,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__(task, "view_mean", label_smoothing)
        self.digit_weight = digit_weight
        self._catalogue: Catalogue | None = None

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`DigitObjective.digit_loss`."""
        target = self.codes[batch.target]
        views, logits = self.asked(batch, memory, generator, context)
        loss = self.item_losses(logits, batch.target, views, generator)
        if self.digit_weight:
            loss = loss + self.digit_weight * masked_cross_entropy(
                logits, target, views, label_smoothing=self.label_smoothing
            )
        return loss

    def item_losses(self, logits: Tensor, target: Tensor, views: Views, generator: torch.Generator) -> Tensor:
        """The cross-entropy of targets [N] among the items that fit views of them, mean over targets and views."""
        known = ~views.mask
        losses = logits.new_zeros(known.shape[:2])
        shown = known.sum(-1)
        own = logits.float().gather(3, self.codes[target][:, None, :, None].expand(-1, known.shape[1], -1, 1))[..., 0].sum(-1)
        for count in range(known.shape[2]):
            row, view = (shown == count).nonzero(as_tuple=True)
            if len(row) == 0:
                continue
            some = logits[row, view].float()  # [R, n, K]
            if count == 0:
                found = self._among_all(some, own[row, view], target[row], generator)
            else:
                found = self._among_fitting(some, own[row, view], target[row], known[row, view], count)
            losses[row, view] = found
        return (losses * views.view_weight).mean()

    def _among_all(self, logits: Tensor, own: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        sample: Sample | None = draw(self.task.item_loss, self.items.counts, len(target), generator)
        codes = self.codes if sample is None else self.codes[sample.items]
        others = logits[:, 0].index_select(1, codes[:, 0])
        for digit in range(1, codes.shape[1]):
            others = others + logits[:, digit].index_select(1, codes[:, digit])
        if sample is None:
            return others.logsumexp(1) - own
        if sample.log_expected is not None:
            others = others - sample.log_expected
        others = others.masked_fill(sample.items == target[:, None], -torch.inf)
        return torch.cat([own[:, None], others], 1).logsumexp(1) - own

    def _among_fitting(self, logits: Tensor, own: Tensor, target: Tensor, known: Tensor, count: int) -> Tensor:
        if self._catalogue is None or self._catalogue.device != self.codes.device:
            self._catalogue = Catalogue(self.codes, logits.shape[2])
        rows, items = [], []
        # every row is a user with one question
        for block, row, match in self._catalogue._matches(self.codes[target], known, count, torch.arange(len(target)), None):
            rows.append(row + block.start)
            items.append(self._catalogue.items[match].long())
        row, item = torch.cat(rows), torch.cat(items)
        flat = logits.flatten(1)
        place = self.codes[item] + torch.arange(logits.shape[1], device=item.device) * logits.shape[2]  # [P, n]
        score = flat.view(-1)[(row[:, None] * flat.shape[1] + place)].sum(1)
        highest = torch.full((len(target),), -torch.inf, device=item.device).scatter_reduce(0, row, score.detach(), "amax")
        total = torch.zeros(len(target), device=item.device).index_add(0, row, (score - highest[row]).exp())
        return total.log() + highest - own

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["catalogue", self.digit_weight, self.task.item_loss.model_dump(), *super().identity()]
