"""Beams: the partial SIDs that a search in any order holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffgrm.ranking.decoding.base import Task, first_of_each


@dataclass(frozen=True)
class Beams:
    """W partial SIDs of each of B users, best first.

    Attributes:
        codes: [B, W, n], 0 where unknown.
        step: [B, W, n] int64, in which step each digit was filled; -1 where unknown.
        score: [B, W], -inf where there is no beam.
        key: [B, W] int64, equal for equal partial SIDs (:mod:`diffgrm.semantic_ids.code_keys`).
    """

    codes: Tensor
    step: Tensor
    score: Tensor
    key: Tensor

    @classmethod
    def empty(cls, batch: int, n: int, device: torch.device) -> Beams:
        """One beam a user, with nothing known."""
        codes = torch.zeros(batch, 1, n, dtype=torch.long, device=device)
        zeros = torch.zeros(batch, 1, device=device)
        return cls(codes, codes - 1, zeros, zeros.long())

    @classmethod
    def none(cls, batch: int, count: int, n: int, device: torch.device) -> Beams:
        """``count`` beams a user that are none yet."""
        zeros = torch.zeros(batch, count, dtype=torch.long, device=device)
        codes = zeros[..., None].expand(-1, -1, n)
        return cls(codes, codes - 1, torch.full((batch, count), -torch.inf, device=device), zeros)

    @property
    def known(self) -> Tensor:
        """[B, W, n] bool, which digits are filled."""
        return self.step >= 0

    def some(self, users: Tensor, beams: slice) -> Beams:
        """Some beams of some users [b]."""
        return Beams(*(part[users, beams] for part in self._parts))

    def best(self, other: Beams, count: int) -> Beams:
        """The best ``count`` distinct ones of these and others."""
        both = Beams(*(torch.cat(pair, 1) for pair in zip(self._parts, other._parts, strict=True)))
        score, keep = best_distinct(both.score, both.key, count)
        return replace(both.take(keep), score=score)

    def take(self, keep: Tensor) -> Beams:
        """The beams ``keep`` [B, M] of every user."""
        pick = keep[..., None].expand(-1, -1, self.codes.shape[2])
        return Beams(
            self.codes.gather(1, pick), self.step.gather(1, pick), self.score.gather(1, keep), self.key.gather(1, keep)
        )

    def put(self, users: Tensor, new: Beams) -> Beams:
        """With other beams for some users [b]."""
        return Beams(*(old.index_copy(0, users, part) for old, part in zip(self._parts, new._parts, strict=True)))

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.codes, self.step, self.score, self.key


def tell(task: Task, beams: Beams, done: Beams) -> None:
    """Tell who watches the search what partial and complete SIDs it holds."""
    if task.watch is not None:
        both = beams.best(done, beams.score.shape[1])
        task.watch(both.codes, both.known, both.score)


def best_distinct(score: Tensor, key: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The best ``width`` scores [B, width] among entries [B, M] of distinct key, best first, and where they stand."""
    score, order = score.sort(dim=1, descending=True, stable=True)
    score = score.masked_fill(~first_of_each(key.gather(1, order)), -torch.inf)
    score, keep = score.topk(width, dim=1)
    return score, order.gather(1, keep)
