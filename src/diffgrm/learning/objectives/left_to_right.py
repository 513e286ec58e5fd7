"""The objective of left-to-right networks: every digit from those before it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.losses import code_losses, digits_of, weighted_mean
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.digits import DigitObjective, ask_targets
from diffgrm.learning.smoothing import LabelSmoothing, SmoothingTemperature, over_near_codes
from diffgrm.networks.contracts import PredictsDigits, contract
from diffgrm.ranking.catalogue import Catalogue


class LeftToRightObjective(DigitObjective):
    """Teacher forcing."""

    needs: ClassVar[tuple[type, ...]] = (PredictsDigits,)

    def __init__(
        self,
        task: LearningTask,
        label_smoothing: LabelSmoothing = 0.1,
        legal: Annotated[bool, "codes that lead to no item after the digits before them do not compete"] = False,
        smoothing_temperature: SmoothingTemperature = None,
    ) -> None:
        super().__init__(task, label_smoothing, smoothing_temperature)
        self.legal = legal
        self._catalogue: Catalogue | None = None

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`DigitObjective.digit_loss`; the mean over targets and digits."""
        target = self.codes[batch.target]  # [N, n]
        logits = ask_targets(
            contract(self.network, PredictsDigits).predict, (target[:, None],), memory, batch
        )  # [N, 1, n, K]
        if self.legal:
            losses = self._legal_losses(logits[:, 0], target)
        else:
            digit = digits_of(torch.ones_like(target, dtype=torch.bool))
            losses = code_losses(logits.flatten(0, 2), target.flatten(), digit, self.label_smoothing, self.close)
            losses = losses.view_as(target)
        return weighted_mean(losses, batch.weight)

    def _legal_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """[N, n] cross-entropy of targets by logits [N, n, K] among the codes that still lead to an item."""
        allowed = self._allowed(target, logits.shape[2])
        log_p = logits.float().masked_fill(~allowed, -torch.inf).log_softmax(-1)  # [N, n, K]
        own = log_p.gather(2, target[..., None])[..., 0]
        spread = (log_p.masked_fill(~allowed, 0) * self._spread(target, allowed)).sum(-1)
        return -((1 - self.label_smoothing) * own + self.label_smoothing * spread)

    def _spread(self, target: Tensor, allowed: Tensor) -> Tensor:
        """[N, n, K] or [N, n, 1] what of the smoothed mass of targets [N, n] goes to each allowed code [N, n, K]."""
        if self.close is None:
            return 1 / allowed.sum(-1, keepdim=True)
        digit = torch.arange(target.shape[1], device=target.device)
        return over_near_codes(self.close[digit, target], target, allowed)

    def _allowed(self, codes: Tensor, codebook_size: int) -> Tensor:
        """[N, n, K] codes that lead to an item after the digits before each of items' codes [N, n]."""
        if self._catalogue is None or self._catalogue.device != codes.device:
            self._catalogue = Catalogue(self.codes, codebook_size)
        n, allowed = codes.shape[1], []
        for digit in range(n):
            known = (torch.arange(n, device=codes.device) < digit).expand(len(codes), 1, n)
            allowed.append(self._catalogue.allowed(codes[:, None], known)[:, 0, digit])
        return torch.stack(allowed, 1)

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """See :meth:`DigitObjective.log_likelihood`; every digit given those before it."""
        logits = contract(self.network, PredictsDigits).predict(codes[:, None], memory)[:, 0]
        if self.legal:
            logits = logits.masked_fill(~self._allowed(codes, logits.shape[2]), -torch.inf)
        return logits.float().log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["left to right", *self.smoothing, *(["legal"] * self.legal), *self.items.identity()]
