"""EPIC's objective (arXiv 2609.03522): the posterior over items that steers the digits of a frozen network.

Letters: N targets, V views of each, R = N V, n digits, P pairs of a view and an item that fits it, C the items that fit a
view, M those that are looked at at most.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part, as_part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.losses import masked_cross_entropy, weighted_mean
from diffgrm.learning.noising.base import Views
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.contracts import SteersDigits, contract
from diffgrm.networks.item_posterior import Candidates, Steered, sum_of_rows
from diffgrm.ranking.candidates import candidates
from diffgrm.ranking.catalogue import Catalogue


class EpicObjective(DiffusionObjective):
    """Cross-entropy of the target's hidden digits by steered logits, and of the target among the items that fit.

    In full: CE(digits) + item_weight * CE(item) + spread_weight * hidden share * CE(a target spread over the items). The
    item losses are of views only that 2 to M items fit: of one there is nothing to learn, and of more some are not looked
    at. Spread targets are in proportion to exp(-share of digits in which an item differs from the target / temperature).

    The frozen network learns nothing, and has no dropout. That the item losses are means over all views, those left out
    counting as 0, that digits are compared over all n, and the weights, which the paper does not give, are our reading.
    """

    needs: ClassVar[tuple[type, ...]] = (SteersDigits,)
    sections: ClassVar[tuple[str, ...]] = ("noising",)

    def __init__(
        self,
        task: LearningTask,
        item_weight: Annotated[float, Field(ge=0), "beta, weight of the target among the items that fit a view"] = 1.0,
        spread_weight: Annotated[float, Field(ge=0), "eta, weight of targets that are spread over like items"] = 0.1,
        spread_temperature: Annotated[
            float, Field(gt=0), "how far: an item counts exp(-share of digits that differ / temperature)"
        ] = 0.25,
    ) -> None:
        super().__init__(task, label_smoothing=0.0)
        self.item_weight, self.spread_weight, self.spread_temperature = item_weight, spread_weight, spread_temperature
        self._catalogue: Catalogue | None = None
        self.network.get_submodule("backbone").requires_grad_(False)

    @classmethod
    def check(cls, part: Part, recipe: Recipe) -> None:
        """See :meth:`Objective.check`."""
        found = part.options["spread_temperature"]
        if not part.options["spread_weight"] and found != as_part(part.kind, part.name).options["spread_temperature"]:
            raise RecipeError(
                f"objective.spread_temperature = {found} does nothing with objective.spread_weight = 0; leave it out, or "
                "raise the weight"
            )

    @property
    def shared(self) -> bool:
        """Never: a posterior is of one history."""
        return False

    def loss(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`Objective.loss`."""
        with evaluating(contract(self.network, SteersDigits).backbone):
            return super().loss(batch, generator, context)

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`DigitObjective.digit_loss`; with the losses of items."""
        target, views = self.codes[batch.target], self.views(batch, generator, context)
        told = self._steered(target[:, None].expand(views.mask.shape), views.mask, memory)
        digits = masked_cross_entropy(told.logits, target, views, weight=batch.weight)
        return digits + self.item_loss(told, batch.target, views, batch.weight)

    def item_loss(self, told: Steered, target: Tensor, views: Views, weight: Tensor | None = None) -> Tensor:
        """The losses of the targets [N] among the items that fit their views, as one number in nats.

        Args:
            weight: [N] see :func:`diffgrm.learning.losses.weighted_mean`.
        """
        (targets, count, _), found = views.mask.shape, told.candidates
        rows, target = targets * count, target.repeat_interleave(count)  # [R]
        counted = (found.fitting >= 2) & (found.row.bincount(minlength=rows) == found.fitting)
        log_share = torch.where(counted[found.row], told.log_share, 0)
        losses = self.item_weight * sum_of_rows(-log_share * (found.item == target[found.row]), found.row, rows)
        if self.spread_weight:
            differing = (self.codes[found.item] != self.codes[target[found.row]]).float().mean(1)
            near = (-differing / self.spread_temperature).exp()
            wanted = near / sum_of_rows(near, found.row, rows)[found.row]
            spread = sum_of_rows(-wanted * log_share, found.row, rows)
            losses = losses + self.spread_weight * views.mask.flatten(0, 1).float().mean(1) * spread
        return weighted_mean((losses * views.view_weight.flatten()).view(targets, count), weight)

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """See :meth:`DigitObjective.log_likelihood`; by steered logits, every digit while all are masked."""
        hidden = torch.ones_like(codes, dtype=torch.bool)[:, None]
        logits = self._steered(codes[:, None], hidden, memory).logits[:, 0]
        return logits.log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def _steered(self, codes: Tensor, mask: Tensor, memory: Any) -> Steered:
        """What the network says of views [N, V, n], among all items."""

        def choose(log_p: Tensor, most: int) -> Candidates:
            known = (~mask).flatten(0, 1)
            return candidates(self._looked_up(log_p.shape[-1]), codes.flatten(0, 1), known, log_p.flatten(0, 1), most)

        return contract(self.network, SteersDigits).steered(codes, mask, memory, choose)

    def _looked_up(self, codebook_size: int) -> Catalogue:
        """All items by their codes, on the device of these, made once."""
        if self._catalogue is None or self._catalogue.device != self.codes.device:
            self._catalogue = Catalogue(self.codes, codebook_size)
        return self._catalogue

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`; with the weights of the frozen network, which no training gives."""
        frozen = [weight.detach().cpu().numpy() for weight in self.network.get_submodule("backbone").parameters()]
        mine = self.item_weight, self.spread_weight, self.spread_temperature
        return ["epic", *mine, *frozen, *super().identity()]
