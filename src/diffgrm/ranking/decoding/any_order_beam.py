"""Confidence-guided Parallel Denoising (paper, section 3.4): a beam search that fills digits in any order.

Every step scores each (beam, unknown digit, code) as beam score + log p(code) and keeps the best W, so the digit that
the network is surest of is filled first, in each beam its own, and one beam may go on at several. Three things differ
from the published release: the catalogue rules out every code that leads to no item its user may get; beams that reach
one partial SID by different orders count once; and selection stays global through the last digit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import OnlyWith, RecipeError
from diffgrm.ranking.decoding.base import (
    Decoded,
    Decoder,
    Task,
    first_of_each,
    items_from_sids,
    joined,
    mixed,
    some_users,
)
from diffgrm.ranking.decoding.beams import Beams, tell
from diffgrm.ranking.decoding.group_sizes import digits_per_step, random_sizes, warmed_up

logger = logging.getLogger(__name__)

LAST_PARTS = 4  # the last digit is filled in for a quarter of the beams at a time
FEWEST_BEAMS = 64  # but not for fewer beams of all users than this: small questions cost as much as larger ones
COPIES = 4  # candidates a beam that are looked at where several may fit the same item


class AnyOrderBeam(Decoder):
    """Beam search over (digit, code) pairs in any order."""

    only_with: ClassVar[OnlyWith] = (
        ("sizes", "group", ("planned",)),
        ("single", "group", ("warm_up",)),
        ("after", "group", ("warm_up",)),
        ("merge", "order", ("confidence",)),
    )

    def __init__(
        self,
        beam: Annotated[
            int, Field(ge=1, le=2**16), "W, partial SIDs kept for each user (raised to k where k is larger)"
        ] = 64,
        steps: Annotated[
            int | None, Field(ge=1), "times the network is asked; fewer than n fills several digits a step; null: n"
        ] = None,
        group: Annotated[
            Literal["even", "random", "warm_up", "planned"],
            "how many digits a step fills; even, random: fewer steps, as even as can be or of sizes drawn once; warm_up: "
            "one digit a step, then several (MDGR, arXiv 2601.19501); planned: as sizes says (arXiv 2602.20126)",
        ] = "even",
        sizes: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...] | None,
            Field(min_length=1),
            "planned: digits of each step, n in all; diffgrm plan computes them for a model",
        ] = None,
        single: Annotated[int, Field(ge=0), "warm_up: steps that fill one digit"] = 1,
        after: Annotated[int, Field(ge=1), "warm_up: digits of each later step"] = 2,
        threshold: Annotated[
            float | None,
            Field(gt=0, le=1),
            "instead of steps: every step fills as many digits as have a code of at least this probability in the user's "
            "best beam, one at least; users are decoded one by one",
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
        finish: Annotated[
            Literal["digits", "items"],
            "digits: every digit is filled step by step (paper); items: as soon as a partial SID fits one item only, its "
            "other digits are scored together, and what fits the same item counts once (for long SIDs: far fewer steps)",
        ] = "digits",
        seed: int = 0,
    ) -> None:
        self.beam, self.steps, self.group, self.threshold = beam, steps, group, threshold
        self.sizes, self.single, self.after = sizes, single, after
        self.order, self.merge, self.finish = order, merge, finish
        self.constrained, self.seed = constrained, seed

    def check(self, n_digits: int, n_items: int) -> None:
        """See :meth:`Decoder.check`."""
        if self.steps is not None and self.steps > n_digits:
            raise RecipeError(f"decoding.steps {self.steps} is more than the {n_digits} digits of a semantic ID")
        if self.steps is not None and self.threshold is not None:
            raise RecipeError("decoding.steps and decoding.threshold both say how many digits a step fills; leave one out")
        if self.steps is None and self.group == "random":
            raise RecipeError("decoding.group random does nothing without decoding.steps; set it, or leave group out")
        if self.group in ("warm_up", "planned") and (self.steps, self.threshold) != (None, None):
            raise RecipeError(
                f"decoding.group {self.group} says itself how many digits a step fills; leave decoding.steps and "
                "decoding.threshold out"
            )
        if self.group == "planned" and sum(self.sizes or ()) != n_digits:
            raise RecipeError(
                f"decoding.group planned needs decoding.sizes that add up to the {n_digits} digits of a semantic ID, found "
                f"{self.sizes and list(self.sizes)}; diffgrm plan computes them for a model"
            )
        if self.group == "warm_up" and self.single > n_digits:
            raise RecipeError(
                f"decoding.single {self.single} is more than the {n_digits} digits of a semantic ID; lower it, or leave "
                "decoding.group out"
            )
        if self.finish == "items" and not self.constrained:
            raise RecipeError("decoding.finish items needs decoding.constrained true: only the catalogue knows the items")

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return max(self.beam, k)

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        self.check(task.catalogue.n_digits, len(task.catalogue))
        if self._steps_differ() and len(task.memory) > 1:
            users = torch.arange(len(task.memory), device=task.seeds.device)[:, None]
            return joined([self.decode(some_users(task, user)) for user in users])
        width = max(self.beam, task.k)
        if not self.constrained:
            return self._search(task, width)
        return until_enough(task, width, self._search, self.in_fixed_order())

    def in_fixed_order(self) -> AnyOrderBeam:
        """The search that completes lists which come short, digit after digit, by what the network says."""
        return AnyOrderBeam(order="fixed")

    def _search(self, task: Task, width: int) -> Decoded:
        n, batch, device = task.catalogue.n_digits, len(task.memory), task.seeds.device
        fill_order = self._fill_order(task.seeds, n)
        beams, done = Beams.empty(batch, n, device), Beams.none(batch, task.k, n, device)
        sizes = self._group_sizes(n)
        filled = step = 0
        while filled < n:
            if filled == n - 1 and self.constrained and self.merge == "best_path":
                return self._last_digit(task, beams, done, step)
            log_p = self.log_p(task, beams)
            if self.finish == "items" and filled > 1:
                beams, done, goes_on = _finish(task, beams, done, log_p, step)
                if beams.score.shape[1] == 0:
                    tell(task, done, done)
                    return items_from_sids(task, done.codes, done.score, done.step)
                log_p = log_p.gather(1, goes_on[..., None, None].expand(-1, -1, *log_p.shape[2:]))
            digits, among = self._group(task, beams, log_p, sizes, step)
            for number in range(digits):
                if self.order != "confidence":
                    among = torch.arange(n, device=fill_order.device) == fill_order[:, filled, None]
                beams, parent = self._fill_one(task, beams, log_p, among, filled, width, step)
                filled += 1
                if number < digits - 1:
                    log_p = log_p.gather(1, parent[..., None, None].expand(-1, -1, *log_p.shape[2:]))
            step += 1
            tell(task, beams, done)
        if self.finish == "items":
            beams = done.best(beams, task.k)
        return items_from_sids(task, beams.codes, beams.score, beams.step)

    def _last_digit(self, task: Task, beams: Beams, done: Beams, step: int) -> Decoded:
        """The k best complete SIDs of beams that lack one digit, asking the network for as few beams as will do.

        A score only falls as digits are filled. The best beams go first; once k complete SIDs score above the next beam,
        no later beam can add to them. The answer is that of asking for all beams.

        Args:
            done: complete SIDs so far, k a user.
        """
        batch, width, n = beams.codes.shape
        size = max(-(-width // LAST_PARTS), -(-FEWEST_BEAMS // batch))
        for start in range(0, width, size):
            next_score = beams.score[:, start]
            users = ((next_score >= done.score[:, -1]) & (next_score > -torch.inf)).nonzero()[:, 0]
            if len(users) == 0:
                break
            some = task if len(users) == batch else some_users(task, users)
            part = beams.some(users, slice(start, start + size))
            part, _ = self._fill_one(some, part, self.log_p(some, part), None, n - 1, task.k, step)
            done = done.put(users, done.some(users, slice(None)).best(part, task.k))
        tell(task, done, done)
        return items_from_sids(task, done.codes, done.score, done.step)

    def _steps_differ(self) -> bool:
        """Whether steps fill more digits for some users than for others, so that each is decoded alone."""
        return self.threshold is not None

    def _group(self, task: Task, beams: Beams, log_p: Tensor, sizes: list[int], step: int) -> tuple[int, Tensor | None]:
        """How many digits a step fills, and which may be among them [B, n]; None: all that are unknown.

        Args:
            sizes: of the steps, where they are given beforehand.
        """
        return (sizes[step] if self.threshold is None else _sure_digits(beams, log_p, self.threshold)), None

    def _fill_one(
        self, task: Task, beams: Beams, log_p: Tensor, among: Tensor | None, filled: int, width: int, step: int
    ) -> tuple[Beams, Tensor]:
        """Every beam with one digit more, the best ``width`` distinct ones; and which beam each comes from [B, W].

        Args:
            log_p: [B, W, n, K] what the network says of the beams.
            among: [B, n] bool, the digits of which one is filled; None: all that are unknown.
            filled: digits known so far.
            step: number of the step.
        """
        n = beams.codes.shape[2]
        K = task.catalogue.codebook_size
        total = beams.score[..., None, None] + log_p
        total = total.masked_fill_(~self._open(task, beams, among), -torch.inf).flatten(1)  # [B, W n K]
        # A partial SID of s digits has at most s parents, so among the best s W are at least W distinct ones.
        paths = filled + 1 if self.order == "confidence" else 1
        by_item = self.finish == "items" and 1 <= filled < n - 1
        most = max(paths, COPIES) if by_item else paths
        score, index = total.topk(min(width * most, total.shape[1]), dim=1)
        source, flat = index // (n * K), index % (n * K)
        digit = (flat // K)[..., None]
        pick = source[..., None].expand(-1, -1, n)
        codes = beams.codes.gather(1, pick).scatter(2, digit, (flat % K)[..., None])
        steps = beams.step.gather(1, pick).scatter(2, digit, step)
        new = Beams(codes, steps, score, beams.key.gather(1, source) + task.catalogue.code_keys.view(-1)[flat])
        if most == 1:
            return new, source
        key = new.key
        if self.merge == "sum_paths":
            score = _sum_over_equal(score, key)
        if by_item:
            item = task.catalogue.only_item(codes, new.known, task.excluded)
            key = torch.where(item >= 0, -2 - item, key)
        score = score.masked_fill(~first_of_each(key), -torch.inf)
        score, keep = score.topk(min(width, score.shape[1]), dim=1)
        if by_item:  # few may be left
            live = max(1, int((score > -torch.inf).sum(1).max()))
            score, keep = score[:, :live], keep[:, :live]
        return replace(new.take(keep), score=score), source.gather(1, keep)

    def _open(self, task: Task, beams: Beams, among: Tensor | None) -> Tensor:
        """[B, W, n, K] (or broadcastable) whether a (digit, code) may be filled next."""
        if self.constrained:
            open_ = task.catalogue.allowed(beams.codes, beams.known, task.excluded)
        else:
            open_ = ~beams.known[..., None]
        return open_ if among is None else open_ & among[:, None, :, None]

    def _group_sizes(self, n: int) -> list[int]:
        """How many digits each step fills."""
        if self.group == "planned" and self.sizes is not None:
            return list(self.sizes)
        if self.group == "warm_up":
            return warmed_up(n, self.single, self.after)
        steps = self.steps or n
        return random_sizes(n, steps, self.seed) if self.group == "random" else digits_per_step(n, steps)

    def _fill_order(self, seeds: Tensor, n: int) -> Tensor:
        """[B, n] the digit that is filled s-th, where the order is given beforehand."""
        digits = torch.arange(n, device=seeds.device)
        if self.order != "random":
            return digits.expand(len(seeds), -1)
        return mixed(mixed(seeds + self.seed)[:, None] + digits).argsort(1)


def _sure_digits(beams: Beams, log_p: Tensor, threshold: float) -> int:
    """How many unknown digits of one user's best beam have a code of at least this probability; one at least."""
    sure = (log_p[0, 0].amax(-1) >= math.log(threshold)) & ~beams.known[0, 0]
    return max(1, int(sure.sum()))


