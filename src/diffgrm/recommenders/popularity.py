"""Most popular items first: the least that any recommender must beat."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from diffgrm.data.marks import Weights
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import State
from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.parts import Beside, FitTask, ItemChange, LearntPart, of_all_items, part_of

FILE, SUMS = "popularity.safetensors", "sums"


class WeightedCounts(LearntPart):
    """What the training events of every item count for together.

    Attributes:
        sums: [I] float64; whole numbers where all events count alike.
    """

    counts_events: ClassVar[bool] = True

    def __init__(self) -> None:
        self.sums: np.ndarray = np.zeros(0)

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        train, n_items = task.split.train, task.split.dataset.n_items
        weights, is_target = Weights.of(train.marks), train.marks.is_target
        counted = slice(None) if is_target is None else is_target
        beside = None if weights is None else weights.at(counted)
        self.sums = np.bincount(train.values[counted], beside, n_items)

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; they are counted anew."""
        return self.counted_anew(task)

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`; new items have no events."""
        if change.new:
            grown = type(self)()
            grown.sums = np.append(self.sums, np.zeros(change.rows.height, self.sums.dtype))
            return grown
        return self

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        State({SUMS: self.sums}).save(folder / FILE)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        found = State.load(folder / FILE).arrays.get(SUMS, np.zeros(0))
        if found.ndim != 1 or found.dtype.kind not in "if" or not np.isfinite(found).all():
            raise ModelFolderError(f"{folder / FILE} is damaged: expected a finite number for each item")
        self.sums = of_all_items(found, beside.n_items, folder / FILE)


class PopularityRecommender(Recommender):
    """Ranks by number of training events, the same for everyone; equal numbers in order of the item table.

    Where events have weights, it ranks by their sum.
    """

    name = "popularity"
    takes_offsets = True
    counts_events: ClassVar[bool] = True  # those of the catalogue where events have no weights

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        return {} if self.recipe.events.weight is None else {"counts": WeightedCounts()}

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        n_items = len(self.item_counts)
        sums = part_of(self.parts, "counts", WeightedCounts).sums if "counts" in self.parts else self.item_counts
        scores = sums - np.arange(n_items) / n_items if sums.dtype.kind == "i" else sums  # earlier items win ties
        return top_k_of_scores(query, lambda rows: np.tile(scores, (len(rows), 1)))
