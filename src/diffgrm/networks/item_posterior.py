"""A posterior over items inside of denoising: what it says of open digits, and how that is added to logits (EPIC, arXiv
2609.03522).

Letters: R partial SIDs, n digits, K codes, P pairs of a partial SID and an item that fits it, M distinct items among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Candidates(NamedTuple):
    """Partial SIDs and items that fit them.

    Attributes:
        row: [P] which of the R partial SIDs, in order.
        place: [P] where the item stands among the M.
        items: [M] positions of the items, each once; codes: [M, n] their digits.
        fitting: [R] how many items fit each partial SID, looked at or not.
    """

    row: Tensor
    place: Tensor
    items: Tensor
    codes: Tensor
    fitting: Tensor

    @property
    def item(self) -> Tensor:
        """[P] position of the item of each pair."""
        return self.items[self.place]


Choose = Callable[[Tensor, int], Candidates]
"""``choose(log_p [B, Q, n, K], most) -> Candidates``: the items that fit each of the B Q partial SIDs, ``most`` of each at
most, those whose open digits are likeliest by ``log_p``."""


class Steered(NamedTuple):
    """What a network says of partial SIDs together with a posterior over items.

    Attributes:
        logits: [B, Q, n, K], 0 where a digit is known.
        candidates: the items that were looked at; log_share: [P] the log of each one's share of the posterior.
    """

    logits: Tensor
    candidates: Candidates
    log_share: Tensor


def log_shares(score: Tensor, row: Tensor, rows: int) -> Tensor:
    """[P] the log-softmax of scores [P] over the pairs of each row [P].

    >>> log_shares(torch.tensor([1.0, 1.0, 7.0]), torch.tensor([0, 0, 2]), 3).exp().tolist()
    [0.5, 0.5, 1.0]
    """
    highest = largest_of_rows(score.detach(), row, rows)
    score = score - highest[row]
    return score - sum_of_rows(score.exp(), row, rows).log()[row]


def sum_of_rows(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """[R] sums of values [P] over the pairs of each row."""
    return values.new_zeros(rows).index_add(0, row, values)


def largest_of_rows(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """[R] the largest of values [P] of each row; -inf where there is none."""
    return values.new_full((rows,), -torch.inf).scatter_reduce(0, row, values, "amax")


def log_marginals(log_share: Tensor, found: Candidates, codebook_size: int) -> Tensor:
    """[R, n, K] log of what a posterior gives each code of each digit: -inf where no item looked at has it.

    Of a partial SID that no item fits, all is -inf.
    """
    rows, n = len(found.fitting), found.codes.shape[1]
    digits = torch.arange(n, device=log_share.device) * codebook_size + found.row[:, None] * (n * codebook_size)
    places = (digits + found.codes[found.place]).flatten()
    mass = log_share.new_zeros(rows * n * codebook_size).index_add(0, places, log_share.exp().repeat_interleave(n))
    none = mass == 0
    return mass.masked_fill(none, 1).log().masked_fill(none, -torch.inf).view(rows, n, codebook_size)


def fused(logits: Tensor, log_p: Tensor, log_marginal: Tensor, gate: Tensor | float, clip: float) -> Tensor:
    """Logits + gate * clip(log marginal - log p, -c, c), all [..., n, K] but a gate that is broadcast."""
    return logits + gate * (log_marginal - log_p).clamp(-clip, clip)
