"""Score the whole catalogue in one pass, then look at the best again with one of their digits shown.

Of a candidate i, each digit j gives a chain of two steps: the probability of its code c_j among all items by the one pass,
times that of i among the items with that code by the network that is shown it. The chains of all digits are averaged, so
that no item gains by one lucky order.

Letters: B users, C candidates, n digits, K codes, D semantic IDs of the catalogue.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.ranking.decoding.base import Decoded, Decoder, Task, items_from_sids
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.digit_sums import log_mass_of_fitting, sum_of_digits


class Refined(Decoder):
    """One pass over the catalogue, and a second look at the best of it, by what ``catalogue_diffusion`` teaches."""

    uses_pairs: ClassVar[bool] = True

    def __init__(
        self,
        candidates: Annotated[int, Field(ge=1), "items that are looked at again (raised to k where k is larger)"] = 32,
        weight: Annotated[float, Field(gt=0, le=1), "of the second look; the rest is that of the one pass"] = 0.5,
    ) -> None:
        self.candidates, self.weight, self.one_pass = candidates, weight, OnePass()

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return self.one_pass.rows(n_items, k) + max(self.candidates, k)

    def unsaid(self) -> str:
        """See :meth:`Decoder.unsaid`."""
        return "The best items were looked at again with one of their digits shown; these confidences are the first look's."

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        count, log_p = max(self.candidates, task.k), task.log_p_all_hidden()
        first = self.one_pass.of_log_p(replace(task, k=count), log_p)
        best = (~first.legal).int().argsort(dim=1, stable=True)[:, :count]  # as many, whatever other users must not get
        codes, legal = (
            first.codes.gather(1, best[..., None].expand(-1, -1, first.codes.shape[2])),
            first.legal.gather(1, best),
        )
        score = first.sid_scores.gather(1, best)  # [B, C]
        whole, of_codes = self._masses(task, log_p)
        again = torch.stack([self._chain(task, codes, digit, of_codes[:, digit]) for digit in range(codes.shape[2])]).mean(
            0
        )
        score = (1 - self.weight) * score + self.weight * again
        score = (score - whole[:, None]).masked_fill(~legal, -torch.inf)
        score, order = score.sort(dim=1, descending=True, stable=True)
        return items_from_sids(task, codes.gather(1, order[..., None].expand_as(codes)), score)

    def _masses(self, task: Task, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """Log of what all items, and those with each code, have together by the one pass: [B] and [B, n, K]; of the items
        that each user may get."""
        catalogue, (batch, n, K) = task.catalogue, log_p.shape
        codes = catalogue.codes.long()
        score = sum_of_digits(log_p, codes)  # [B, R]
        score = score if task.pairs is None else score + task.pairs.of_all(catalogue.items.long())
        if task.excluded is not None and task.excluded.padded.shape[1]:
            place = torch.full((catalogue.n_items + 1,), -1, device=score.device)
            place[catalogue.items.long()] = torch.arange(len(codes), device=score.device)
            column = place[task.excluded.padded]  # -1 points behind the last item
            row = torch.arange(batch, device=score.device)[:, None].expand_as(column)
            score[row[column >= 0], column[column >= 0]] = -torch.inf
        highest = score.amax(1).clamp(min=torch.finfo().min)
        mass = (score - highest[:, None]).exp()
        of_codes = [mass.new_zeros(batch, K).index_add(1, codes[:, digit], mass) for digit in range(n)]
        return mass.sum(1).log() + highest, torch.stack(of_codes, 1).log() + highest[:, None, None]

    def _chain(self, task: Task, codes: Tensor, digit: int, of_codes: Tensor) -> Tensor:
        """[B, C] scores of candidates [B, C, n] by the chain that begins with one digit, whose codes have ``of_codes``
        [B, K] by the one pass."""
        batch, count = codes.shape[:2]
        known = torch.zeros_like(codes, dtype=torch.bool)
        known[..., digit] = True
        logits = task.denoise(codes, ~known, task.memory).float()  # 0 where known
        own = logits.gather(3, codes[..., None])[..., 0].sum(-1)
        user = torch.arange(batch, device=codes.device).repeat_interleave(count)
        excluded = None if task.excluded is None else task.excluded.rows(user)
        row, item = task.catalogue.fitting(codes.flatten(0, 1), known.flatten(0, 1), excluded)
        of_fitting = None
        if task.pairs is not None:
            candidates = task.catalogue.items_of(codes)[..., 0].clamp(min=0)  # an item of each; -1 where there is no SID
            own = own + task.pairs.of_each(candidates.flatten(), user).view(batch, count)
            of_fitting = task.pairs.of_each(item, user[row])
        fitting = log_mass_of_fitting(logits.flatten(0, 1), task.catalogue.codes_of(item), row, of_fitting)
        fitting = fitting.view(batch, count)
        return of_codes.gather(1, codes[..., digit]) + own - fitting
