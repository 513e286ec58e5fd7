"""The objective of DiffGRM: noise the target, denoise it, compare (paper, section 3.3)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.losses import masked_cross_entropy
from diffgrm.learning.noising.base import NoisingContext, Views
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.digits import DigitObjective, ask_targets
from diffgrm.learning.smoothing import LabelSmoothing, SmoothingTemperature
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.contracts import Denoises, contract


class DiffusionObjective(DigitObjective):
    """Masked diffusion over semantic IDs; the recipe's ``noising`` says which digits are hidden."""

    needs: ClassVar[tuple[type, ...]] = (Denoises,)
    sections: ClassVar[tuple[str, ...]] = ("noising",)

    def __init__(
        self,
        task: LearningTask,
        reduction: Annotated[
            Literal["view_mean", "token_mean"],
            "view_mean: mean inside a view, then over views (paper); token_mean: all masked digits",
        ] = "view_mean",
        label_smoothing: LabelSmoothing = 0.1,
        smoothing_temperature: SmoothingTemperature = None,
    ) -> None:
        super().__init__(task, label_smoothing, smoothing_temperature)
        assert task.noising is not None
        self.noising, self.reduction = task.noising, reduction

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """Noise the targets, denoise them, compare; see :meth:`DigitObjective.digit_loss`."""
        views, logits = self.asked(batch, memory, generator, context)
        return self.of_codes(logits, batch, views)

    def of_codes(self, logits: Tensor, batch: Batch, views: Views) -> Tensor:
        """The loss of the hidden digits of a batch's targets, as one number."""
        return masked_cross_entropy(
            logits,
            self.codes[batch.target],
            views,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            close=self.close,
            weight=batch.weight,
        )

    def asked(
        self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext
    ) -> tuple[Views, Tensor]:
        """Masked views of a batch's targets, and the logits [N, V, n, K] of what they hide."""
        target, views = self.codes[batch.target], self.views(batch, generator, context)
        questions = target[:, None].expand(views.mask.shape), views.mask
        return views, ask_targets(contract(self.network, Denoises).denoise, questions, memory, batch)

    def views(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Views:
        """Masked views of a batch's targets."""
        denoise = contract(self.network, Denoises).denoise

        def probe(codes: Tensor, mask: Tensor) -> Tensor:
            with torch.no_grad(), evaluating(self.network):
                return ask_targets(denoise, (codes, mask), self.encode(batch), batch)

        noising = NoisingContext(probe, generator, context, lambda: self._history(batch))
        return self.noising.views(self.codes[batch.target], noising)

    def _history(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Digits [N, S, n] of each target's history, and which of the S places it knows [N, S]."""
        items, known = self._history_items(batch)
        return self.codes[items], known

    def _history_items(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Positions [N, S] of the items of each target's history, and which of the S places it knows [N, S]."""
        items, index = batch.histories.items, batch.histories.item_index
        stretch, length = batch.slot // batch.length.shape[1], batch.length.flatten()[batch.slot]
        known = torch.arange(index.shape[1], device=index.device) < length[:, None]
        return items[index][stretch], known

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """See :meth:`DigitObjective.log_likelihood`; every digit while all are masked."""
        hidden = torch.ones_like(codes, dtype=torch.bool)[:, None]
        logits = contract(self.network, Denoises).denoise(codes[:, None], hidden, memory)[:, 0]
        return logits.float().log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        noising = f"{type(self.noising).__qualname__}{sorted(vars(self.noising).items())}"
        return ["diffusion", noising, self.reduction, *self.smoothing, *self.items.identity()]
