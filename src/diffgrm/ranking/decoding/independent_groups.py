"""PUNT (arXiv 2510.21961): every step fills a group of digits that hardly depend on each other.

The group is found by halving. Digits are numbered by confidence, the surest being 0. For each binary place of the numbers,
the digits with a 0 there are filled in on trial, and of the others those leave the group whose probabilities change by it.
The surest digit always stays. So a step asks 1 + ceil(log2 m) questions, m being the unknown digits, which pays from about
16 digits on.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import OnlyWith
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.base import Task
from diffgrm.ranking.decoding.beams import Beams


class IndependentGroups(AnyOrderBeam):
    """Beam search that fills, in every step, digits that are nearly independent given those known.

    The group is that of the user's best beam; the same digits of all beams are filled from one answer of the network (how
    beams share a group is our reading). Users are decoded one by one, since their groups differ.
    """

    only_with: ClassVar[OnlyWith] = ()

    def __init__(
        self,
        beam: Annotated[
            int, Field(ge=1, le=2**16), "W, partial SIDs kept for each user (raised to k where k is larger)"
        ] = 64,
        tolerance: Annotated[
            float,
            Field(ge=0),
            "nats of Kullback-Leibler divergence by which a digit's probabilities may change when others are filled in",
        ] = 0.1,
        merge: Annotated[
            Literal["best_path", "sum_paths"],
            "one SID reached by several orders scores as its best order, or as the log of the sum over them",
        ] = "best_path",
        seed: int = 0,
    ) -> None:
        super().__init__(beam=beam, merge=merge, seed=seed)
        self.tolerance = tolerance

    def _steps_differ(self) -> bool:
        return True

    def _group(self, task: Task, beams: Beams, log_p: Tensor, sizes: list[int], step: int) -> tuple[int, Tensor | None]:
        codes, known, log_p = beams.codes[:, :1], beams.known[:, :1], log_p[0, 0]  # of the best beam; [n, K]
        allowed = task.catalogue.allowed(codes, known, task.excluded)[0, 0]
        confidence, likeliest = log_p.masked_fill(~allowed, -torch.inf).max(-1)
        numbers = confidence.argsort(descending=True, stable=True).argsort()  # of known digits the last
        unknown = ~known[0, 0]
        group, count = unknown.clone(), int(unknown.sum())
        for place in range((count - 1).bit_length()):
            ones = (numbers >> place & 1).bool()
            trial, others = group & ~ones, group & ones
            if not others.any():
                continue
            filled = known | trial
            asked = torch.where(trial, likeliest, codes)
            changed = task.denoise(asked, ~filled, task.memory)[0, 0].float().log_softmax(-1)
            divergence = (log_p.exp() * (log_p - changed)).nan_to_num(nan=0.0).sum(-1)  # 0 where p is 0
            group &= ~(others & (divergence > self.tolerance))
        return int(group.sum()), group[None]
