"""The masked-diffusion loss (paper, equation 12), and the loss of single codes that it is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffgrm.learning.noising.base import Views
from diffgrm.learning.smoothing import over_near_codes


def weighted_mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of losses [N, ...] of N targets, each times what the target counts for (``Batch.weight``)."""
    return losses.mean() if weight is None else (losses * _beside(weight, losses)).mean()


def cross_entropy(scores: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float = 0.0) -> Tensor:
    """The weighted mean of the cross-entropy of targets [N] by scores [N, C]; see :func:`weighted_mean`."""
    if weight is None:
        return F.cross_entropy(scores, target, label_smoothing=label_smoothing)
    return weighted_mean(F.cross_entropy(scores, target, label_smoothing=label_smoothing, reduction="none"), weight)


def _beside(weight: Tensor, losses: Tensor) -> Tensor:
    """Weights [N] as a factor of losses [N, ...]."""
    return weight.view(-1, *[1] * (losses.ndim - 1))


def masked_cross_entropy(
    logits: Tensor,
    codes: Tensor,
    views: Views,
    *,
    reduction: str = "view_mean",
    label_smoothing: float = 0.0,
    close: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Label-smoothed cross-entropy of the hidden digits, as one number in nats.

    Args:
        logits: [B, V, n, K] of the V views.
        codes: [B, n] the true digits.
        views: which digits are hidden, and what each view and each hidden digit counts for.
        reduction: ``view_mean``: mean inside a view, then over views and targets (paper);
            ``token_mean``: mean over all hidden digits (the release).
        label_smoothing, close: see :func:`code_losses`.
        weight: [B] what the loss of each target is multiplied by; None: by 1.
    """
    mask, view_weight, digit_weight = views
    target = codes[:, None, :].expand(mask.shape)[mask]  # [M]
    losses = code_losses(logits[mask], target, digits_of(mask), label_smoothing, close)
    per_token = losses.new_zeros(mask.shape).masked_scatter(mask, losses)  # [B, V, n]
    if weight is not None:
        per_token = per_token * _beside(weight, per_token)
    if reduction == "token_mean":
        return (per_token.sum(-1) * digit_weight).sum() / (mask.sum(-1) * digit_weight).sum().clamp(min=1e-9)
    return (per_token.sum(-1) / mask.sum(-1).clamp(min=1) * view_weight).mean()


def code_losses(
    logits: Tensor, target: Tensor, digit: Tensor, label_smoothing: float = 0.0, close: Tensor | None = None
) -> Tensor:
    """[M] label-smoothed cross-entropy of codes ``target`` [M] by logits [M, K], in nats.

    Args:
        digit: [M] which digit each is a code of.
        label_smoothing: mass spread over the K codes.
        close: [n, K, K] by which codes it is spread, see :func:`over_near_codes`; None: evenly.
    """
    logits = logits.float()
    if close is None or not label_smoothing:
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")
    spread = over_near_codes(close[digit, target], target)
    wanted = label_smoothing * spread + (1 - label_smoothing) * F.one_hot(target, logits.shape[1])
    return F.cross_entropy(logits, wanted, reduction="none")


def digits_of(mask: Tensor) -> Tensor:
    """[M] which digit each hidden place of a mask [..., n] is."""
    return torch.arange(mask.shape[-1], device=mask.device).expand(mask.shape)[mask]