def _finish(task: Task, beams: Beams, done: Beams, log_p: Tensor, step: int) -> tuple[Beams, Beams, Tensor]:
    """Take out the beams that fit one item only: their other digits are scored together.

    A score only falls, so beams that score less than the k-th complete SID end here too.

    Args:
        done: complete SIDs so far, k a user.

    Returns:
        The beams that go on, as many as the user with most has; the complete SIDs; and which beams go on [B, W'].
    """
    item = task.catalogue.only_item(beams.codes, beams.known, task.excluded)
    codes = task.catalogue.codes_of(item.clamp(min=0))  # [B, W, n]
    rest = log_p.gather(3, codes[..., None])[..., 0].masked_fill(beams.known, 0).sum(2)
    score = (beams.score + rest).masked_fill(item < 0, -torch.inf)
    steps = torch.where(beams.known, beams.step, step)
    done = done.best(Beams(codes, steps, score, task.catalogue.keys(codes)), task.k)
    over = (item >= 0) | (beams.score < done.score[:, -1:]) | (beams.score == -torch.inf)
    goes_on = over.int().argsort(dim=1, stable=True)[:, : int((~over).sum(1).max())]
    beams = replace(beams, score=beams.score.masked_fill(over, -torch.inf))
    return beams.take(goes_on), done, goes_on


