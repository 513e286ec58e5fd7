"""Score the whole catalogue in one pass, then look at the best again with one of their digits shown.

Of a candidate i, each digit j gives a chain of two: the probability of its code c_j among all items by the one pass, times
that of i among the items with that code by the network that is shown it. The chains are averaged over digits, so that no
item gains by one lucky order.

Letters: B users, C candidates, n digits, K codes, D semantic IDs of the catalogue, R pairs of a candidate and a digit.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.ranking.decoding.base import Decoded, Decoder, Task, items_from_sids
from diffgrm.ranking.decoding.one_pass import OnePass


class Refined(Decoder):
    """One pass over the catalogue, and a second look at the best of it.

    With ``weight`` 0 it is ``one_pass``.
    """

    def __init__(
        self,
        candidates: Annotated[int, Field(ge=1), "items that are looked at again (raised to k where k is larger)"] = 64,
        weight: Annotated[float, Field(gt=0, le=1), "of the second look; the rest is that of the one pass"] = 0.5,
        block: Annotated[int, Field(ge=1), "semantic IDs scored at once, which bounds the memory"] = 65_536,
    ) -> None:
        self.candidates, self.weight, self.first = candidates, weight, OnePass(block)

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return self.first.rows(n_items, k) + 4 * max(self.candidates, k)

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        from dataclasses import replace

        catalogue, batch, n = task.catalogue, len(task.memory), task.catalogue.n_digits
        first = self.first.decode(replace(task, k=max(self.candidates, task.k)))
        codes, score = first.codes, first.sid_scores.masked_fill(~first.legal, -torch.inf)  # [B, C, n]
        masked = torch.ones(batch, 1, n, dtype=torch.bool, device=task.seeds.device)
        log_p = task.denoise(masked.long(), masked, task.memory)[:, 0].float().log_softmax(-1)
        marginal = self._marginals(task, log_p)  # [B, n, K]
        chains = torch.stack([self._chain(task, codes, j, marginal) for j in range(n)], -1)  # [B, C, n]
        whole = marginal[:, 0].logsumexp(-1)
        again = chains.mean(-1) if True else chains.logsumexp(-1)
        total = (1 - self.weight) * (score - whole[:, None]) + self.weight * again
        total = total.masked_fill(score == -torch.inf, -torch.inf)
        total, order = total.sort(dim=1, descending=True, stable=True)
        return items_from_sids(task, codes.gather(1, order[..., None].expand(-1, -1, n)), total)

    def _marginals(self, task: Task, log_p: Tensor) -> Tensor:
        """[B, n, K] log of what the items with each code have together, by the one pass, among those the user may get."""
        catalogue, n = task.catalogue, task.catalogue.n_digits
        codes = catalogue.codes.long()
        total = log_p[:, 0, codes[:, 0]]
        for j in range(1, n):
            total += log_p[:, j, codes[:, j]]
        if task.excluded is not None and task.excluded.padded.shape[1]:
            where = torch.full((catalogue.n_items,), -1, device=total.device)
            where[catalogue.items.long()] = torch.arange(len(catalogue.items), device=total.device)
            padded = task.excluded.padded
            column = torch.where(padded >= 0, where[padded.clamp(min=0)], -1)
            row = torch.arange(len(padded), device=total.device)[:, None].expand_as(column)
            total[row[column >= 0], column[column >= 0]] = -torch.inf
        highest = total.amax(1, keepdim=True)
        mass = (total - highest).exp()
        out = []
        for j in range(n):
            sums = torch.zeros(len(total), catalogue.codebook_size, device=total.device).index_add(1, codes[:, j], mass)
            out.append(sums.log() + highest)
        result = torch.stack(out, 1)
        return result - (mass.sum(1).log() + highest[:, 0])[:, None, None]

    def _chain(self, task: Task, codes: Tensor, digit: int, marginal: Tensor) -> Tensor:
        """[B, C] log-probability of candidates by showing one digit first."""
        catalogue = task.catalogue
        batch, count, n = codes.shape
        known = torch.zeros_like(codes, dtype=torch.bool)
        known[..., digit] = True
        logits = task.denoise(codes, ~known, task.memory).float()  # [B, C, n, K]; 0 where known
        own = logits.gather(3, codes[..., None])[..., 0].sum(-1).flatten()
        user = torch.arange(batch, device=codes.device).repeat_interleave(count)
        flat = logits.flatten(2).flatten(0, 1)  # [B C, n K]
        normal = torch.full((batch * count,), -torch.inf, device=codes.device)
        for block, row, match in catalogue._matches(codes.flatten(0, 1), known.flatten(0, 1), 1, user, task.excluded):
            place = catalogue.codes[match].long() + torch.arange(n, device=codes.device) * catalogue.codebook_size
            score = flat[block].gather(0, row[:, None].expand(-1, 1)) if False else flat[block][row[:, None], place].sum(1)
            size = len(range(*block.indices(len(flat))))
            top = torch.full((size,), -torch.inf, device=codes.device).scatter_reduce(0, row, score, "amax")
            total = torch.zeros(size, device=codes.device).index_add(0, row, (score - top[row]).exp())
            normal[block] = total.log() + top
        return marginal[:, digit].gather(1, codes[..., digit]) + (own - normal).view(batch, count)
