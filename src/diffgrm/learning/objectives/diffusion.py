"""The objective of DiffGRM: noise the target, denoise it, compare (paper, section 3.3; floor 4)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from diffgrm.learning.batches import Batch
from diffgrm.learning.losses import masked_cross_entropy
from diffgrm.learning.noising.base import NoisingSchedule
from diffgrm.learning.objectives.sid_objective import SidObjective, ask_targets
from diffgrm.networks.blocks import evaluating


class DiffusionObjective(SidObjective):
    """Masked diffusion over semantic IDs; the other arguments are those of :class:`SidObjective`.

    Args:
        network: has ``denoise`` too.
        noising: which digits are hidden.
    """

    def __init__(self, network: nn.Module, noising: NoisingSchedule, *arguments: Any) -> None:
        super().__init__(network, *arguments)
        self.noising = noising

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator) -> Tensor:
        """Noise the targets, denoise them, compare; see :meth:`SidObjective.digit_loss`."""
        target = self.codes[batch.target]  # [N, n]
        denoise = cast(Any, self.network).denoise

        def probe(codes: Tensor, mask: Tensor) -> Tensor:
            with torch.no_grad(), evaluating(self.network):
                return ask_targets(denoise, (codes, mask), self.encode(batch), batch)

        views = self.noising.views(target, probe, generator)
        logits = ask_targets(denoise, (target[:, None].expand(views.mask.shape), views.mask), memory, batch)
        reduction, smoothing = self.settings.reduction, self.settings.label_smoothing
        return masked_cross_entropy(logits, target, views, reduction=reduction, label_smoothing=smoothing)

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """See :meth:`SidObjective.log_likelihood`; every digit while all are masked."""
        hidden = torch.ones_like(codes, dtype=torch.bool)[:, None]
        logits = cast(Any, self.network).denoise(codes[:, None], hidden, memory)[:, 0]
        return logits.float().log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        noising = f"{type(self.noising).__qualname__}{sorted(vars(self.noising).items())}"
        return ["diffusion", noising, *super().identity()]
