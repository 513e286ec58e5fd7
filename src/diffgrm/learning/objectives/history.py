"""Masked diffusion over whole histories: digits of past items are hidden and learnt too.

Letters: N sequences (a history and its target), T items of each, n digits, K codes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part, as_part
from diffgrm.foundation.recipe import Recipe
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.losses import code_losses, digits_of
from diffgrm.learning.noising.sequence import hide, near_known
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.learning.smoothing import LabelSmoothing, SmoothingTemperature
from diffgrm.networks.contracts import DenoisesSequences, EncodesHistories, contract

Reduction = Annotated[
    Literal["view_mean", "token_mean"],
    "view_mean: mean inside a view, then over views; token_mean: all masked digits by their weights (MaskGR)",
]
Passes = Annotated[
    Literal["two_passes", "joint"],
    "two_passes: the target after a clean history by noising, then the whole sequence by history_noise (LLaDA-Rec); joint: "
    "the whole sequence by history_noise only (MaskGR)",
]
HistoryNoise = Annotated[
    Literal["uniform_t", "k_of_n", "whole_items"],
    "which digits of a sequence are hidden; uniform_t: each with probability t, uniform in (0, 1] for each sequence "
    "(MaskGR); k_of_n: each with probability k/n, k uniform in 0..n for each item (LLaDA-Rec); whole_items: all digits of "
    "an item or none, with probability t",
]
HistoryWeight = Annotated[
    float, Field(ge=0), "two_passes: weight of the second pass; joint: weight of a digit of the history; 0: none"
]
LastPhase = Annotated[float, Field(ge=0, lt=1), "share of training, at its end, in which nothing of the history is hidden"]
Targets = Annotated[
    Literal["all", "newest"],
    "all: every event after a user's first is a target, each with the history before it; newest: a user's newest event "
    "only, one sequence a user (MaskGR)",
]
ContextDecay = Annotated[
    float | None,
    Field(gt=0, lt=1),
    "hidden digits of a sequence that stand close to known ones count more: a known digit adds this to the power of its "
    "distance (ANR-DiffRec); null: all count alike",
]


class HiddenSequences(NamedTuple):
    """A batch's sequences, of which digits are hidden.

    Attributes:
        codes: [N, T, n] digits of histories and then targets.
        mask: [N, T, n] bool, true where a digit is hidden and has to be predicted; of real items only.
        weight: [N, T] what each hidden digit of an item counts for.
        places: how many items the loss of their digits is divided by.
        counts: [N] what the target of each sequence, and with it the sequence, counts for; None: all alike.
        valid: [N, T] bool, which items are real.
    """

    codes: Tensor
    mask: Tensor
    weight: Tensor
    places: Tensor
    valid: Tensor
    counts: Tensor | None = None


class HistoryDiffusionObjective(DiffusionObjective):
    """Masked diffusion of the target, and of the history that it follows.

    ``two_passes`` (LLaDA-Rec, arXiv 2511.06254): the loss of ``diffusion``, in which histories are clean and ``noising``
    says what of the target is hidden, plus ``history_weight`` times that of a second pass over the sequence of history and
    target, of which ``history_noise`` hides digits. ``joint`` (MaskGR, arXiv 2511.23021): that second pass alone, in which
    a digit of the history counts ``history_weight`` beside 1 of the target.

    A hidden digit of a sequence counts 1 / the rate at which it was to be hidden. ``view_mean`` divides the sum over a
    batch by the number of digits that may be hidden, so that with ``uniform_t`` its mean over noise is the bound on the
    negative log-likelihood a digit; ``token_mean`` by the sum of the weights (MaskGR). The second of ``two_passes`` is
    divided by all places of its sequences, the target's and ``model.max_len`` of the history, empty ones too, as in
    LLaDA-Rec's release: so a short history counts for little beside its target, whatever else is in the batch.
    """

    needs: ClassVar[tuple[type, ...]] = (DenoisesSequences,)

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
        smoothing_temperature: SmoothingTemperature = None,
    ) -> None:
        super().__init__(task, reduction, label_smoothing, smoothing_temperature)
        self.stream, self.history_noise, self.targets = stream, history_noise, targets
        self.history_weight, self.last_phase, self.context_decay = history_weight, last_phase, context_decay

    @classmethod
    def problems(cls, part: Part, recipe: Recipe) -> list[str]:
        """See :meth:`DigitObjective.problems`."""
        problems = super().problems(part, recipe)
        options, usual = part.options, as_part(part.kind, part.name).options
        joint = options["stream"] == "joint"
        if not options["history_weight"]:
            problems += [
                f"objective.{key} = {options[key]} does nothing with objective.history_weight = 0, by which histories are "
                "neither hidden nor learnt; leave it out, or raise the weight"
                for key in (("last_phase",) if joint else ("last_phase", "context_decay", "history_noise"))
                if options[key] != usual[key]
            ]
        if joint and recipe.noising != Recipe(recommender=recipe.recommender).noising:
            problems.append(
                f"noising.name = {recipe.noising.name} does nothing with objective.stream = joint, where "
                "objective.history_noise says what is hidden of history and target; leave the section noising out, or set "
                "objective.stream to two_passes"
            )
        return problems

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
        is_last = self.last_phase > 0 and context.progress >= 1 - self.last_phase
        hides_history = self.history_weight > 0 and not is_last
        if self.stream == "joint":
            weight = self.history_weight if hides_history else 0.0
            return self.sequence_loss(batch, memory, generator, context, weight)
        loss = super().digit_loss(batch, memory, generator, context)
        if not hides_history:
            return loss
        return loss + self.history_weight * self.sequence_loss(batch, memory, generator, context)

    def sequence_loss(
        self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext, history_weight: float = 1.0
    ) -> Tensor:
        """The loss of the hidden digits of a batch's sequences, as one number in nats.

        Args:
            memory: of the batch's histories.
            generator: draws which are hidden.
            history_weight: of a digit of the history beside 1 of the target; 0: none of it is hidden.
        """
        hidden = self.hidden(self.history_noise, batch, generator, history_weight)
        denoise = contract(self.network, DenoisesSequences).denoise_sequence
        return self.loss_of_hidden(denoise(hidden.codes[:, -1], hidden.mask, memory), hidden)

    def hidden(self, noise: str, batch: Batch, generator: torch.Generator, history_weight: float) -> HiddenSequences:
        """A batch's sequences, of which ``noise`` hides digits; see :meth:`sequence_loss`."""
        (history, known), target = self._history(batch), self.codes[batch.target]
        codes = torch.cat([history, target[:, None]], 1)  # [N, T, n]
        valid = F.pad(known, (0, 1), value=True)
        counted = valid.float() * history_weight
        counted[:, -1] = 1.0
        learnt = counted > 0  # [N, T] items that may be hidden
        hidden = hide(noise, (len(codes), codes.shape[1]), codes.shape[2], generator)
        mask, weight = hidden.mask & learnt[..., None], counted / hidden.rate
        places = learnt.sum()
        if self.stream == "two_passes":
            places = torch.full_like(places, len(codes) * (contract(self.network, EncodesHistories).max_len + 1))
        return HiddenSequences(codes, mask, weight, places, valid, batch.weight)

    def loss_of_hidden(self, logits: Tensor, hidden: HiddenSequences) -> Tensor:
        """The weighted cross-entropy of hidden digits by logits [N, T, n, K], as one number."""
        codes, mask = hidden.codes, hidden.mask
        weight = hidden.weight[..., None].expand(mask.shape)
        if self.context_decay is not None:
            weight = weight * near_known(mask, hidden.valid, self.context_decay)
        weight = weight[mask]
        losses = code_losses(logits[mask], codes[mask], digits_of(mask), self.label_smoothing, self.close)
        total = weight.sum() if self.reduction == "token_mean" else hidden.places * codes.shape[2]
        if hidden.counts is not None:
            losses = losses * hidden.counts[:, None, None].expand(mask.shape)[mask]
        return (losses * weight).sum() / total.clamp(min=1e-9)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        mine = self.stream, self.history_noise, self.history_weight, self.last_phase, self.targets, self.context_decay
        return ["history diffusion", *mine, *super().identity()]
