"""The masked-diffusion loss (paper, equation 12)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from diffgrm.learning.noising.base import Views


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
    weight: Tensor | None = None,
) -> Tensor:
    """Label-smoothed cross-entropy of the hidden digits, as one number in nats.

    Args:
        logits: [B, V, n, K] of the V views.
        codes: [B, n] the true digits.
        views: which digits are hidden, and what each view and each hidden digit counts for.
        reduction: ``view_mean``: mean inside a view, then over views and targets (paper);
            ``token_mean``: mean over all hidden digits (the release).
        label_smoothing: mass spread evenly over the K codes.
        weight: [B] what the loss of each target is multiplied by; None: by 1.
    """
    mask, view_weight, digit_weight = views
    target = codes[:, None, :].expand(mask.shape)[mask]  # [M]
    losses = F.cross_entropy(logits[mask].float(), target, label_smoothing=label_smoothing, reduction="none")
    per_token = losses.new_zeros(mask.shape).masked_scatter(mask, losses)  # [B, V, n]
    if weight is not None:
        per_token = per_token * _beside(weight, per_token)
    if reduction == "token_mean":
        return (per_token.sum(-1) * digit_weight).sum() / (mask.sum(-1) * digit_weight).sum().clamp(min=1e-9)
    return (per_token.sum(-1) / mask.sum(-1).clamp(min=1) * view_weight).mean()
