"""Decode what item scores propose: they choose candidates, a second look or denoising their digits ranks them.

A candidate's digits are filled as Confidence-guided Parallel Denoising fills them (paper, section 3.4): in every step the
one that the network is surest of, each candidate in its own order. An item's score is the log of its probability among the
recommendable items, by the item scores, plus a weight times the log-probability of its digits along that path. In large
catalogues, where few items are looked up (``retrieval``), it is that among the best ``retrieval.candidates``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.networks.contracts import Denoises, ScoresItems
from diffgrm.ranking.decoding.base import Decoded, Decoder, ItemScores, Task, first_of_each
from diffgrm.ranking.decoding.beams import Beams, tell


class ItemProposals(Decoder):
    """Candidates by item score, ranked by item score and digits together.

    With ``weight`` 0 digits are filled only where somebody watches. Equal scores are put in order of item position; which
    of those that tie for the last candidate's place come in is not specified.
    """

    uses_item_scores: ClassVar[bool] = True
    looks_up: ClassVar[bool] = True
    takes_offsets: ClassVar[bool] = True
    needs: ClassVar[tuple[type, ...]] = (Denoises, ScoresItems)

    def __init__(
        self,
        candidates: Annotated[
            int, Field(ge=1), "items that are looked at for each user (raised to k where k is larger)"
        ] = 64,
        weight: Annotated[
            float,
            Field(ge=0),
            "what the log-probability of an item's digits counts for beside that of the item; 0: nothing",
        ] = 0.0,
    ) -> None:
        self.candidates, self.weight = candidates, weight

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return (max(self.candidates, k) if self.weight else 0) + 1 + n_items // 1024  # scores weigh as 1024 logits do

    def unsaid(self) -> str:
        """See :meth:`Decoder.unsaid`."""
        if self.weight:
            return super().unsaid()
        return (
            "Item scores alone chose the list: digits had no say in it, and on view is how the network would fill in those "
            "of each item."
        )

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        items, score = self._proposed(task)
        codes = task.catalogue.codes_of(items.clamp(min=0))  # [B, C, n]
        beams = Beams(codes, torch.full_like(codes, -1), score, task.catalogue.keys(codes))
        if self.weight or task.watch is not None:
            beams = self._filled(task, beams)
        else:
            beams = replace(beams, step=torch.zeros_like(codes))
        score, order = beams.score.sort(dim=1, descending=True, stable=True)
        beams, items = beams.take(order), items.gather(1, order)
        best, best_scores = items[:, : task.k], score[:, : task.k]
        if best.shape[1] < task.k:  # more were asked for than there are
            more = (0, task.k - best.shape[1])
            best = torch.nn.functional.pad(best, more, value=-1)
            best_scores = torch.nn.functional.pad(best_scores, more, value=-torch.inf)
        best = torch.where(best_scores > -torch.inf, best, -1)
        legal = first_of_each(beams.key) & (score > -torch.inf)  # of items that share a SID, the best stands for it
        return Decoded(best, best_scores, beams.codes, score.masked_fill(~legal, -torch.inf), legal, beams.step)

    def _proposed(self, task: Task) -> tuple[Tensor, Tensor]:
        """Item positions [B, C] of highest item score, best first, and their log-probabilities among all that the user may
        get, or that are looked up; -inf for those that are not."""
        assert task.item_scores is not None
        count = max(self.candidates, task.item_scores.candidates, task.k)
        items, score = (_best_of_all if task.item_scores.look_up is None else _looked_up)(task, task.item_scores, count)
        if (second_look := task.item_scores.second_look) is not None:
            score = second_look(items.masked_fill(score == -torch.inf, -1), score)
        return items, score

    def _filled(self, task: Task, beams: Beams) -> Beams:
        """All digits filled, step by step, and the scores with the digits' part."""
        n, candidates = beams.codes.shape[2], beams.codes.shape[1]
        nothing = Beams.empty(len(beams.codes), n, beams.codes.device)
        for now in range(n):
            asked = beams if now else nothing  # the first question is the same for all candidates
            logits = task.denoise(asked.codes, ~asked.known, task.memory)
            log_p = logits.float().log_softmax(-1).expand(-1, candidates, -1, -1)
            own = log_p.gather(3, beams.codes[..., None])[..., 0].masked_fill(beams.known, -torch.inf)  # [B, C, n]
            surest, digit = own.max(-1, keepdim=True)
            step = beams.step.scatter(2, digit, now)
            beams = replace(beams, step=step, score=beams.score + self.weight * surest[..., 0])
            if task.watch is not None:
                partial = replace(beams, key=_keys(task, beams))
                tell(task, partial, Beams.none(len(step), 1, n, step.device))
        return beams


def _best_of_all(task: Task, scores: ItemScores, count: int) -> tuple[Tensor, Tensor]:
    """The best of all items, by the scores of all."""
    assert scores.all is not None
    score = scores.all.masked_fill(~task.catalogue.recommendable, -torch.inf)
    if task.excluded is not None and task.excluded.padded.shape[1]:
        padded = task.excluded.padded
        row = torch.arange(len(padded), device=padded.device)[:, None].expand_as(padded)
        score[row[padded >= 0], padded[padded >= 0]] = -torch.inf
    score, items = _log_softmax(score).topk(min(count, score.shape[1]), dim=1)
    items, order = items.sort(dim=1)  # topk leaves open in which order equal scores come
    score, order = score.gather(1, order).sort(dim=1, descending=True, stable=True)
    return items.gather(1, order), score


def _looked_up(task: Task, scores: ItemScores, count: int) -> tuple[Tensor, Tensor]:
    """The best of the items that the first stage looks up."""
    assert scores.look_up is not None
    catalogue, excluded = task.catalogue, None
    allowed = None if len(catalogue) == catalogue.n_items else catalogue.tables.recommendable
    if task.excluded is not None:
        excluded = task.excluded.ragged()
    found = scores.look_up(count, allowed, excluded)
    items, score = (torch.from_numpy(part).to(task.seeds.device) for part in found)
    return items[:, :count], _log_softmax(score)[:, :count]


def _log_softmax(score: Tensor) -> Tensor:
    """-inf for users for whom nothing is left."""
    return score.log_softmax(-1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def _keys(task: Task, beams: Beams) -> Tensor:
    """[B, C] equal for equal partial SIDs."""
    digit = torch.arange(task.catalogue.n_digits, device=beams.codes.device)
    return task.catalogue.code_keys[digit, beams.codes].masked_fill(~beams.known, 0).sum(-1)
