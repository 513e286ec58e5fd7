"""No diffusion: one view with every digit hidden, a control that learns independent digits."""

from __future__ import annotations

import torch
from torch import Tensor

from diffgrm.learning.noising.base import NoisingContext, NoisingSchedule, Views


class FullMaskNoising(NoisingSchedule):
    """A single fully masked view."""

    def __init__(self) -> None:
        pass

    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        """See :meth:`NoisingSchedule.views`."""
        return Views.equal(torch.ones_like(codes, dtype=torch.bool)[:, None])
