"""Nested views in random order: coherence without confidence, a control for OCN."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.noising.base import NoisingContext, NoisingSchedule, Views, nested_views


class CoherentNoising(NoisingSchedule):
    """View t hides the first t digits of an order drawn anew for every target."""

    def __init__(
        self,
        shown: Annotated[
            tuple[Annotated[int, Field(ge=0)], ...] | None,
            Field(min_length=1),
            "views by how many digits they show, for example [0, 1]; null: 0 to n - 1",
        ] = None,
    ) -> None:
        self.shown = shown

    def check(self, n_digits: int, n_items: int) -> None:
        """See :meth:`NoisingSchedule.check`."""
        if self.shown is not None and (wrong := [shown for shown in self.shown if not 0 <= shown < n_digits]):
            raise RecipeError(
                f"noising.shown names views that show {', '.join(map(str, wrong))} of {n_digits} digits and so hide none; "
                f"expected 0 to {n_digits - 1}"
            )

    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        """See :meth:`NoisingSchedule.views`."""
        self.check(codes.shape[1], n_items=0)  # which it does not ask
        order = torch.rand(codes.shape, generator=context.generator, device=codes.device).argsort(-1)
        views = nested_views(order)
        if self.shown is None:
            return views
        chosen = [codes.shape[1] - 1 - shown for shown in self.shown]
        return Views(*(part[:, chosen] for part in views))
