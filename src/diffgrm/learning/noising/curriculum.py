"""A curriculum of hidden digits, as in MDGR (arXiv 2601.19501): more of them as training goes on, strange ones first."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.learning.noising.base import NoisingContext, NoisingSchedule, Views


class CurriculumNoising(NoisingSchedule):
    """Each view hides k digits, those first that are rare in the user's history; k is uniform in 1..m, and m grows.

    It grows from 1 to n while the share ``until`` of training is done: m = max(1, ceil(n min(1, progress / until))). Were n
    reached only at the end, training would hardly meet what every search begins with, all digits hidden.

    How rare a digit is: of how few items of the history the same digit has the same code; who are alike is drawn. The paper
    says that masks follow time and interest; its formulas were not to be had, so both are our reading.
    """

    def __init__(
        self,
        hidden_first: Annotated[
            Literal["rare", "random"],
            "rare: digits whose code few items of the user's history have; random: any, which leaves the curriculum alone",
        ] = "rare",
        until: Annotated[
            float, Field(gt=0, le=1), "share of training that is done when as many as all digits may be hidden"
        ] = 0.25,
        views: Annotated[int | None, Field(ge=1, le=1024), "views of each target; null: as many as digits"] = None,
    ) -> None:
        self.hidden_first, self.until, self.n_views = hidden_first, until, views

    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        """See :meth:`NoisingSchedule.views`."""
        batch, n = codes.shape
        shape = (batch, self.n_views or n, n)
        most = max(1, math.ceil(n * min(1.0, context.learning.progress / self.until)))
        count = torch.randint(1, most + 1, shape[:2], generator=context.generator, device=codes.device)
        order = torch.rand(shape, generator=context.generator, device=codes.device)  # in [0, 1), so that it settles ties
        if self.hidden_first == "rare":
            digits, known = context.history()
            alike = (digits == codes[:, None]) & known[..., None]  # [N, S, n]
            order = order + alike.sum(1)[:, None]
        return Views.equal(order.argsort(-1).argsort(-1) < count[..., None])
