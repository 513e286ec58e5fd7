"""Masked diffusion that knows the catalogue: a masked view is a question about the items that still fit it.

Letters: N targets, V views, n digits, K codes, I items, m drawn items, P pairs of a view and an item that fits it, r rank
of the scores of every two digits.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError
from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.item_losses import draw
from diffgrm.learning.losses import weighted_mean
from diffgrm.learning.noising.base import Views
from diffgrm.learning.objectives.base import LearningTask, Teacher
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.learning.smoothing import LabelSmoothing, SmoothingTemperature
from diffgrm.networks.contracts import PairsDigits, contract, lacks
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.digit_sums import log_mass_of_fitting, log_mass_of_rows, sum_of_digits

IDLE = ("cosine", "temperature", "label_smoothing")  # settings of item_loss that are for inner products


class CatalogueDiffusionObjective(DiffusionObjective):
    """Masked diffusion, normalised over the catalogue.

    Given the digits that a view shows, an item that has them scores the sum of the logits of its hidden digits. The loss is
    the cross-entropy of the target among the items that fit; of a view that hides all digits that is every item, or some
    drawn for the batch (``item_loss``). Items that share the target's semantic ID score as it does and are no rivals: what
    is learnt is the probability of all of them together, and a teacher's opinion of a semantic ID is the sum of its
    probabilities of the items behind it. Where the network scores every two digits
    (``model.pairwise_rank``), that is part of an item's score, whatever is shown.

    Raises:
        RecipeError: ``item_loss.kind`` is not one of ``kinds``.
    """

    sections: ClassVar[tuple[str, ...]] = ("noising", "item_loss")
    teaches_pairs: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("softmax", "sampled_softmax")  # of item_loss

    def __init__(
        self,
        task: LearningTask,
        digit_weight: Annotated[float, Field(ge=0), "weight of the loss of single digits beside that of items"] = 0.0,
        label_smoothing: LabelSmoothing = 0.0,
        teacher_weight: Annotated[
            float,
            Field(ge=0, le=1),
            "share of the loss of whole items, all digits hidden, that compares with the scores of the embedding's item "
            "scorer in place of the target alone",
        ] = 0.0,
        teacher_temperature: Annotated[float, Field(gt=0), "its scores are divided by it"] = 1.0,
        smoothing_temperature: SmoothingTemperature = None,
    ) -> None:
        super().__init__(task, "view_mean", label_smoothing, smoothing_temperature)
        self.digit_weight, self.teacher_weight, self.teacher_temperature = digit_weight, teacher_weight, teacher_temperature
        self._tables: _Tables | None = None
        if problem := _unusable(task.item_loss):
            raise RecipeError(problem)
        if teacher_weight and task.teacher is None:
            raise RecipeError(
                "objective.teacher_weight needs an item scorer to learn from; choose embedding.name=item_scorer, or leave "
                "it out"
            )

    @classmethod
    def problems(cls, part: Part, recipe: Recipe) -> list[str]:
        """See :meth:`DigitObjective.problems`."""
        problems, loss = super().problems(part, recipe), recipe.item_loss
        if problem := _unusable(loss):
            problems.append(problem)
        if part.options["label_smoothing"] and not part.options["digit_weight"]:
            problems.append(
                "objective.label_smoothing is of the loss of single digits, which objective.digit_weight = 0 leaves out; "
                "leave it out, or raise objective.digit_weight"
            )
        if part.options["teacher_temperature"] != 1 and not part.options["teacher_weight"]:
            problems.append(
                "objective.teacher_temperature does nothing with objective.teacher_weight = 0; leave it out, or raise the "
                "weight"
            )
        if recipe.objective == part:  # beside no other objective that reads item_loss
            idle = [key for key in IDLE if getattr(loss, key) != ItemLossSettings.model_fields[key].default]
            problems += [
                f"item_loss.{key} = {getattr(loss, key)} does nothing with the objective {part.name!r}, whose scores of "
                "items are sums of logits; leave it out"
                for key in idle
            ]
        return problems

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`DigitObjective.digit_loss`."""
        views, logits = self.asked(batch, memory, generator, context)
        users = self._pair_users(batch, memory)
        losses = self.item_losses(logits, batch, views, generator, users) * views.view_weight
        loss = weighted_mean(losses, batch.weight)
        if self.digit_weight:
            loss = loss + self.digit_weight * self.of_codes(logits, batch, views)
        return loss

    def item_losses(
        self, logits: Tensor, batch: Batch, views: Views, generator: torch.Generator, users: Tensor | None = None
    ) -> Tensor:
        """[N, V] cross-entropy of a batch's targets among the items that fit views of them; 0 where a view shows all.

        Args:
            users: [N, r] what the users are multiplied with the pairs of digits of items by; None: pairs say nothing.
        """
        known, target = ~views.mask, batch.target
        codes = self.codes[target][:, None].expand(known.shape)
        own = logits.float().gather(3, codes[..., None])[..., 0].sum(-1)  # [N, V]; logits of known digits are 0
        if users is not None:
            own = own + (users * self._pair_vectors(target)).sum(-1, keepdim=True)
        shown, losses, tables = known.sum(-1), torch.zeros_like(own), self._looked_up(logits.shape[3])
        for count in range(known.shape[2]):
            row, view = (shown == count).nonzero(as_tuple=True)
            if len(row) == 0:
                continue
            asked, scores = logits[row, view].float(), own[row, view]
            scores = scores + tables.sharing[target[row]]
            if count == 0:
                losses[row, view] = self._among_all(asked, scores, tables.sid, batch, row, generator, users)
            else:
                pair, item = tables.catalogue.fitting(codes[row, view], known[row, view])
                beside = None if users is None else (users[row[pair]] * self._pair_vectors(item)).sum(-1)
                losses[row, view] = log_mass_of_fitting(asked, self.codes[item], pair, beside) - scores
        return losses

    def _pair_users(self, batch: Batch, memory: Any) -> Tensor | None:
        """[N, r] what the users of a batch's targets are multiplied with pairs of digits by, where the network has some."""
        kind: type = type(self.network)
        if lacks(kind, PairsDigits):
            return None
        slots = memory if batch.length.shape[1] == 1 else memory.slots(batch.length)
        users = contract(self.network, PairsDigits).pair_users(slots)
        return None if users is None else users.flatten(0, 1)[batch.slot]

    def _pair_vectors(self, items: Tensor) -> Tensor:
        """[..., r] of items at positions [...], made once for each."""
        distinct, place = items.unique(return_inverse=True)
        vectors = contract(self.network, PairsDigits).pair_vectors(self.codes[distinct])
        assert vectors is not None
        return vectors[place]

    def _among_all(
        self,
        logits: Tensor,
        own: Tensor,
        sid: Tensor,
        batch: Batch,
        row: Tensor,
        generator: torch.Generator,
        users: Tensor | None,
    ) -> Tensor:
        """[R] cross-entropy of the targets at rows [R] among all items, or those that are drawn, by logits [R, n, K].

        Args:
            own: [R] scores of the targets' semantic IDs, which may stand for several items.
            sid: [I] numbers of the semantic IDs.
            users: [N, r] see :meth:`item_losses`.
        """
        target = batch.target[row]
        sample = draw(self.task.item_loss, self.items.counts, len(target), generator)
        items = torch.arange(len(self.codes), device=target.device) if sample is None else sample.items
        less = 0.0 if sample is None or sample.log_expected is None else sample.log_expected
        same = sid[items] == sid[target][:, None]

        def beside(own: Tensor, others: Tensor) -> Tensor:
            """[R, 1 + m] scores of the target and of the other items."""
            return torch.cat([own[:, None], (others - less).masked_fill(same, -torch.inf)], 1)

        scores = sum_of_digits(logits, self.codes[items])
        if users is not None:
            scores = scores + users[row] @ self._pair_vectors(items).T
        log_p = beside(own, scores).log_softmax(1)
        if not self.teacher_weight or self.task.teacher is None:
            return -log_p[:, 0]
        teacher, tables = self.task.teacher, self._looked_up(logits.shape[2])
        with torch.no_grad():
            asking = teacher.users(batch)[row] / self.teacher_temperature
            wanted = beside(self._opinion(asking, target, teacher, tables), asking @ teacher.items(items).T).softmax(1)
        # An item stands here for its semantic ID, of which it has one share among those who share it.
        of_sids = log_p + torch.cat([own.new_zeros(1), tables.sharing[items]])
        taught = -(wanted * of_sids.masked_fill(wanted == 0, 0)).sum(1)
        return self.teacher_weight * taught - (1 - self.teacher_weight) * log_p[:, 0]

    def _opinion(self, users: Tensor, target: Tensor, teacher: Teacher, tables: _Tables) -> Tensor:
        """[R] a teacher's scores of the semantic IDs of targets [R] by users [R, d]: of all items behind each together."""
        if not tables.shared:
            return (users * teacher.items(target)).sum(-1)
        codes = self.codes[target]
        pair, item = tables.catalogue.fitting(codes, torch.ones_like(codes, dtype=torch.bool))
        return log_mass_of_rows((users[pair] * teacher.items(item)).sum(-1).float(), pair, len(target))

    def _looked_up(self, codebook_size: int) -> _Tables:
        """The tables of all items, on the device of their codes, made once."""
        if self._tables is None or self._tables.sid.device != self.codes.device:
            catalogue = Catalogue(self.codes, codebook_size)
            _, sid, sharing = catalogue.keys(self.codes).unique(return_inverse=True, return_counts=True)
            self._tables = _Tables(catalogue, sid, sharing[sid].log(), bool((sharing > 1).any()))
        return self._tables

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        taught = self.teacher_weight, self.teacher_temperature
        return ["catalogue diffusion", self.digit_weight, *taught, self.task.item_loss.model_dump(), *super().identity()]


class _Tables(NamedTuple):
    """The items by their codes; [I] numbers of their semantic IDs, the log of how many items share each, and whether any
    do."""

    catalogue: Catalogue
    sid: Tensor
    sharing: Tensor
    shared: bool


def _unusable(item_loss: ItemLossSettings) -> str | None:
    """What is wrong with a kind of loss that compares no item with all others."""
    if item_loss.kind in CatalogueDiffusionObjective.kinds:
        return None
    return (
        f"item_loss.kind = {item_loss.kind} tells no item from all others, as catalogue_diffusion does; set "
        f"item_loss.kind to {' or '.join(CatalogueDiffusionObjective.kinds)}, or choose another objective"
    )