def _sum_over_equal(score: Tensor, key: Tensor) -> Tensor:
    """Each score [B, M] replaced by the log-sum-exp over all entries of its row with the same key."""
    _, group = key.sort(dim=1, stable=True)
    ordered = key.gather(1, group)
    number = torch.zeros_like(ordered)
    number[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long().cumsum(1)
    number = torch.empty_like(number).scatter(1, group, number)  # [B, M] group number of each entry
    top = torch.full_like(score, -torch.inf).scatter_reduce(1, number, score, "amax")
    top = top.gather(1, number)
    weight = torch.where(score > -torch.inf, (score - top).exp(), 0)
    total = torch.zeros_like(score).scatter_add(1, number, weight)
    return top + total.gather(1, number).log()


def until_enough(
    task: Task, width: int, search: Callable[[Task, int], Decoded], in_order: AnyOrderBeam | None = None
) -> Decoded:
    """What a constrained search finds, made as wide as it takes for every user to get k items, if so many are possible.

    A beam may end in fewer, since many partial SIDs lead to one item. It is doubled for the users it fails; who is still
    short then (long SIDs, of which one item has very many partial ones) gets the list completed by a search in fixed
    order, where every beam leads to items of its own.

    Args:
        in_order: the search in fixed order; None: the plain one.
    """
    decoded = search(task, width)
    wanted = task.catalogue.possible(task.excluded, len(task.memory)).clamp(max=task.k)
    for remedy in ("a beam twice as wide", "fixed order"):
        short = ((decoded.items >= 0).sum(1) < wanted).nonzero()[:, 0]
        if len(short) == 0:
            break
        some = some_users(task, short)
        if remedy == "fixed order":
            found = _completed(decoded.rows(short), (in_order or AnyOrderBeam(order="fixed"))._search(some, width))
        else:
            found = search(some, 2 * width)
        logger.debug("%d users had fewer items than possible: %s", len(short), remedy)
        decoded = decoded.replaced(short, found)
    return decoded


def _completed(first: Decoded, more: Decoded) -> Decoded:
    """The items of ``first``, then those of ``more`` that are not among them, none scored above what stands before it."""
    k = first.items.shape[1]
    items, scores = torch.cat([first.items, more.items], 1), torch.cat([first.scores, more.scores], 1)
    keep = first_of_each(items) & (items >= 0)
    order = (~keep).int().argsort(dim=1, stable=True)[:, :k]
    items = torch.where(keep, items, -1).gather(1, order)
    scores = scores.masked_fill(~keep, -torch.inf).gather(1, order).cummin(1).values
    return Decoded(items, scores, first.codes, first.sid_scores, first.legal, first.steps)
