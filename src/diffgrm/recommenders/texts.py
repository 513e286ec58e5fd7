"""The vectors of the items' texts, as a learnt part."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from diffgrm.foundation import registry
from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, DataError, ModelFolderError
from diffgrm.foundation.storage import State
from diffgrm.recommenders.parts import Beside, FitTask, ItemChange, LearntPart, of_all_items, part_of
from diffgrm.semantic_ids.embeddings.base import (
    EventContext,
    ItemEncoder,
    ItemSpace,
    check_embeddings,
    embed_items,
    encode_rows,
    normalise,
    tell_zero_vectors,
)

ENCODER, VECTORS = "encoder.safetensors", "text_vectors.safetensors"


class TextVectors(LearntPart):
    """An encoder of item texts, and the vectors of all items where somebody needs them after fit.

    Args:
        kept: whether the vectors are kept and saved.

    Attributes:
        encoder: there once it is fitted or loaded.
        vectors: [I, e] of all items; None where they are not kept and nothing is being fitted.
    """

    encoder: ItemEncoder

    def __init__(self, kept: bool) -> None:
        self.kept = kept
        self._embedding: Part | None = None  # what the encoder is made of
        self.vectors: np.ndarray | None = None
        self._by_rows: np.ndarray | None = None  # [I, e] of length 1, of a file that goes by rows: as at fit
        self._unit: tuple[pl.DataFrame, np.ndarray] | None = None  # a table's [I, e] of length 1, once they are asked for

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        self.encoder, self._embedding = task.recipe.embedding.build(seed=task.recipe.seed), task.recipe.embedding
        data, in_training = task.split.dataset, task.split.learnable
        self.vectors = embed_items(self.encoder, data.item_table, in_training, context=_context(task), given=data.given)

    def fitted(self) -> None:
        """See :meth:`LearntPart.fitted`."""
        if not self.kept:
            if self.encoder.goes_by_rows and self.vectors is not None:  # could not be made again
                self._by_rows = normalise(self.vectors)
            self.vectors = None

    def check_more(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check_more`; an item scorer that the embedding is made of has to go on too."""
        if isinstance(self.encoder, ItemSpace):
            self.encoder.check_more(_context(task), task.overrides)

    def before_items(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.before_items`; an item scorer goes on, and vectors that are kept stay."""
        if not isinstance(self.encoder, ItemSpace):
            return self
        more = copy.copy(self)
        more.encoder, task.facts["item_scorer"] = self.encoder.fit_more(_context(task), task.overrides)
        more._unit = None
        return more

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; other encoders stay as they were fitted."""
        return self

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`."""
        changed = copy.copy(self)
        changed._by_rows = changed._unit = None
        if self.vectors is not None:
            changed.vectors = all_text_vectors(change)
        return changed

    def recipe_changed(self, recipe: Recipe) -> Self:
        """See :meth:`LearntPart.recipe_changed`; what the encoder has learnt stays."""
        if recipe.embedding == self._embedding:
            return self
        changed = copy.copy(self)
        changed._by_rows = changed._unit = None
        changed._embedding = recipe.embedding
        changed.encoder = recipe.embedding.build(seed=recipe.seed).load_state(self.encoder.state())
        return changed

    def similarity(self, item_table: pl.DataFrame, position: int, others: np.ndarray | None = None) -> np.ndarray:
        """Cosine of the texts of others (positions [M]; None: of all items) to that of one item.

        Vectors that are not kept are made of the item table, whose rows may differ from those of fit.

        Raises:
            DataError: no vectors are kept, and they would come from a file that goes by rows, or cannot be made again.
        """
        unit = self._of_length_1(item_table)
        return (unit if others is None else unit[others]) @ unit[position]

    def _of_length_1(self, item_table: pl.DataFrame) -> np.ndarray:
        """[I, e] of the texts of all items, made once for the recommenders that share a table and this part."""
        if self._by_rows is not None:
            return self._by_rows
        kept = self._unit
        if kept is None or kept[0] is not item_table:
            vectors = self.vectors
            if vectors is None and self.encoder.goes_by_rows:
                raise DataError(
                    "the rows of a .npy file are those of the item table that was given at fit, whose order a model does "
                    "not keep; give the vectors as .parquet with the columns item_id and embedding"
                )
            if vectors is None:
                vectors = check_embeddings(self.encoder.encode(item_table), len(item_table), item_table[Columns.ITEM])
            kept = self._unit = item_table, normalise(vectors)
        return kept[1]

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        self.encoder.state().save(folder / ENCODER)
        if self.vectors is not None:
            State({"vectors": self.vectors}).save(folder / VECTORS)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        self._embedding = recipe.embedding
        self.encoder = recipe.embedding.build(seed=recipe.seed).load_state(State.load(folder / ENCODER))
        if self.kept:
            path = folder / VECTORS
            vectors = of_all_items(State.load(path).arrays["vectors"], beside.n_items, path)
            try:
                self.vectors = check_embeddings(vectors, len(vectors))
            except DataError as error:
                raise ModelFolderError(f"{path} is damaged: {error}") from error


def _context(task: FitTask) -> EventContext:
    """What an encoder that reads events may see."""
    recipe = task.recipe
    return EventContext(task.split, recipe.data.model_dump(), recipe.seed, task.run_folder, task.resume, task.progress)


def text_vectors(change: ItemChange) -> np.ndarray:
    """[N, e] of the texts of items that come or change; those with the zero vector are told in a warning.

    Raises:
        DataError: vectors as :func:`check_embeddings` refuses them, or not as wide as those that are kept.
    """
    part = part_of(change.parts, "texts", TextVectors)

    def make() -> np.ndarray:
        found = encode_rows(part.encoder, change.rows, change.given)
        vectors = check_embeddings(found, len(change.rows), change.rows[Columns.ITEM])
        if part.vectors is not None and vectors.shape[1] != part.vectors.shape[1]:
            raise DataError(
                f"embeddings are {vectors.shape[1]} wide, but the recommender was fitted on {part.vectors.shape[1]}; use "
                "the same encoder"
            )
        tell_zero_vectors(part.encoder, change.rows, vectors)
        return vectors

    return change.once("text vectors", make)


def all_text_vectors(change: ItemChange) -> np.ndarray:
    """[I, e] of the texts of all items after a change, where they are kept."""
    before = part_of(change.parts, "texts", TextVectors).vectors
    assert before is not None

    def make() -> np.ndarray:
        if change.new:
            return np.concatenate([before, text_vectors(change)])
        vectors = before.copy()
        vectors[change.positions] = text_vectors(change)
        return vectors

    return change.once("all text vectors", make)


def reads_texts(recipe: Recipe) -> bool:
    """Whether a recipe's model, or the vectors of its items, need those of texts."""
    named = [("model", recipe.model.name), *(("branch", name) for name in branch_names(recipe))]
    return any(registry.constant(kind, name, "reads_texts", False) for kind, name in named)


def branch_names(recipe: Recipe) -> tuple[str, ...]:
    """What the vectors of items are made of in a recipe's model."""
    return tuple(part.name for part in recipe.model.options.get("branches", ()))
