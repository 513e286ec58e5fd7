"""Losses over items: full and sampled softmax, BCE and gBCE.

Letters: N targets, I items, M of them that are asked for, m negatives, d width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.losses import cross_entropy, weighted_mean
from diffgrm.networks.blocks import unrounded
from diffgrm.networks.comparison import Comparison


class Sample(NamedTuple):
    """Negatives that a loss compares targets with.

    Attributes:
        items: [m] shared by all targets, or [N, m] of each target's own.
        log_expected: [m] log of how often each is expected among them; None where the loss does not ask.
    """

    items: Tensor
    log_expected: Tensor | None = None


def draw(settings: ItemLossSettings, counts: Tensor, targets: int, generator: torch.Generator) -> Sample | None:
    """The negatives of N targets; None for the loss over all items.

    Args:
        counts: [I] training events of every item; those without are never drawn by popularity.
        generator: on the device of ``counts``.
    """
    if settings.kind == "softmax":
        return None
    chance = _chances(counts, settings.negative_power)
    if settings.kind == "sampled_softmax":
        items = torch.multinomial(chance, settings.negatives, replacement=True, generator=generator)
        return Sample(items, (chance[items] * settings.negatives).log() if settings.logq else None)
    items = torch.multinomial(chance, targets * settings.negatives, replacement=True, generator=generator)
    return Sample(items.view(targets, -1))


def item_loss(
    hidden: Tensor,
    target: Tensor,
    items: Tensor,
    settings: ItemLossSettings,
    sample: Sample | None,
    n_items: int,
    weight: Tensor | None = None,
) -> Tensor:
    """The loss of telling each target from other items, as one number.

    Args:
        hidden: [N, d] what is known before each target.
        target: [N] rows of ``items``.
        items: [M, d] vectors of all items, or of those that are asked for; a score is their product with ``hidden``.
        sample: the negatives, as rows of ``items``.
        n_items: I, the size of the catalogue.
        weight: [N] see :func:`diffgrm.learning.losses.weighted_mean`.
    """
    comparison = Comparison.of(settings)
    hidden, items = comparison.users(hidden).float(), comparison.items(items).float()
    with unrounded(hidden.device):
        if sample is None:
            return cross_entropy(hidden @ items.T, target, weight, settings.label_smoothing)
        if settings.kind == "sampled_softmax":
            return _sampled_softmax(hidden, target, items, sample, weight)
        losses = _binary(hidden, target, items, settings, sample.items, n_items)
        return weighted_mean(losses, weight) / (1 + settings.negatives)


def _chances(counts: Tensor, power: float) -> Tensor:
    """[I] how likely each item is drawn as a negative: its events to a power, 0 being the same for all."""
    weight = counts.double() ** power if power > 0 else torch.ones_like(counts, dtype=torch.double)
    return (weight / weight.sum()).float()


def _sampled_softmax(hidden: Tensor, target: Tensor, items: Tensor, sample: Sample, weight: Tensor | None) -> Tensor:
    """Softmax over the target and negatives that the whole batch shares (Bengio and Senecal, 2003).

    With logQ correction the score of each negative is lowered by the log of how often its item is expected among them, so
    that the sum estimates the full softmax's. The target is there in any case, so its score stays.
    """
    own = (hidden * items[target]).sum(-1, keepdim=True)  # [N, 1]
    others = hidden @ items[sample.items].T  # [N, m]
    if sample.log_expected is not None:
        others = others - sample.log_expected
    others = others.masked_fill(sample.items == target[:, None], -torch.inf)
    first = torch.zeros_like(target)
    return cross_entropy(torch.cat([own, others], 1), first, weight)


def _binary(
    hidden: Tensor, target: Tensor, items: Tensor, settings: ItemLossSettings, drawn: Tensor, n_items: int
) -> Tensor:
    """[N] each target against negatives of its own.

    gBCE weighs the positive by beta (Petrov and Macdonald, 2023, eq. 8-10).
    """
    own = (hidden * items[target]).sum(-1)
    others = torch.einsum("nd,nmd->nm", hidden, items[drawn])
    beta = 1.0
    if settings.kind == "gbce":
        sampled = settings.negatives / max(n_items - 1, 1)
        beta = sampled * (settings.calibration * (1 - 1 / sampled) + 1 / sampled)
        assert math.isfinite(beta)
    negative = F.logsigmoid(-others).masked_fill(drawn == target[:, None], 0).sum(-1)
    return -(beta * F.logsigmoid(own) + negative)
