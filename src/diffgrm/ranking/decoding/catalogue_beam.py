"""Any-order beam search that takes the catalogue for part of the model.

The network spreads its belief over all codes of a digit, though most lead to no item once others are known. Here every
digit's probabilities are taken over the codes that still lead to an item the user may get, so an item's score is the
probability of its best order of digits among items, and what is left of a partial SID that fits one item only is certain.
Three things follow:

- such a partial SID is finished without asking the network again; in most catalogues two or three digits are enough;
- scores are worth comparing early: as soon as k items are found, beams that stand below the k-th are dropped, since a
  score only falls;
- so beams are asked about in parts, best first, and those that can no longer win are not asked about. What is dropped
  could not have changed the answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.ranking.decoding.any_order_beam import until_enough
from diffgrm.ranking.decoding.base import Decoded, Decoder, Task, items_from_sids, some_users
from diffgrm.ranking.decoding.beams import Beams, tell

PARTS = 4  # beams are asked about in so many parts
FEWEST_BEAMS = 32  # but not fewer than this at once for all users together
COPIES = 4  # candidates a beam that are looked at, since several may fit the same item


class CatalogueBeam(Decoder):
    """Confidence-guided Parallel Denoising with probabilities over recommendable items only."""

    def __init__(
        self,
        beam: Annotated[
            int, Field(ge=1, le=2**16), "W, partial SIDs kept for each user (raised to k where k is larger)"
        ] = 64,
    ) -> None:
        self.beam = beam

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return -(-max(self.beam, k) // PARTS)

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        return until_enough(task, max(self.beam, task.k), self._search)

    def _search(self, task: Task, width: int) -> Decoded:
        n, batch, device = task.catalogue.n_digits, len(task.memory), task.seeds.device
        beams, done = Beams.empty(batch, n, device), Beams.none(batch, task.k, n, device)
        for filled in range(n):
            found = Beams.none(batch, width, n, device)
            size = max(-(-beams.score.shape[1] // PARTS), -(-FEWEST_BEAMS // batch))
            for start in range(0, beams.score.shape[1], size):
                best = beams.score[:, start]
                users = ((best > done.score[:, -1]) & (best > -torch.inf)).nonzero()[:, 0]
                if len(users) == 0:
                    break
                some = task if len(users) == batch else some_users(task, users)
                new = self._extended(some, beams.some(users, slice(start, start + size)), filled, width)
                certain, open_ = _split(some, new, filled + 1)
                done = done.put(users, done.some(users, slice(None)).best(certain, task.k))
                found = found.put(users, found.some(users, slice(None)).best(open_, width))
            hopeless = found.score <= done.score[:, -1:]
            beams = replace(found, score=found.score.masked_fill(hopeless, -torch.inf))
            tell(task, beams, done)
            if not (beams.score > -torch.inf).any():
                break
        return items_from_sids(task, done.codes, done.score, done.step)

    def log_p(self, task: Task, beams: Beams) -> Tensor:
        """See :meth:`Decoder.log_p`; among the codes that still lead to an item the user may get."""
        return self._among_allowed(task, beams, task.catalogue.allowed(beams.codes, beams.known, task.excluded))

    def _among_allowed(self, task: Task, beams: Beams, allowed: Tensor) -> Tensor:
        logits = task.denoise(beams.codes, ~beams.known, task.memory).float()
        return logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)  # not a number where a digit is known

    def _extended(self, task: Task, beams: Beams, filled: int, width: int) -> Beams:
        """Beams with one digit more: the best candidates, several of which may be the same."""
        n, K = task.catalogue.n_digits, task.catalogue.codebook_size
        allowed = task.catalogue.allowed(beams.codes, beams.known, task.excluded)  # [B, P, n, K]
        log_p = self._among_allowed(task, beams, allowed)
        total = (beams.score[..., None, None] + log_p).masked_fill(~allowed, -torch.inf).flatten(1)
        score, index = total.topk(min(width * COPIES, total.shape[1]), dim=1)
        source, flat = index // (n * K), index % (n * K)
        digit = (flat // K)[..., None]
        old = beams.take(source)
        codes, step = old.codes.scatter(2, digit, (flat % K)[..., None]), old.step.scatter(2, digit, filled)
        return Beams(codes, step, score, old.key + task.catalogue.code_keys.view(-1)[flat])


def _split(task: Task, new: Beams, known: int) -> tuple[Beams, Beams]:
    """Candidates that are certain, with the digits that follow from the rest of them, and those that are open."""
    catalogue = task.catalogue
    if known == catalogue.n_digits:
        return new, replace(new, score=torch.full_like(new.score, -torch.inf))
    item = catalogue.only_item(new.codes, new.known, task.excluded).masked_fill(new.score == -torch.inf, -1)
    codes = catalogue.codes_of(item.clamp(min=0))
    steps = torch.where(new.known, new.step, known - 1)
    certain = Beams(codes, steps, new.score.masked_fill(item < 0, -torch.inf), catalogue.keys(codes))
    return certain, replace(new, score=new.score.masked_fill(item >= 0, -torch.inf))
