"""Nested views in random order: coherence without confidence, a control for OCN."""

from __future__ import annotations

import torch
from torch import Tensor

from diffgrm.learning.noising.base import NoisingContext, NoisingSchedule, Views, nested_views


class CoherentNoising(NoisingSchedule):
    """View t hides the first t digits of an order drawn anew for every target."""

    def __init__(self) -> None:
        pass

    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        """See :meth:`NoisingSchedule.views`."""
        return nested_views(torch.rand(codes.shape, generator=context.generator, device=codes.device).argsort(-1))
