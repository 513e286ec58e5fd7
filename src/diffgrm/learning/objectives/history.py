"""Masked diffusion over whole histories: digits of past items are hidden and learnt too.

Letters: N sequences (a history and its target), T items of each, n digits, K codes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part, as_part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError, bullet_list
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.sequence import closeness, hide
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.diffusion import DiffusionObjective, LabelSmoothing
from diffgrm.networks.contracts import DenoisesSequences, contract


class HistoryDiffusionObjective(DiffusionObjective):
    """Masked diffusion of the target, and of the history that it follows.

    ``two_passes`` (LLaDA-Rec, arXiv 2511.06254): the loss of ``diffusion``, in which histories are clean and ``noising``
    says what of the target is hidden, plus ``history_weight`` times that of a second pass over the sequence of history and
    target, of which ``history_noise`` hides digits. ``joint`` (MaskGR, arXiv 2511.23021): that second pass alone, in which
    a digit of the history counts ``history_weight`` beside 1 of the target.

    A hidden digit of a sequence counts 1 / the rate at which it was to be hidden. ``view_mean`` divides the sum over a
    batch by the number of digits that may be hidden, so that with ``uniform_t`` its mean over noise is the bound on the
    negative log-likelihood a digit; ``token_mean`` by the sum of the weights (MaskGR). How LLaDA-Rec divides the second
    pass was not to be had; the mean over all real items of the batch, of history and target alike, is our reading.
    """

    needs: ClassVar[tuple[type, ...]] = (DenoisesSequences,)

    def __init__(
        self,
        task: LearningTask,
        reduction: Annotated[
            Literal["view_mean", "token_mean"],
            "view_mean: mean inside a view, then over views; token_mean: all masked digits by their weights (MaskGR)",
        ] = "view_mean",
        label_smoothing: LabelSmoothing = 0.1,
        stream: Annotated[
            Literal["two_passes", "joint"],
            "two_passes: the target after a clean history by noising, then the whole sequence by history_noise "
            "(LLaDA-Rec); joint: the whole sequence by history_noise only (MaskGR)",
        ] = "two_passes",
        history_noise: Annotated[
            Literal["uniform_t", "k_of_n", "whole_items"],
            "which digits of a sequence are hidden; uniform_t: each with probability t, uniform in (0, 1] for each "
            "sequence (MaskGR); k_of_n: each with probability k/n, k uniform in 0..n for each item (LLaDA-Rec); "
            "whole_items: all digits of an item or none, with probability t",
        ] = "k_of_n",
        history_weight: Annotated[
            float, Field(ge=0), "two_passes: weight of the second pass; joint: weight of a digit of the history; 0: none"
        ] = 1.0,
        last_phase: Annotated[
            float, Field(ge=0, lt=1), "share of training, at its end, in which nothing of the history is hidden"
        ] = 0.0,
        targets: Annotated[
            Literal["all", "newest"],
            "all: every event after a user's first is a target, each with the history before it; newest: a user's newest "
            "event only, one sequence a user (MaskGR)",
        ] = "all",
        context_decay: Annotated[
            float | None,
            Field(gt=0, lt=1),
            "hidden digits of a sequence that stand close to known ones count more: a known digit adds this to the power "
            "of its distance (ANR-DiffRec); null: all count alike",
        ] = None,
    ) -> None:
        super().__init__(task, reduction, label_smoothing)
        self.stream, self.history_noise, self.targets = stream, history_noise, targets
        self.history_weight, self.last_phase, self.context_decay = history_weight, last_phase, context_decay

    @classmethod
    def check(cls, part: Part, recipe: Recipe) -> None:
        """See :meth:`Objective.check`."""
        options, usual = part.options, as_part(part.kind, part.name).options
        problems = []
        if not options["history_weight"]:
            problems += [
                f"objective.{key} = {options[key]} does nothing with objective.history_weight = 0, by which histories are "
                "neither hidden nor learnt; leave it out, or raise the weight"
                for key in ("stream", "history_noise", "last_phase", "context_decay")
                if options[key] != usual[key]
            ]
        elif options["stream"] == "joint" and recipe.noising != Recipe(recommender=recipe.recommender).noising:
            problems.append(
                f"noising.name = {recipe.noising.name} does nothing with objective.stream = joint, where "
                "objective.history_noise says what is hidden of history and target; leave the section noising out, or set "
                "objective.stream to two_passes"
            )
        if problems:
            raise RecipeError("the recipe has problems:\n" + bullet_list(problems))

    @property
    def shared(self) -> bool:
        """Never: a sequence is of one target, whatever the network could do."""
        return False

    @property
    def newest_only(self) -> bool:
        """See :meth:`Objective.newest_only`."""
        return self.targets == "newest"

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`DigitObjective.digit_loss`."""
        hides_history = self.history_weight > 0 and context.progress < 1 - self.last_phase
        if self.stream == "joint":
            return self.sequence_loss(batch, generator, self.history_weight if hides_history else 0.0)
        loss = super().digit_loss(batch, memory, generator, context)
        return loss + self.history_weight * self.sequence_loss(batch, generator) if hides_history else loss

    def sequence_loss(self, batch: Batch, generator: torch.Generator, history_weight: float = 1.0) -> Tensor:
        """The loss of the hidden digits of a batch's sequences, as one number in nats.

        Args:
            generator: draws which are hidden.
            history_weight: of a digit of the history beside 1 of the target; 0: none of it is hidden.
        """
        (history, known), target = self._history(batch), self.codes[batch.target]
        codes = torch.cat([history, target[:, None]], 1)  # [N, T, n]
        valid = F.pad(known, (0, 1), value=True)
        counted = valid.float() * history_weight
        counted[:, -1] = 1.0
        learnt = counted > 0  # [N, T] items that may be hidden
        hidden = hide(self.history_noise, (len(codes), codes.shape[1]), codes.shape[2], generator)
        mask = hidden.mask & learnt[..., None]
        logits = contract(self.network, DenoisesSequences).denoise_sequence(codes, mask, valid)
        weight = (counted / hidden.rate)[..., None].expand(mask.shape)
        if self.context_decay is not None:
            weight = weight * closeness(mask, valid, self.context_decay)
        weight = weight[mask]
        losses = F.cross_entropy(logits[mask].float(), codes[mask], label_smoothing=self.label_smoothing, reduction="none")
        total = weight.sum() if self.reduction == "token_mean" else learnt.sum() * codes.shape[2]
        return (losses * weight).sum() / total.clamp(min=1e-9)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        mine = self.stream, self.history_noise, self.history_weight, self.last_phase, self.targets, self.context_decay
        return ["history diffusion", *mine, *super().identity()]
