"""Most popular items first: the least that any recommender must beat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffgrm.data.dataset import Ragged, Split
from diffgrm.recommenders.base import Recommender

BLOCK = 1024


def top_k_of_scores(
    scores_of_block: Callable[[np.ndarray], np.ndarray],
    histories: Ragged,
    k: int,
    exclude_seen: bool,
    allowed: np.ndarray | None,
    progress: Callable[[int], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact top-k of methods that score every item, a block of users at a time; ties go to the earlier item.

    Args:
        scores_of_block: user rows [b] -> scores [b, I], which may be written to.
    """
    items = np.full((len(histories), k), -1, dtype=np.int64)
    best = np.full((len(histories), k), -np.inf, dtype=np.float32)
    for start in range(0, len(histories), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(histories)))
        scores = scores_of_block(rows).astype(np.float64)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if exclude_seen:
            seen = histories.rows(rows)
            scores[np.repeat(np.arange(len(rows)), seen.lengths), seen.values] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        top = np.take_along_axis(scores, order, 1)
        items[rows], best[rows] = np.where(top > -np.inf, order, -1), top
        if progress:
            progress(len(rows))
    return items, best


class PopularityRecommender(Recommender):
    """Ranks by number of training events, the same for everyone."""

    name = "popularity"

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        pass  # the base class keeps the counts

    def _rank(
        self,
        histories: Ragged,
        k: int,
        exclude_seen: bool,
        allowed: np.ndarray | None,
        progress: Callable[[int], None] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        def scores(rows: np.ndarray) -> np.ndarray:
            return np.tile(self.item_counts.astype(np.float64), (len(rows), 1))

        return top_k_of_scores(scores, histories, k, exclude_seen, allowed, progress)
