"""Which digits of whole sequences, history and target, are hidden.

Letters: N sequences, T items of each, n digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Hidden(NamedTuple):
    """Hidden digits of sequences.

    Attributes:
        mask: [N, T, n] bool, true where a digit is hidden and has to be predicted.
        rate: [N, T] with what probability each digit of an item was to be hidden; a hidden one counts 1/rate, so that the
            sum over a sequence does not depend on the rate but for what the others tell.
    """

    mask: Tensor
    rate: Tensor


def hide(kind: str, items: tuple[int, int], n_digits: int, generator: torch.Generator) -> Hidden:
    """Hide digits of N sequences of T items.

    Args:
        kind: ``uniform_t``: one rate t uniform in (0, 1] for each sequence, every digit with probability t (MaskGR, arXiv
            2511.23021); ``k_of_n``: k uniform in 0..n for each item, its digits with probability k/n (LLaDA-Rec, arXiv
            2511.06254); ``whole_items``: one rate for each sequence, and all digits of an item or none (MaskGR, where it
            learns vectors of items).
        items: N, T.
        generator: draws everything, on the device where the sequences are.
    """
    device = generator.device
    if kind == "k_of_n":
        k = torch.randint(0, n_digits + 1, items, generator=generator, device=device)
        rate = k.clamp(min=1) / n_digits  # of items with k = 0 nothing is hidden
        threshold = k / n_digits
    else:
        rate = threshold = (1 - torch.rand((items[0], 1), generator=generator, device=device)).expand(items)
    drawn = (*items, 1 if kind == "whole_items" else n_digits)
    mask = torch.rand(drawn, generator=generator, device=device) < threshold[..., None]
    return Hidden(mask.expand(*items, n_digits), rate)


def near_known(mask: Tensor, valid: Tensor, decay: float) -> Tensor:
    """How close each hidden digit of a sequence stands to those that are known, as a weight of its loss: [N, T, n].

    A known digit adds ``decay`` to the power of its distance in digits. The weights of the hidden digits of a sequence have
    the mean 1, and where nothing is known all are 1. That the loss of histories gains by such weights is ANR-DiffRec's
    (arXiv 2608.23400); its formula was not to be had, and this one is our reading.

    Args:
        mask: [N, T, n] bool, what is hidden; of real items only.
        valid: [N, T] bool, which items are real; what is not takes no place.
        decay: in (0, 1).
    """
    n = mask.shape[2]
    item = valid.cumsum(1)[..., None] * n + torch.arange(n, device=mask.device)  # [N, T, n] places in the sequence
    place, hidden = item.flatten(1), mask.flatten(1)
    known = valid.repeat_interleave(n, dim=1) & ~hidden
    distance = (place[:, :, None] - place[:, None]).abs()
    weight = (decay**distance * known[:, None]).sum(2) * hidden  # [N, T n]
    mean = weight.sum(1, keepdim=True) / hidden.sum(1, keepdim=True).clamp(min=1)
    weight = torch.where(mean > 0, weight / mean.clamp(min=1e-30), 1.0)
    return weight.view(mask.shape)
