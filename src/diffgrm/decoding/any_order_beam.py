"""Confidence-guided Parallel Denoising (paper, section 3.4): a beam search that fills digits in any order.

Every step scores each (beam, unknown digit, code) as beam score + log p(code) and keeps the best W, so the digit that
the network is surest of is filled first, in each beam its own. Three things differ from the published release: the
catalogue rules out every code that leads to no item its user may get; beams that reach one partial SID by different
orders count once; and selection stays global through the last digit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.catalogue import code_words
from diffgrm.decoding.base import Decoded, Decoder, Task, first_of_each, items_from_sids
from diffgrm.schema import RecipeError

logger = logging.getLogger(__name__)

LAST_PARTS = 4  # the last digit is filled in for a quarter of the beams at a time
FEWEST_BEAMS = 64  # but not for fewer beams of all users than this: small questions cost as much as larger ones
DOUBLINGS = 3  # how often a beam is doubled that finds fewer items than there are


@dataclass(frozen=True)
class Beams:
    """W partial SIDs of each of B users, best first.

    Attributes:
        codes: [B, W, n], 0 where unknown; known: [B, W, n] bool; score: [B, W], -inf where there is no beam.
        name: [B, W] int64, equal for equal partial SIDs.
    """

    codes: Tensor
    known: Tensor
    score: Tensor
    name: Tensor

    @classmethod
    def empty(cls, batch: int, n: int, device: torch.device) -> Beams:
        """One beam a user, with nothing known."""
        codes = torch.zeros(batch, 1, n, dtype=torch.long, device=device)
        zeros = torch.zeros(batch, 1, device=device)
        return cls(codes, codes.bool(), zeros, zeros.long())

    def some(self, users: Tensor, beams: slice) -> Beams:
        """Some beams of some users [b]."""
        return Beams(*(part[users, beams] for part in (self.codes, self.known, self.score, self.name)))


class AnyOrderBeam(Decoder):
    """Beam search over (digit, code) pairs in any order."""

    def __init__(
        self,
        beam: Annotated[int, Field(ge=1), "W, partial SIDs kept for each user (raised to k where k is larger)"] = 64,
        steps: Annotated[
            int | None, Field(ge=1), "times the network is asked; fewer than n fills several digits a step; null: n"
        ] = None,
        order: Annotated[
            Literal["confidence", "fixed", "random"],
            "confidence: most probable digit first, each beam its own (paper); fixed: digit 0, 1, 2...; random: one order "
            "a user",
        ] = "confidence",
        merge: Annotated[
            Literal["best_path", "sum_paths"],
            "one SID reached by several orders scores as its best order, or as the log of the sum over them",
        ] = "best_path",
        constrained: Annotated[
            bool, "true: the catalogue rules out codes at every step; false: SIDs without an item are dropped at the end"
        ] = True,
        seed: int = 0,
    ) -> None:
        self.beam, self.steps, self.order, self.merge = beam, steps, order, merge
        self.constrained, self.seed = constrained, seed

    def check(self, n_digits: int, n_items: int) -> None:
        """See :meth:`Decoder.check`."""
        if self.steps is not None and self.steps > n_digits:
            raise RecipeError(f"decoding.steps {self.steps} is more than the {n_digits} digits of a semantic ID")

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return max(self.beam, k)

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`.

        A beam may end in fewer than k items though more are possible, since many partial SIDs lead to one item. It is
        doubled a few times for the users it fails; who is still short then (long SIDs, of which one item has very many
        partial ones) gets the list completed by a search in fixed order, where every beam leads to items of its own.
        """
        self.check(task.catalogue.n_digits, len(task.catalogue))
        width = max(self.beam, task.k)
        decoded = self._search(task, width)
        if not self.constrained:
            return decoded
        wanted = task.catalogue.possible(task.excluded, len(task.memory)).clamp(max=task.k)
        for doubling in range(1, DOUBLINGS + 2):
            short = ((decoded.items >= 0).sum(1) < wanted).nonzero()[:, 0]
            if len(short) == 0:
                break
            some = _some_users(task, short)
            if doubling <= DOUBLINGS:
                found = self._search(some, width * 2**doubling)
            else:
                found = _completed(decoded.rows(short), self._search(some, width, order="fixed"))
            logger.debug("%d users had fewer items than possible (attempt %d)", len(short), doubling)
            decoded = decoded.replaced(short, found)
        return decoded

    def _search(self, task: Task, width: int, order: str | None = None) -> Decoded:
        catalogue, n = task.catalogue, task.catalogue.n_digits
        batch, device = len(task.memory), task.seeds.device
        words = code_words(n, catalogue.codebook_size, device)
        order = order or self.order
        fill_order = self._fill_order(order, task.seeds, n)
        beams = Beams.empty(batch, n, device)
        filled = 0
        for digits in digits_per_step(n, self.steps or n):
            if filled == n - 1 and self.constrained and self.merge == "best_path":
                return self._last_digit(task, beams, words)
            log_p = _log_p(task, beams)
            for number in range(digits):
                turn = None if order == "confidence" else fill_order[:, filled]
                beams, parent = self._fill_one(task, beams, log_p, words, turn, filled, width)
                filled += 1
                if number < digits - 1:
                    log_p = log_p.gather(1, parent[..., None, None].expand(-1, -1, *log_p.shape[2:]))
        return items_from_sids(task, beams.codes, beams.score)

    def _last_digit(self, task: Task, beams: Beams, words: Tensor) -> Decoded:
        """The k best complete SIDs of beams that lack one digit, asking the network for as few beams as will do.

        A score only falls as digits are filled. The best beams go first; once k complete SIDs score above the next beam,
        no later beam can add to them. The answer is that of asking for all beams.
        """
        batch, width, n = beams.codes.shape
        size = max(-(-width // LAST_PARTS), -(-FEWEST_BEAMS // batch))
        codes = beams.codes.new_zeros(batch, task.k, n)
        name = beams.name.new_zeros(batch, task.k)
        score = beams.score.new_full((batch, task.k), -torch.inf)
        for start in range(0, width, size):
            next_score = beams.score[:, start]
            users = ((next_score >= score[:, -1]) & (next_score > -torch.inf)).nonzero()[:, 0]
            if len(users) == 0:
                break
            some = task if len(users) == batch else _some_users(task, users)
            part = beams.some(users, slice(start, start + size))
            part, _ = self._fill_one(some, part, _log_p(some, part), words, None, n - 1, task.k)
            names = torch.cat([name[users], part.name], 1)
            score[users], keep = best_distinct(torch.cat([score[users], part.score], 1), names, task.k)
            name[users] = names.gather(1, keep)
            both = torch.cat([codes[users], part.codes], 1)
            codes[users] = both.gather(1, keep[..., None].expand(-1, -1, n))
        return items_from_sids(task, codes, score)

    def _fill_one(
        self, task: Task, beams: Beams, log_p: Tensor, words: Tensor, turn: Tensor | None, filled: int, width: int
    ) -> tuple[Beams, Tensor]:
        """Every beam with one digit more, the best ``width`` distinct ones; and which beam each comes from [B, W].

        Args:
            log_p: [B, W, n, K] what the network says of the beams.
            turn: [B] the digit whose turn it is; None leaves it to the scores.
            filled: digits known so far.
        """
        n = beams.codes.shape[2]
        K = task.catalogue.codebook_size
        total = beams.score[..., None, None] + log_p
        total = total.masked_fill_(~self._open(task, beams, turn), -torch.inf).flatten(1)  # [B, W n K]
        # A partial SID of s digits has at most s parents, so among the best s W are at least W distinct ones.
        paths = filled + 1 if turn is None else 1
        score, index = total.topk(min(width * paths, total.shape[1]), dim=1)
        source, flat = index // (n * K), index % (n * K)
        name = beams.name.gather(1, source) + words.view(-1)[flat]
        if paths > 1:
            first = first_of_each(name)
            if self.merge == "sum_paths":
                score = _sum_over_equal(score, name)
            score = score.masked_fill(~first, -torch.inf)
            score, keep = score.topk(min(width, score.shape[1]), dim=1)
            source, flat, name = source.gather(1, keep), flat.gather(1, keep), name.gather(1, keep)
        place = (flat // K)[..., None]
        pick = source[..., None].expand(-1, -1, n)
        codes = beams.codes.gather(1, pick).scatter(2, place, (flat % K)[..., None])
        known = beams.known.gather(1, pick).scatter(2, place, True)
        return Beams(codes, known, score, name), source

    def _open(self, task: Task, beams: Beams, turn: Tensor | None) -> Tensor:
        """[B, W, n, K] (or broadcastable) whether a (digit, code) may be filled next."""
        if self.constrained:
            open_ = task.catalogue.allowed(beams.codes, beams.known, task.excluded)
        else:
            open_ = ~beams.known[..., None]
        if turn is not None:
            its_turn = torch.arange(beams.codes.shape[2], device=turn.device) == turn[:, None]  # [B, n]
            open_ = open_ & its_turn[:, None, :, None]
        return open_

    def _fill_order(self, order: str, seeds: Tensor, n: int) -> Tensor:
        """[B, n] the digit that is filled s-th, where the order is given beforehand."""
        digits = torch.arange(n, device=seeds.device)
        if order != "random":
            return digits.expand(len(seeds), -1)
        return _mix(_mix(seeds + self.seed)[:, None] + digits).argsort(1)


def _log_p(task: Task, beams: Beams) -> Tensor:
    """[B, W, n, K] what the network says of the beams."""
    return task.denoise(beams.codes, ~beams.known, task.memory).float().log_softmax(-1)


def best_distinct(score: Tensor, name: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The best ``width`` scores [B, width] among entries [B, M] of distinct name, best first, and where they stand."""
    score, order = score.sort(dim=1, descending=True, stable=True)
    score = score.masked_fill(~first_of_each(name.gather(1, order)), -torch.inf)
    score, keep = score.topk(width, dim=1)
    return score, order.gather(1, keep)


def digits_per_step(n: int, steps: int) -> list[int]:
    """How many of n digits each step fills: as even as can be, the larger steps last, when more is known.

    >>> digits_per_step(4, 3), digits_per_step(4, 4), digits_per_step(5, 1)
    ([1, 1, 2], [1, 1, 1, 1], [5])
    """
    small, larger = divmod(n, steps)
    return [small] * (steps - larger) + [small + 1] * larger


def _sum_over_equal(score: Tensor, name: Tensor) -> Tensor:
    """Each score [B, M] replaced by the log-sum-exp over all entries of its row with the same name."""
    _, group = name.sort(dim=1, stable=True)
    ordered = name.gather(1, group)
    number = torch.zeros_like(ordered)
    number[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long().cumsum(1)
    number = torch.empty_like(number).scatter(1, group, number)  # [B, M] group number of each entry
    top = torch.full_like(score, -torch.inf).scatter_reduce(1, number, score, "amax")
    top = top.gather(1, number)
    weight = torch.where(score > -torch.inf, (score - top).exp(), 0)
    total = torch.zeros_like(score).scatter_add(1, number, weight)
    return top + total.gather(1, number).log()


def _mix(x: Tensor) -> Tensor:
    """A well-spread int64 for every int64 (xor-shift and multiply)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ (x >> shift)) * factor
    return x ^ (x >> 31)


def _some_users(task: Task, chosen: Tensor) -> Task:
    excluded = None if task.excluded is None else task.excluded.rows(chosen)
    return replace(task, memory=task.memory.rows(chosen), excluded=excluded, seeds=task.seeds[chosen])


def _completed(first: Decoded, more: Decoded) -> Decoded:
    """The items of ``first``, then those of ``more`` that are not among them, none scored above what stands before it."""
    k = first.items.shape[1]
    items, scores = torch.cat([first.items, more.items], 1), torch.cat([first.scores, more.scores], 1)
    keep = first_of_each(items) & (items >= 0)
    order = (~keep).int().argsort(dim=1, stable=True)[:, :k]
    items = torch.where(keep, items, -1).gather(1, order)
    scores = scores.masked_fill(~keep, -torch.inf).gather(1, order).cummin(1).values
    return Decoded(items, scores, first.codes, first.sid_scores, first.legal)
