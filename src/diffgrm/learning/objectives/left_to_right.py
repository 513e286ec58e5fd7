"""The objective of left-to-right networks: every digit from those before it (floor 4)."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from diffgrm.learning.batches import Batch
from diffgrm.learning.objectives.sid_objective import SidObjective, ask_targets


class AutoregressiveObjective(SidObjective):
    """Teacher forcing; the network has ``predict``, the decoder asks ``next_digit``."""

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator) -> Tensor:
        """See :meth:`SidObjective.digit_loss`; the mean over targets and digits."""
        target = self.codes[batch.target]  # [N, n]
        logits = ask_targets(cast(Any, self.network).predict, (target[:, None],), memory, batch)  # [N, 1, n, K]
        return F.cross_entropy(
            logits.flatten(0, 2).float(), target.flatten(), label_smoothing=self.settings.label_smoothing
        )

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """See :meth:`SidObjective.log_likelihood`; every digit given those before it."""
        logits = cast(Any, self.network).predict(codes[:, None], memory)[:, 0]
        return logits.float().log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        return ["autoregressive", *super().identity()]
