"""On-policy Coherent Noising (paper, section 3.3): nested views ordered by the network's own confidence."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from diffgrm.learning.noising.base import NoisingContext, NoisingSchedule, Views, nested_views


class ConfidenceNoising(NoisingSchedule):
    """View t hides the t digits that the network is least sure of, so hard digits are practised most."""

    def __init__(
        self,
        order: Annotated[
            Literal["least", "most"], "which digits are hidden in most views; least confident is the paper"
        ] = "least",
        measure: Annotated[
            Literal["msp", "entropy"], "confidence: highest probability of any code, or negative entropy"
        ] = "msp",
        refresh: Annotated[
            Literal["once", "step"],
            "once: one probe of the fully masked target; step: probe again after each digit is revealed",
        ] = "once",
    ) -> None:
        self.order, self.measure, self.refresh = order, measure, refresh

    def views(self, codes: Tensor, context: NoisingContext) -> Views:
        """See :meth:`NoisingSchedule.views`."""
        if self.refresh == "once":
            hidden = torch.ones_like(codes, dtype=torch.bool)
            certainty = confidence(context.probe(codes[:, None], hidden[:, None])[:, 0], self.measure)
            return nested_views(certainty.argsort(dim=-1, descending=self.order == "most", stable=True))
        return nested_views(self._refreshed_order(codes, context))

    def _refreshed_order(self, codes: Tensor, context: NoisingContext) -> Tensor:
        """Reveal the true digits one by one, asking anew each time; the digit revealed last is hidden in every view."""
        hidden = torch.ones_like(codes, dtype=torch.bool)
        revealed = []
        for _ in range(codes.shape[1]):
            certainty = confidence(context.probe(codes[:, None], hidden[:, None])[:, 0], self.measure)
            if self.order == "most":
                certainty = -certainty
            digit = certainty.masked_fill(~hidden, -torch.inf).argmax(-1, keepdim=True)
            revealed.append(digit)
            hidden = hidden.scatter(1, digit, False)
        return torch.cat(revealed[::-1], dim=1)


def confidence(logits: Tensor, measure: str) -> Tensor:
    """How sure a digit's distribution is (equation 10): logits [..., K] -> [...]."""
    log_p = logits.float().log_softmax(-1)
    if measure == "msp":
        return log_p.amax(-1).exp()
    return (log_p.exp() * log_p).sum(-1)
