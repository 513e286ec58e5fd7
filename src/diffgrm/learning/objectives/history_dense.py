"""MaskGR's dense loss beside that of digits: what a wholly hidden item's text is, told from the texts of all others.

Letters: N sequences (a history and its target), T items of each, H hidden items, e width of what items are compared by.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.item_losses import draw, item_loss
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.history import (
    ContextDecay,
    HistoryDiffusionObjective,
    HistoryNoise,
    HistoryWeight,
    LastPhase,
    Passes,
    Reduction,
    Targets,
)
from diffgrm.learning.smoothing import LabelSmoothing, SmoothingTemperature
from diffgrm.networks.contracts import DenoisesItems, compared, contract


class HistoryDiffusionDenseObjective(HistoryDiffusionObjective):
    """``history_diffusion``, of which one step in ``dense_every`` hides whole items and learns their vectors too.

    In such a step (the first is one) all digits of an item are hidden or none, with one probability t, uniform in (0, 1],
    for each sequence, whatever ``history_noise`` is. Digits are learnt from the same pass, weighed by 1/t as always. Each
    hidden item is told from all items by the vectors that users are compared with (``item_loss``; MaskGR: softmax over
    cosines of texts, temperature 0.1); the loss is the mean over the hidden items of the batch, of histories and targets
    alike. It is part of the pass in which digits of histories are hidden: with ``two_passes`` its weight is beside that
    pass, and it ends with it in the last phase. Arguments as of ``history_diffusion``.
    """

    needs: ClassVar[tuple[type, ...]] = (DenoisesItems,)
    sections: ClassVar[tuple[str, ...]] = ("noising", "item_loss")

    def __init__(
        self,
        task: LearningTask,
        reduction: Reduction = "view_mean",
        label_smoothing: LabelSmoothing = 0.1,
        stream: Passes = "two_passes",
        history_noise: HistoryNoise = "k_of_n",
        history_weight: HistoryWeight = 1.0,
        last_phase: LastPhase = 0.0,
        targets: Targets = "all",
        context_decay: ContextDecay = None,
        dense_every: Annotated[
            int, Field(ge=1), "of so many steps, one hides whole items and learns their vectors (MaskGR: 10)"
        ] = 10,
        dense_weight: Annotated[float, Field(gt=0), "weight of the loss of vectors beside that of digits"] = 1.0,
        smoothing_temperature: SmoothingTemperature = None,
    ) -> None:
        super().__init__(
            task,
            reduction,
            label_smoothing,
            stream,
            history_noise,
            history_weight,
            last_phase,
            targets,
            context_decay,
            smoothing_temperature,
        )
        self.dense_every, self.dense_weight = dense_every, dense_weight

    @property
    def few_items(self) -> bool:
        """See :meth:`Objective.few_items`; hidden items are told from all."""
        return False

    @classmethod
    def problems(cls, part: Part, recipe: Recipe) -> list[str]:
        """See :meth:`HistoryDiffusionObjective.problems`."""
        options, problems = part.options, super().problems(part, recipe)
        if options["stream"] == "two_passes" and not options["history_weight"]:
            problems.append(
                "objective.history_weight = 0 leaves out the pass in which whole items are hidden with objective.stream = "
                "two_passes, so that their vectors would never be learnt; raise it, or set objective.stream to joint"
            )
        if options["dense_every"] == 1 and options["history_noise"] not in ("whole_items", part.usual["history_noise"]):
            problems.append(
                f"objective.history_noise = {options['history_noise']} does nothing with objective.dense_every = 1, by "
                "which every step hides whole items; leave it out, or raise objective.dense_every"
            )
        return problems

    def sequence_loss(
        self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext, history_weight: float = 1.0
    ) -> Tensor:
        """See :meth:`HistoryDiffusionObjective.sequence_loss`; with that of hidden items in one step of several."""
        is_dense = context.step % self.dense_every == 0
        hidden = self.hidden("whole_items" if is_dense else self.history_noise, batch, generator, history_weight)
        denoise = contract(self.network, DenoisesItems).denoise_items
        logits, told = denoise(hidden.codes[:, -1], hidden.mask, memory)
        loss = self.loss_of_hidden(logits, hidden)
        if not is_dense:
            return loss + told.sum() * 0  # a gradient for all weights in every step, as processes that share them need
        return loss + self.dense_weight * self.dense_loss(told, hidden.mask.all(-1), batch, generator)

    def dense_loss(self, told: Tensor, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean loss of telling hidden items from others, as one number; 0 where none is hidden.

        Args:
            told: [N, T, e] of the items of a batch's sequences; hidden: [N, T] bool, which of them are hidden.
            generator: draws negatives, where ``item_loss`` asks for some.
        """
        items = torch.cat([self._history_items(batch)[0], batch.target[:, None]], 1)[hidden]  # [H]
        if len(items) == 0:
            return told.sum() * 0
        settings, network = self.task.item_loss, contract(self.network, DenoisesItems)
        sample = draw(settings, self.items.counts, len(items), generator)
        vectors = compared(network, network.item_vectors(self.items.features))
        weight = None if batch.weight is None else batch.weight[:, None].expand(hidden.shape)[hidden]
        return item_loss(told[hidden], items, vectors, settings, sample, len(vectors), weight)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        mine = self.dense_every, self.dense_weight, self.task.item_loss.model_dump()
        return ["dense", *mine, *super().identity()]
