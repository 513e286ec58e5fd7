"""Neighbourhood recommenders: by co-occurrence and by text."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp

from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.sparse import arrays_of, matrix_of
from diffgrm.foundation.storage import State
from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.parts import Beside, FitTask, LearntPart, check_model, part_of
from diffgrm.recommenders.texts import TextVectors

SIMILARITY = "similarity.safetensors"


class Similarities(LearntPart):
    """The similarity of items by the users who met them.

    Attributes:
        matrix: [I, I] of each item (row) to its neighbours.
    """

    counts_events: ClassVar[bool] = True

    def __init__(self) -> None:
        self.matrix = sp.csr_array((0, 0))

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        self.matrix = task.recipe.model.build().fit(task.split.train, task.split.dataset.n_items)

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; they are counted anew."""
        return self.counted_anew(task)

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        State(arrays_of(self.matrix)).save(folder / SIMILARITY)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        size = beside.n_items
        self.matrix = matrix_of(State.load(folder / SIMILARITY).arrays, (size, size))


class ItemKNNRecommender(Recommender):
    """Items that the same users met as those of the history."""

    name = "item_knn"
    sections: ClassVar[tuple[str, ...]] = ("model",)
    takes_offsets = True

    @property
    def takes_new_items(self) -> bool:
        """It knows items by their events only."""
        return False

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        check_model(self.recipe, "fit", "scores")
        return {"similarities": Similarities()}

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        model, matrix = self.recipe.model.build(), part_of(self.parts, "similarities", Similarities).matrix
        return top_k_of_scores(query, lambda rows: model.scores(query.histories.rows(rows), matrix))

    def _similarity(self, position: int, others: np.ndarray | None = None) -> np.ndarray:
        row = part_of(self.parts, "similarities", Similarities).matrix[[position]].toarray()[0]
        return row if others is None else row[others]


class TextKNNRecommender(Recommender):
    """Items whose text is similar to that of the last ones of the history; needs no events of an item."""

    name = "text_knn"
    sections: ClassVar[tuple[str, ...]] = ("embedding", "model")
    takes_offsets = True

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        check_model(self.recipe, "scores")
        return {"texts": TextVectors(kept=True)}

    @property
    def vectors(self) -> np.ndarray:
        """[I, e] of the items' texts."""
        found = part_of(self.parts, "texts", TextVectors).vectors
        assert found is not None
        return found

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        model, vectors = self.recipe.model.build(), self.vectors
        return top_k_of_scores(query, lambda rows: model.scores(query.histories.rows(rows), vectors))

    def _similarity(self, position: int, others: np.ndarray | None = None) -> np.ndarray:
        return (self.vectors if others is None else self.vectors[others]) @ self.vectors[position]
