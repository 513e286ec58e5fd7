"""Items that fit partial SIDs, those whose open digits a network finds likeliest.

Letters: R partial SIDs, n digits, K codes, P pairs of a partial SID and an item that fits it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffgrm.networks.item_posterior import Candidates
from diffgrm.ranking.catalogue import Catalogue, Excluded
from diffgrm.ranking.digit_sums import sum_of_digits

Pairs = tuple[Tensor, Tensor, Tensor]  # [P] row, item position, log-probability of the item's open digits


def candidates(
    catalogue: Catalogue, codes: Tensor, known: Tensor, log_p: Tensor, most: int, excluded: Excluded | None = None
) -> Candidates:
    """The items that fit partial SIDs, ``most`` of each at most, those whose open digits are likeliest; of equal ones the
    first.

    Args:
        codes: [R, n], any value where unknown; known: [R, n] bool.
        log_p: [R, n, K] log-probabilities of the open digits.
        excluded: items that single rows must not get.
    """
    count = known.sum(1)
    fitting, parts = torch.zeros_like(count), []
    for shown in count.unique().tolist():
        rows = (count == shown).nonzero()[:, 0]
        away = None if excluded is None else excluded.rows(rows)
        if shown:
            row, item, score = _that_fit(catalogue, codes[rows], known[rows], log_p[rows], away)
            fitting[rows] = row.bincount(minlength=len(rows))
            row, item, score = _best(row, item, score, most)
        else:
            row, item, score = _of_all(catalogue, log_p[rows], most, away)
            fitting[rows] = catalogue.possible(away, len(rows))
        parts.append((rows[row], item))
    row, item = (torch.cat(part) for part in zip(*parts, strict=True))
    order = row.argsort(stable=True)
    items, place = item[order].unique(return_inverse=True)
    return Candidates(row[order], place, items, catalogue.codes_of(items), fitting)


def _that_fit(catalogue: Catalogue, codes: Tensor, known: Tensor, log_p: Tensor, excluded: Excluded | None) -> Pairs:
    """Every item that fits partial SIDs in which as many digits are known, one at least."""
    row, item = catalogue.fitting(codes, known, excluded)
    open_, digit = log_p.masked_fill(known[..., None], 0), torch.arange(codes.shape[1], device=row.device)
    return row, item, open_[row[:, None], digit, catalogue.codes_of(item)].sum(1)


def _best(row: Tensor, item: Tensor, score: Tensor, count: int) -> Pairs:
    """The best ``count`` items of every row."""
    if not len(row) or row.bincount().max() <= count:
        return row, item, score
    order = score.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    ordered = row[order]
    place = torch.arange(len(ordered), device=ordered.device) - torch.searchsorted(ordered, ordered)
    order = order[place < count]
    return row[order], item[order], score[order]


def _of_all(catalogue: Catalogue, log_p: Tensor, count: int, excluded: Excluded | None) -> Pairs:
    """The likeliest ``count`` items that each row may get, where nothing is known yet."""
    score, place = sum_of_digits(log_p, catalogue.codes).sort(dim=1, descending=True, stable=True)  # [R, I']
    item = catalogue.items.long()[place]
    row = torch.arange(len(item), device=item.device)[:, None].expand_as(item)
    may = torch.ones_like(item, dtype=torch.bool) if excluded is None else ~excluded.contains(row, item)
    may &= may.cumsum(1) <= count
    return row[may], item[may], score[may]
