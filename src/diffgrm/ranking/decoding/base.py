"""Decoder: from ``denoise`` and a catalogue to the best items of each user."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from diffgrm.networks.contracts import Denoises
from diffgrm.ranking.catalogue import Catalogue, Excluded
from diffgrm.ranking.first_stage import LookUp
from diffgrm.ranking.item_scoring.base import SecondLook

if TYPE_CHECKING:
    from diffgrm.ranking.decoding.beams import Beams

Denoise = Callable[[Tensor, Tensor, Any], Tensor]
"""``denoise(codes [B, Q, n], mask [B, Q, n], memory) -> logits [B, Q, n, K]``."""
NextDigit = Callable[[Tensor | None, Any, Any], tuple[Tensor, Any]]
"""``next_digit(code [B, Q], prefix, memory) -> logits [B, Q, K], prefix``."""

Watch = Callable[[Tensor, Tensor, Tensor], None]
"""Told the partial SIDs after a step: ``codes [B, W, n]`` (any value where unknown), ``known [B, W, n]``, and
``scores [B, W]``, best first, -inf where there is none."""


@dataclass(frozen=True)
class ItemScores:
    """What scorers say of all items to a batch of B users; a decoder knows nothing of their terms.

    Attributes:
        all: [B, I] scores before softmax; None where ``look_up`` is there instead.
        candidates: best items of each user that a second look is taken at; 0: none is.
        second_look: takes candidates [B, C] (item positions, best first, -1 after the last) and their scores [B, C], and
            returns other scores for them. None: there is none.
        look_up: gives the best items and their scores, for decoders that need no others (:attr:`Decoder.looks_up`).
    """

    all: Tensor | None
    candidates: int = 0
    second_look: SecondLook | None = None
    look_up: LookUp | None = None

    def rows(self, chosen: Tensor) -> ItemScores:
        """Those of some users [b]."""
        everything = None if self.all is None else self.all[chosen]
        second_look = None if self.second_look is None else self.second_look.rows(chosen)
        look_up = None if self.look_up is None else self.look_up.rows(chosen)
        return replace(self, all=everything, second_look=second_look, look_up=look_up)


@dataclass(frozen=True)
class PairScores:
    """Scores of semantic IDs by every two of their digits, as products of vectors of B users and of all I items.

    Attributes:
        users: [B, r]; items: [I, r].
    """

    users: Tensor
    items: Tensor

    def of_all(self, items: Tensor) -> Tensor:
        """[B, D] of the same items at positions [D] for every user."""
        return self.users @ self.items.index_select(0, items).T  # much faster than by brackets on the CPU

    def of_each(self, items: Tensor, user: Tensor) -> Tensor:
        """[P] of items at positions [P], each for the user [P]."""
        return (self.users[user] * self.items[items]).sum(-1)

    def rows(self, chosen: Tensor) -> PairScores:
        """Those of some users [b]."""
        return replace(self, users=self.users[chosen])


@dataclass(frozen=True)
class Task:
    """What to decode for a batch of B users.

    Attributes:
        ask: the one function of the network that the decoder asks for (:attr:`Decoder.asks`).
        memory: encoded histories; ``len(memory)`` is B and ``memory.rows(chosen)`` are some of them.
        catalogue: recommendable items.
        k: items wanted for each user.
        excluded: items that single users must not get, or None.
        seeds: [B] int64, a number of each user's own for decoders that draw at random, so that an answer does not
            depend on who else is in the batch.
        watch: told the partial SIDs after each step; None for nobody to tell. A search that comes short starts again.
        item_scores: of all items; only for decoders that use them (:attr:`Decoder.uses_item_scores`).
        code_tables: [n, K, d] vectors of codes; only for decoders that use them (:attr:`Decoder.uses_code_tables`).
        pairs: scores by every two digits, where the network has some; only for decoders that use them
            (:attr:`Decoder.uses_pairs`).
    """

    ask: Any
    memory: Any
    catalogue: Catalogue
    k: int
    excluded: Excluded | None
    seeds: Tensor
    watch: Watch | None = None
    item_scores: ItemScores | None = None
    code_tables: Tensor | None = None
    pairs: PairScores | None = None

    @property
    def denoise(self) -> Denoise:
        """``ask`` of a masked-diffusion network."""
        return self.ask

    def log_p_all_hidden(self) -> Tensor:
        """[B, n, K] log-probabilities of codes by a masked-diffusion network that is shown no digit."""
        hidden = torch.ones(len(self.memory), 1, self.catalogue.n_digits, dtype=torch.bool, device=self.seeds.device)
        return self.denoise(hidden.long(), hidden, self.memory)[:, 0].float().log_softmax(-1)

    @property
    def next_digit(self) -> NextDigit:
        """``ask`` of an autoregressive network."""
        return self.ask


class Decoded(NamedTuple):
    """The answer for B users.

    Attributes:
        items: [B, k] item positions, best first, -1 after the last.
        scores: [B, k] log-probabilities, -inf after the last.
        codes: [B, M, n] the distinct complete SIDs behind them, best first (M may differ from k).
        sid_scores: [B, M], -inf where there is no SID.
        legal: [B, M] bool, whether the SID stands for at least one item that the user may get.
        steps: [B, M, n] the step (from 0) in which each digit of the SID was filled; all 0 where decoding has no order.
    """

    items: Tensor
    scores: Tensor
    codes: Tensor
    sid_scores: Tensor
    legal: Tensor
    steps: Tensor

    def rows(self, chosen: Tensor) -> Decoded:
        """The answers for some users [b]."""
        return Decoded(*(part[chosen] for part in self))

    def replaced(self, chosen: Tensor, new: Decoded) -> Decoded:
        """With other answers for some users [b]; the SID columns grow to the wider of the two."""
        columns = max(self.codes.shape[1], new.codes.shape[1])
        old, new = self.widened(columns), new.widened(columns)
        return Decoded(*(a.index_copy(0, chosen, b) for a, b in zip(old, new, strict=True)))

    def widened(self, columns: int) -> Decoded:
        """With this many SID columns, the new ones empty."""
        more = (0, 0, 0, columns - self.codes.shape[1])
        codes, steps = torch.nn.functional.pad(self.codes, more), torch.nn.functional.pad(self.steps, more)
        sid_scores, legal = pad_columns(self.sid_scores, columns, -torch.inf), pad_columns(self.legal, columns, False)
        return Decoded(self.items, self.scores, codes, sid_scores, legal, steps)


class Decoder(ABC):
    """Finds the items of highest score. Sees the network only through one function.

    Attributes:
        asks: the name of that function, ``denoise`` or, for networks that go from left to right, ``next_digit``, and for
            those whose digits items steer, ``steered``.
        needs: what the network must be able to do.
        uses_item_scores: whether it needs to be told the scores of all items.
        looks_up: whether those of the best items are enough.
        uses_code_tables: whether it needs to be told the vectors of codes.
        uses_pairs: whether scores by every two digits, where the network has some, count in its list.
        takes_offsets: whether what is added to item scores is added to the scores of its list.
    """

    asks: ClassVar[str] = "denoise"
    needs: ClassVar[tuple[type, ...]] = (Denoises,)
    uses_item_scores: ClassVar[bool] = False
    looks_up: ClassVar[bool] = False
    uses_code_tables: ClassVar[bool] = False
    uses_pairs: ClassVar[bool] = False
    takes_offsets: ClassVar[bool] = False

    def check(self, n_digits: int, n_items: int) -> None:
        """Refuse sizes that the decoder cannot work with, before anything is trained for it.

        Raises:
            RecipeError: with the way out.
        """

    @abstractmethod
    def rows(self, n_items: int, k: int) -> int:
        """Partial SIDs a user that are held at once; decides how many users make a batch."""

    def log_p(self, task: Task, beams: Beams) -> Tensor:
        """[B, W, n, K] log-probabilities of the codes of every digit, by which partial SIDs grow and lists are explained.

        Those of known digits mean nothing. A decoder that asks for something else than ``denoise``, or that adds something
        to what the network says, has its own.
        """
        return task.denoise(beams.codes, ~beams.known, task.memory).float().log_softmax(-1)

    def unsaid(self) -> str:
        """What :meth:`log_p` leaves unsaid of how lists come about, in a sentence for people; empty where it says all."""
        return (
            "Scores of whole items had a say in the list, and none in these confidences." if self.uses_item_scores else ""
        )

    @abstractmethod
    def decode(self, task: Task) -> Decoded:
        """The best ``task.k`` items of every user: real, distinct, allowed; fewer where fewer are possible."""


def items_from_sids(task: Task, codes: Tensor, scores: Tensor, steps: Tensor | None = None) -> Decoded:
    """Turn distinct complete SIDs, best first, into items. SIDs of several items give all of them.

    Args:
        codes: [B, M, n], scores: [B, M], -inf where there is no SID.
        steps: [B, M, n] when each digit was filled; None: all at once.
    """
    steps = torch.zeros_like(codes) if steps is None else steps
    found = task.catalogue.items_of(codes, task.excluded)  # [B, M, G]
    found = torch.where(scores[..., None] > -torch.inf, found, -1)
    legal = (found >= 0).any(-1)
    flat = found.flatten(1)
    order = (flat < 0).int().argsort(dim=1, stable=True)[:, : task.k]  # real items first, in order of score
    items = flat.gather(1, order)
    item_scores = scores[..., None].expand_as(found).flatten(1).gather(1, order)
    items, item_scores = pad_columns(items, task.k, -1), pad_columns(item_scores, task.k, -torch.inf)
    return Decoded(items, item_scores.masked_fill(items < 0, -torch.inf), codes, scores, legal, steps)


def some_users(task: Task, chosen: Tensor) -> Task:
    """The task of some users [b]."""
    excluded = None if task.excluded is None else task.excluded.rows(chosen)
    item_scores = None if task.item_scores is None else task.item_scores.rows(chosen)
    pairs = None if task.pairs is None else task.pairs.rows(chosen)
    return replace(
        task,
        memory=task.memory.rows(chosen),
        excluded=excluded,
        seeds=task.seeds[chosen],
        item_scores=item_scores,
        pairs=pairs,
    )


def joined(answers: list[Decoded]) -> Decoded:
    """The answers for several batches as one."""
    columns = max(answer.codes.shape[1] for answer in answers)
    return Decoded(*map(torch.cat, zip(*(answer.widened(columns) for answer in answers), strict=True)))


def pad_columns(x: Tensor, columns: int, value: float) -> Tensor:
    """X [B, M] with columns added on the right up to at least ``columns``."""
    missing = columns - x.shape[1]
    return torch.nn.functional.pad(x, (0, missing), value=value) if missing > 0 else x


def first_of_each(keys: Tensor) -> Tensor:
    """Keys [B, M] -> [B, M] bool, true at the first occurrence of each value in its row."""
    order = keys.argsort(dim=1, stable=True)
    ordered = keys.gather(1, order)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(new).scatter(1, order, new)


def mixed(x: Tensor) -> Tensor:
    """A well-spread int64 for every int64 (xor-shift and multiply)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ (x >> shift)) * factor
    return x ^ (x >> 31)
