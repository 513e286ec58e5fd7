"""The objective of DiffGRM: noise the target, denoise it, compare (paper, section 3.3; floor 4)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from diffgrm.data.batches import Batch
from diffgrm.decoding.base import Decoder
from diffgrm.decoding.ranker import evaluating
from diffgrm.losses import masked_cross_entropy
from diffgrm.noising.base import NoisingSchedule
from diffgrm.recipe import LossSettings
from diffgrm.training.sid_objective import SidObjective, ask_targets, encode


class DiffusionObjective(SidObjective):
    """Masked diffusion over semantic IDs; the other arguments are those of :class:`SidObjective`.

    Args:
        network: has ``denoise`` too.
        noising: which digits are hidden.
    """

    def __init__(
        self,
        network: nn.Module,
        noising: NoisingSchedule,
        loss: LossSettings,
        codes: Tensor,
        codebook_size: int,
        decoder: Decoder,
    ) -> None:
        super().__init__(network, loss, codes, codebook_size, decoder)
        self.noising = noising

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """See :meth:`Objective.loss`."""
        return batch_loss(self.network, self.noising, self.settings, self.codes, batch, generator)

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """See :meth:`SidObjective.log_likelihood`; every digit while all are masked."""
        hidden = torch.ones_like(codes, dtype=torch.bool)[:, None]
        logits = cast(Any, self.network).denoise(codes[:, None], hidden, memory)[:, 0]
        return logits.float().log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        noising = f"{type(self.noising).__qualname__}{sorted(vars(self.noising).items())}"
        return ["diffusion", self.settings.model_dump(), noising, self.codes.cpu().numpy()]


def batch_loss(
    network: Any, noising: NoisingSchedule, loss: LossSettings, codes: Tensor, batch: Batch, generator: torch.Generator
) -> Tensor:
    """The loss of a batch: noise the targets, denoise them, compare.

    Args:
        codes: [I, n] codes of all items.
        generator: draws the masks of schedules that draw.
    """
    target = codes[batch.target]  # [N, n]

    def ask(codes_asked: Tensor, mask: Tensor) -> Tensor:
        """Logits [N, Q, n, K] of questions [N, Q, n]."""
        return ask_targets(network.denoise, (codes_asked, mask), encode(network, codes, batch), batch)

    def probe(codes_asked: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad(), evaluating(network):
            return ask(codes_asked, mask)

    views = noising.views(target, probe, generator)
    logits = ask(target[:, None].expand(views.mask.shape), views.mask)
    return masked_cross_entropy(logits, target, views, reduction=loss.reduction, label_smoothing=loss.label_smoothing)
