"""Label smoothing over codes near the true one: how near codes are, and what of the smoothed mass each gets.

Letters: M codes, n digits, K codes of a digit, e width of what codes stand for.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.semantic_ids.tokenizers.base import gives_code_vectors

LabelSmoothing = Annotated[float, Field(ge=0, lt=1), "probability mass spread over all codes of a digit"]
SmoothingTemperature = Annotated[
    float | None,
    Field(gt=0),
    "the smoothed mass goes to codes that stand for nearly the same: softmax of minus the squared distance of their "
    "vectors, in units of the mean over two codes of the digit, over this temperature; null: to all codes alike",
]


def closeness(vectors: np.ndarray, temperature: float) -> Tensor:
    """[n, K, K] minus the squared distance of every two codes of a digit over the temperature; -inf of a code and itself.

    Distances are in units of their mean over the pairs of the digit, so that a temperature means the same whatever the
    size of vectors. The formula, and the unit, are our reading of smoothing over near codes.

    Args:
        vectors: [n, K, e] what codes stand for; of a digit whose codes stand for nothing all are alike.
    """
    codes = torch.from_numpy(vectors).double()
    squared = torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist").square()
    K = codes.shape[1]
    mean = squared.sum((1, 2), keepdim=True) / (K * (K - 1))
    close = -squared / (mean.clamp(min=torch.finfo(torch.float64).tiny) * temperature)
    return close.masked_fill(torch.eye(K, dtype=torch.bool), -torch.inf).float()


def over_near_codes(close: Tensor, target: Tensor, allowed: Tensor | None = None) -> Tensor:
    """[..., K] how mass 1 is spread about codes: a code keeps what it keeps of mass that is spread evenly, 1 / K; the rest
    goes to the others by their closeness.

    >>> over_near_codes(torch.tensor([0.0, -torch.inf, 0.0, -1000.0]), torch.tensor(1)).tolist()
    [0.375, 0.25, 0.375, 0.0]

    Args:
        close: [..., K] rows of :func:`closeness` of the true codes ``target`` [...].
        allowed: [..., K] bool, codes that compete, the true one among them, which are then the K; None: all.
    """
    count = torch.full_like(target, close.shape[-1]) if allowed is None else allowed.sum(-1)
    others = close if allowed is None else close.masked_fill(~allowed, -torch.inf)
    kept = 1 / count[..., None]
    spread = others.softmax(-1).nan_to_num(0) * (1 - kept)  # nan: no other code is allowed
    return spread.scatter(-1, target[..., None], kept.to(spread.dtype))


def smoothing_problems(part: Part, recipe: Recipe) -> list[str]:
    """What is wrong with the smoothing of an objective over digits, a line each."""
    temperature, tokenizer = part.options["smoothing_temperature"], recipe.tokenizer
    if temperature is None:
        return []
    said, problems = f"objective.smoothing_temperature = {temperature}", []
    if not part.options["label_smoothing"]:
        problems.append(
            f"{said} does nothing with objective.label_smoothing = 0; leave it out, or raise objective.label_smoothing"
        )
    if not gives_code_vectors(tokenizer):
        problems.append(
            f"{said} smooths over codes by what they stand for, which the tokenizer {tokenizer.name!r} does not tell with "
            "these settings; choose tokenizer.name=opq with tokenizer.unit=false, or leave it out"
        )
    return problems
