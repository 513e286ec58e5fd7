"""Scores of items that are sums of one number a digit.

Letters: R rows of logits, D semantic IDs, P pairs of a row and an item, n digits, K codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffgrm.networks.item_posterior import largest_of_rows, sum_of_rows


def sum_of_digits(logits: Tensor, codes: Tensor) -> Tensor:
    """Scores [R, D] of semantic IDs [D, n] by the logits [R, n, K] of their digits.

    >>> sum_of_digits(torch.tensor([[[0.0, 1.0], [10.0, 20.0]]]), torch.tensor([[0, 1], [1, 0]])).tolist()
    [[20.0, 11.0]]
    """
    return sum_at(logits, places_of(codes, logits.shape[2]))


def places_of(codes: Tensor, codebook_size: int) -> Tensor:
    """[D, n] int32 numbers of (digit, code)s among all n K, of semantic IDs [D, n]; half the bytes of a long to read."""
    digit = torch.arange(codes.shape[1], dtype=torch.int32, device=codes.device)
    return codes.int() + digit * codebook_size


def sum_at(logits: Tensor, places: Tensor) -> Tensor:
    """:func:`sum_of_digits` of semantic IDs whose :func:`places_of` [D, n] are at hand."""
    if len(logits) == 1:  # embedding_bag takes a slow way for vectors of width 1: two rows are summed in a part of the time
        return sum_at(logits.expand(2, -1, -1), places)[:1]
    return F.embedding_bag(places, logits.flatten(1).T.contiguous(), mode="sum").T


def log_mass_of_fitting(logits: Tensor, codes: Tensor, row: Tensor, beside: Tensor | None = None) -> Tensor:
    """[R] log of the summed exponentials of the scores of items, each of which belongs to one row.

    Args:
        logits: [R, n, K], 0 where a digit is known.
        codes: [P, n] of the items.
        row: [P] which of the rows each belongs to; a row without items gets -inf.
        beside: [P] what each scores beside its digits; None: nothing.
    """
    R, n, K = logits.shape
    places = codes.long() + torch.arange(n, device=codes.device) * K + row[:, None] * (n * K)
    score = logits.flatten()[places].sum(1)
    return log_mass_of_rows(score if beside is None else score + beside, row, R)


def log_mass_of_rows(score: Tensor, row: Tensor, rows: int) -> Tensor:
    """[R] log of the summed exponentials of scores [P], each of which belongs to one of R rows; -inf of a row without.

    >>> log_mass_of_rows(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([0, 1, 0]), 2).exp().round().tolist()
    [2.0, 20.0]
    """
    highest = largest_of_rows(score.detach(), row, rows)
    return sum_of_rows((score - highest[row]).exp(), row, rows).log() + highest
