"""Losses over whole items: full and sampled softmax, BCE and gBCE (floor 3).

Letters: N targets, I items, m negatives, d width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffgrm.recipe import ItemLossSettings


def item_loss(
    hidden: Tensor, target: Tensor, items: Tensor, settings: ItemLossSettings, counts: Tensor, generator: torch.Generator
) -> Tensor:
    """The loss of telling each target from other items, as one number.

    Args:
        hidden: [N, d] what is known before each target.
        target: [N] item positions.
        items: [I, d] vectors of all items; a score is their product with ``hidden``.
        counts: [I] training events of every item; those without are never drawn by popularity.
        generator: draws negatives, on the device of ``target``.
    """
    hidden, items = comparable(hidden, items, settings)
    if settings.kind == "softmax":
        return F.cross_entropy((hidden @ items.T).float(), target, label_smoothing=settings.label_smoothing)
    chance = _chances(counts, settings.negative_power)
    if settings.kind == "sampled_softmax":
        return _sampled_softmax(hidden, target, items, settings, chance, generator)
    return _binary(hidden, target, items, settings, chance, generator)


def comparable(hidden: Tensor, items: Tensor, settings: ItemLossSettings) -> tuple[Tensor, Tensor]:
    """Vectors of users [N, d] and items [I, d] whose products are the scores that are compared."""
    if settings.cosine:
        hidden, items = F.normalize(hidden, dim=-1), F.normalize(items, dim=-1)
    return hidden / settings.temperature, items


def _chances(counts: Tensor, power: float) -> Tensor:
    """[I] how likely each item is drawn as a negative: its events to a power, 0 being the same for all."""
    weight = counts.double() ** power if power > 0 else torch.ones_like(counts, dtype=torch.double)
    return (weight / weight.sum()).float()


def _sampled_softmax(
    hidden: Tensor, target: Tensor, items: Tensor, settings: ItemLossSettings, chance: Tensor, generator: torch.Generator
) -> Tensor:
    """Softmax over the target and negatives that the whole batch shares (Bengio and Senecal, 2003).

    With logQ correction the score of each negative is lowered by the log of how often its item is expected among them, so
    that the sum estimates the full softmax's. The target is there in any case, so its score stays.
    """
    drawn = torch.multinomial(chance, settings.negatives, replacement=True, generator=generator)
    own = (hidden * items[target]).sum(-1, keepdim=True).float()  # [N, 1]
    others = (hidden @ items[drawn].T).float()  # [N, m]
    if settings.logq:
        others = others - (chance[drawn] * settings.negatives).log()
    others = others.masked_fill(drawn == target[:, None], -torch.inf)
    first = torch.zeros_like(target)
    return F.cross_entropy(torch.cat([own, others], 1), first)


def _binary(
    hidden: Tensor, target: Tensor, items: Tensor, settings: ItemLossSettings, chance: Tensor, generator: torch.Generator
) -> Tensor:
    """Each target against negatives of its own; gBCE weighs the positive by beta (Petrov and Macdonald, 2023, eq. 8-10)."""
    drawn = torch.multinomial(chance, len(target) * settings.negatives, replacement=True, generator=generator)
    drawn = drawn.view(len(target), -1)  # [N, m]
    own = (hidden * items[target]).sum(-1).float()
    others = torch.einsum("nd,nmd->nm", hidden, items[drawn]).float()
    beta = 1.0
    if settings.kind == "gbce":
        sampled = settings.negatives / max(len(items) - 1, 1)
        beta = sampled * (settings.calibration * (1 - 1 / sampled) + 1 / sampled)
        assert math.isfinite(beta)
    negative = F.logsigmoid(-others).masked_fill(drawn == target[:, None], 0).sum(-1)
    return -(beta * F.logsigmoid(own) + negative).mean() / (1 + settings.negatives)
