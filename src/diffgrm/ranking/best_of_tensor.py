"""The best of many scores where they are: of a GPU's, a few come over and not all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffgrm.foundation.top_k import best_places
from diffgrm.ranking.query import Hidden


def best_of_tensor(scores: Tensor, k: int, hidden: Hidden) -> tuple[np.ndarray, np.ndarray]:
    """See :data:`diffgrm.ranking.query.Best`, of PyTorch's tensors: the same as of arrays, equal scores too."""

    def here(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(scores.device)

    if hidden.offsets is not None:
        scores = scores + here(hidden.offsets)
    if hidden.candidates is not None:
        scores = scores.masked_fill(~here(hidden.candidates), -torch.inf)
    if len(hidden.row):
        scores[here(hidden.row), here(hidden.item)] = -torch.inf
    count = min(k, scores.shape[1])
    if count == scores.shape[1]:  # which topk takes several times as long for
        top, place = scores.sort(dim=1, descending=True, stable=True)
        return place.cpu().numpy(), top.cpu().numpy()
    top, place = scores.topk(count + 1, dim=1)
    last, next_ = top[:, count - 1], top[:, -1]  # a tie for the last place, of which topk may take any
    tied = (last == next_) & (last > -torch.inf)
    place, order = place[:, :count].sort(dim=1)
    top, order = top.gather(1, order).sort(dim=1, descending=True, stable=True)
    items, best = place.gather(1, order).cpu().numpy(), top.cpu().numpy()
    if rows := tied.nonzero()[:, 0].tolist():
        some = scores[rows].cpu().numpy()
        items[rows] = best_places(some, count)
        best[rows] = np.take_along_axis(some, items[rows], 1)
    return items, best
