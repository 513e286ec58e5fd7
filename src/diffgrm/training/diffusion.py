"""The objective of DiffGRM: noise the target, denoise it, compare (paper, section 3.3; floor 4)."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.catalogue import Catalogue
from diffgrm.data.batches import Batch
from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.decoding.base import Decoder
from diffgrm.decoding.ranker import Ranker, evaluating
from diffgrm.losses import masked_cross_entropy
from diffgrm.noising.base import NoisingSchedule
from diffgrm.recipe import LossSettings
from diffgrm.training.objective import Objective

OBSERVED = 1024  # validation users whose digits' difficulty is logged


class DiffusionObjective(Objective):
    """Masked diffusion over semantic IDs.

    Args:
        network: has ``encode_history``, ``denoise`` and ``max_len``.
        codes: [I, n] codes of all items.
        decoder: ranks during validation.
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
        super().__init__()
        self.network, self.noising, self.settings, self.decoder = network, noising, loss, decoder
        self.codebook_size = codebook_size
        self.codes: Tensor
        self.register_buffer("codes", codes, persistent=False)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """See :meth:`Objective.loss`."""
        return batch_loss(self.network, self.noising, self.settings, self.codes, batch, generator)

    def rank(self, histories: Ragged, k: int) -> np.ndarray:
        """See :meth:`Objective.rank`."""
        return self._ranker().rank(histories, k, exclude_seen=True)[0]

    def observe(self, validation: EvaluationSet) -> dict[str, float]:
        """How hard each digit is: its negative log-likelihood in nats when all are masked, mean over users and targets."""
        users = np.arange(min(len(validation), OBSERVED))
        targets = validation.targets.rows(users)
        total, device = torch.zeros(self.codes.shape[1], device=self.codes.device), self.codes.device
        with torch.no_grad(), evaluating(self.network):
            for rows, memory in self._ranker().encoded(validation.histories.rows(users), rows=1):
                hidden = torch.ones(len(rows), 1, self.codes.shape[1], dtype=torch.bool, device=device)
                log_p = cast(Any, self.network).denoise(hidden.long(), hidden, memory)[:, 0].float().log_softmax(-1)
                wanted = targets.rows(rows)
                row = torch.from_numpy(np.repeat(np.arange(len(rows)), wanted.lengths)).to(device)
                code = self.codes[torch.from_numpy(wanted.values).to(device)]  # [N, n]
                total -= log_p[row].gather(2, code[..., None])[..., 0].sum(0)
        return {f"val_digit_{j}_nll": nll for j, nll in enumerate((total / len(targets.values)).tolist())}

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        noising = f"{type(self.noising).__qualname__}{sorted(vars(self.noising).items())}"
        return ["diffusion", self.settings.model_dump(), noising, self.codes.cpu().numpy()]

    def _ranker(self) -> Ranker:
        return Ranker(self.network, self.decoder, Catalogue(self.codes, self.codebook_size))


def batch_loss(
    network: Any, noising: NoisingSchedule, loss: LossSettings, codes: Tensor, batch: Batch, generator: torch.Generator
) -> Tensor:
    """The loss of a batch: noise the targets, denoise them, compare.

    Args:
        codes: [I, n] codes of all items.
        generator: draws the masks of schedules that draw.
    """
    items, places, valid = batch.histories
    item_codes, target = codes[items], codes[batch.target]  # [M, n], [N, n]

    def ask(codes: Tensor, mask: Tensor) -> Tensor:
        """Logits [N, Q, n, K] of questions [N, Q, n]."""
        memory = network.encode_history(item_codes, places, valid)
        if batch.length.shape[1] == 1:
            return network.denoise(codes, mask, memory)
        codes, mask = (_in_slots(x, batch) for x in (codes, mask))  # [B, T Q, n]
        logits = network.denoise(codes, mask, memory.slots(batch.length))
        return logits.view(batch.length.numel(), -1, *logits.shape[2:])[batch.slot]

    def probe(codes: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad(), evaluating(network):
            return ask(codes, mask)

    views = noising.views(target, probe, generator)
    logits = ask(target[:, None].expand(views.mask.shape), views.mask)
    return masked_cross_entropy(logits, target, views, reduction=loss.reduction, label_smoothing=loss.label_smoothing)


def _in_slots(x: Tensor, batch: Batch) -> Tensor:
    """X [N, Q, n] at the targets' slots: [B, T Q, n], zeros elsewhere."""
    grid = x.new_zeros(batch.length.numel(), *x.shape[1:])
    grid[batch.slot] = x
    return grid.view(len(batch.length), -1, x.shape[-1])
