"""The transition-graph heuristic as a recommender."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp

from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.sparse import arrays_of, matrix_of
from diffgrm.foundation.storage import State
from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.recommenders.neighbours import TextKNNRecommender, check_model
from diffgrm.recommenders.parts import Beside, FitTask, ItemChange, LearntPart, part_of

TRANSITIONS = "transitions.safetensors"


class Transitions(LearntPart):
    """How often each item came next after each.

    Attributes:
        counts: [I, I]; new items have no steps.
    """

    counts_events: ClassVar[bool] = True

    def __init__(self) -> None:
        self.counts = sp.csr_array((0, 0), dtype=np.int64)

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        self.counts = task.recipe.model.build().fit(task.split.train, task.split.dataset.n_items)

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; they are counted anew."""
        return self.counted_anew(task)

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`."""
        if not change.new:
            return self
        changed, size = copy.copy(self), self.counts.shape[0] + change.rows.height
        changed.counts = self.counts.copy()
        changed.counts.resize((size, size))
        return changed

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        State(arrays_of(self.counts)).save(folder / TRANSITIONS)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        path, size = folder / TRANSITIONS, beside.n_items
        self.counts = matrix_of(State.load(path).arrays, (size, size))
        if self.counts.dtype.kind not in "if" or not ((self.counts.data > 0) & np.isfinite(self.counts.data)).all():
            raise ModelFolderError(f"{path} holds other numbers than counts of steps, which are above 0")


class TransitionGraphRecommender(TextKNNRecommender):
    """Few steps away from the last items, by text: untrained, and hard to beat where items follow one another."""

    name = "transition_graph"

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        check_model(self.recipe, "fit", "scores")
        return {**super().new_parts(), "transitions": Transitions()}

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        model, counts = self.recipe.model.build(), part_of(self.parts, "transitions", Transitions).counts
        return top_k_of_scores(query, lambda rows: model.scores(query.histories.rows(rows), counts, self.vectors))
