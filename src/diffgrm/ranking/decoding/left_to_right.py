"""Beam search from the first digit to the last, for autoregressive networks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.contracts import PredictsDigits
from diffgrm.ranking.decoding.base import Decoded, Decoder, Task, items_from_sids


class LeftToRight(Decoder):
    """Every step extends each beam by one digit and keeps the best W; the catalogue rules out prefixes without an item."""

    asks: ClassVar[str] = "next_digit"
    needs: ClassVar[tuple[type, ...]] = (PredictsDigits,)

    def __init__(
        self,
        beam: Annotated[int, Field(ge=1, le=2**16), "W, prefixes kept for each user (raised to k where k is larger)"] = 64,
        constrained: Annotated[
            bool, "true: the catalogue rules out codes at every step; false: SIDs without an item are dropped at the end"
        ] = True,
        renormalise: Annotated[
            bool, "probabilities are among the codes that still lead to an item, as objective.legal teaches them"
        ] = False,
    ) -> None:
        if renormalise and not constrained:
            raise RecipeError("decoding.renormalise does nothing with decoding.constrained = false; leave one of them out")
        self.beam, self.constrained, self.renormalise = beam, constrained, renormalise

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return max(self.beam, k)

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        catalogue, batch, device = task.catalogue, len(task.memory), task.seeds.device
        n, K, width = catalogue.n_digits, catalogue.codebook_size, max(self.beam, task.k)
        codes = torch.zeros(batch, 1, n, dtype=torch.long, device=device)
        score, last = torch.zeros(batch, 1, device=device), None
        prefix: Any = None
        for digit in range(n):
            logits, prefix = task.next_digit(last, prefix, task.memory)
            allowed = None
            if self.constrained:
                known = (torch.arange(n, device=device) < digit).expand_as(codes)
                allowed = catalogue.allowed(codes, known, task.excluded)[:, :, digit]
            if self.renormalise and allowed is not None:  # nothing is allowed after a prefix that was not
                logits = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
            total = score[..., None] + logits.log_softmax(-1)  # [B, W, K]
            if allowed is not None:
                total = total.masked_fill(~allowed, -torch.inf)
            score, index = total.flatten(1).topk(min(width, total[0].numel()), dim=1)
            parent, last = index // K, index % K
            codes = codes.gather(1, parent[..., None].expand(-1, -1, n)).clone()
            codes[..., digit] = last
            if digit < n - 1:
                prefix = prefix.take(parent)
        steps = torch.arange(n, device=device).expand_as(codes)
        return items_from_sids(task, codes, score, steps)
