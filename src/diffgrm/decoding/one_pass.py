"""Score the whole catalogue in one pass: the sum of the digits' log-probabilities when all are masked."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from diffgrm.decoding.base import Decoded, Decoder, Task, pad_columns


class OnePass(Decoder):
    """Exact top-k under independent digits; no beam. Items that share a SID tie, in order of position."""

    def __init__(
        self, block: Annotated[int, Field(ge=1), "items scored at once, which bounds the memory"] = 65_536
    ) -> None:
        self.block = block

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        catalogue, batch = task.catalogue, len(task.memory)
        n, K = catalogue.n_digits, catalogue.codebook_size
        codes = torch.zeros(batch, 1, n, dtype=torch.long, device=task.seeds.device)
        log_p = task.denoise(codes, torch.ones_like(codes, dtype=torch.bool), task.memory)[:, 0].float().log_softmax(-1)
        flat = log_p.reshape(batch, n * K)
        scores = torch.empty(batch, 0, device=flat.device)
        places = torch.empty(batch, 0, dtype=torch.long, device=flat.device)
        for start in range(0, len(catalogue), self.block):
            block = catalogue.flat[start : start + self.block]  # [r, n]
            here = torch.stack([flat[:, block[:, digit]] for digit in range(n)]).sum(0)  # [B, r]
            if task.excluded is not None:
                self._exclude(here, start, task)
            score, place = here.topk(min(task.k, len(block)), dim=1)
            scores, places = torch.cat([scores, score], 1), torch.cat([places, place + start], 1)
            scores, keep = scores.topk(min(task.k, scores.shape[1]), dim=1)
            places = places.gather(1, keep)
        real = scores > -torch.inf
        items = torch.where(real, catalogue.items[places], -1)
        return Decoded(
            pad_columns(items, task.k, -1),
            pad_columns(scores, task.k, -torch.inf),
            catalogue.codes[places],
            scores,
            real,
        )

    def _exclude(self, scores: torch.Tensor, start: int, task: Task) -> None:
        """Set the scores [B, r] of a user's excluded items to -inf; column 0 is the catalogue's row ``start``."""
        assert task.excluded is not None
        padded = task.excluded.padded
        user, column = (padded >= 0).nonzero(as_tuple=True)
        item = padded[user, column]
        place = torch.searchsorted(task.catalogue.items, item)
        inside = (place >= start) & (place < start + scores.shape[1])
        inside &= task.catalogue.items[place.clamp(max=len(task.catalogue) - 1)] == item
        scores[user[inside], place[inside] - start] = -torch.inf
