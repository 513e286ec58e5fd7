"""Independent random masks, the common way to train masked diffusion; controls for OCN."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import OnlyWith
from diffgrm.learning.noising.base import NoisingContext, NoisingSchedule, Views


class RandomNoising(NoisingSchedule):
    """Each view hides digits drawn without regard to the other views."""

    only_with: ClassVar[OnlyWith] = (("p", "draw", ("fixed_p",)), ("all_masked", "draw", ("k_of_n", "fixed_p")))
    not_with: ClassVar[OnlyWith] = (("p", "all_masked", (1,)),)

    def __init__(
        self,
        draw: Annotated[
            Literal["uniform_t", "k_of_n", "fixed_p"],
            "uniform_t: rate t uniform in (0, 1], loss weighed by 1/t (LLaDA); k_of_n: k uniform in 1..n, any k digits; "
            "fixed_p: every digit with probability p",
        ] = "uniform_t",
        p: Annotated[float, Field(gt=0, le=1), "fixed_p: probability that a digit is hidden"] = 0.5,
        views: Annotated[int | None, Field(ge=1, le=1024), "views of each target; null: as many as digits"] = None,
        all_masked: Annotated[
            float, Field(ge=0, le=1), "probability that a view hides every digit, whatever was drawn (SPRINT's rho)"
        ] = 0.0,
    ) -> None:
        self.draw, self.p, self.n_views, self.all_masked = draw, p, views, all_masked

    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        """See :meth:`NoisingSchedule.views`. With ``uniform_t`` a hidden digit counts 1/t, so that a view's loss is an
        unbiased estimate of the likelihood bound, divided by n."""
        batch, n = codes.shape
        shape = (batch, self.n_views or n, n)
        uniform = torch.rand(shape, generator=context.generator, device=codes.device)
        if self.draw == "k_of_n":
            k = torch.randint(1, n + 1, shape[:2], generator=context.generator, device=codes.device)
            return Views.equal(self._or_all(uniform.argsort(-1).argsort(-1) < k[..., None], context.generator))
        if self.draw == "fixed_p":
            return Views.equal(self._or_all(uniform < self.p, context.generator))
        rate = 1 - torch.rand(shape[:2], generator=context.generator, device=codes.device)  # (0, 1]
        mask = uniform < rate[..., None]
        return Views(mask, mask.sum(-1) / (n * rate), 1 / rate)

    def _or_all(self, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The views, of which some hide every digit instead."""
        if not self.all_masked:
            return mask
        return mask | (torch.rand(mask.shape[:2], generator=generator, device=mask.device) < self.all_masked)[..., None]
