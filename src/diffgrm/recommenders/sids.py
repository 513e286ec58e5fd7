"""The semantic IDs of all items and the tokenizer that makes them, as a learnt part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import State
from diffgrm.recommenders.parts import Beside, FitTask, ItemChange, LearntPart, of_all_items, part_of
from diffgrm.recommenders.texts import TextVectors, text_vectors
from diffgrm.semantic_ids.semantic_ids import EXTRA, SemanticIds, TokenizerReport, tokenize_items
from diffgrm.semantic_ids.tokenizers.base import Tokenizer, TokenizerContext

SIDS, TOKENIZER = "semantic_ids.safetensors", "tokenizer.safetensors"


class Identifiers(LearntPart):
    """Learns a tokenizer from the text vectors of training items, and gives every item its SID.

    Args:
        checks: told n digits and I items; they refuse sizes that decoders and schedules cannot work with.

    Attributes:
        tokenizer, semantic_ids: there once it is fitted or loaded.
        report: on the semantic IDs, after fit.
    """

    tokenizer: Tokenizer
    semantic_ids: SemanticIds

    def __init__(self, checks: Sequence[Callable[[int, int], None]] = ()) -> None:
        self.checks = checks
        self.report: TokenizerReport | None = None

    def check(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check`; refuses sizes and files before anything is learnt for them."""
        tokenizer = task.recipe.tokenizer.build(seed=task.recipe.seed)
        tokenizer.check(task.split.dataset.items.series)
        n_digits = tokenizer.n_digits + (task.recipe.semantic_ids.collisions == EXTRA)
        for check in self.checks:
            check(n_digits, task.split.dataset.n_items)

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        recipe, split = task.recipe, task.split
        vectors = part_of(task.parts, "texts", TextVectors).vectors
        assert vectors is not None
        self.tokenizer = tokenizer = recipe.tokenizer.build(seed=recipe.seed)
        folder = None if task.run_folder is None else task.run_folder / "tokenizer"
        items = split.dataset.items.series
        context = TokenizerContext(vectors, split.learnable, split.train, "cpu", folder, recipe.seed, items)
        collisions, options = recipe.semantic_ids.collisions, recipe.tokenizer.flat()
        self.semantic_ids, self.report = tokenize_items(tokenizer, context, collisions, options)
        task.facts["tokenizer_report"] = dict(self.report.rows())

    def code_vectors(self) -> np.ndarray:
        """[n, K, e] what each code stands for, see :meth:`Tokenizer.code_vectors`; codes of an extra digit for nothing."""
        vectors = self.tokenizer.code_vectors()
        extra = self.semantic_ids.n_digits - len(vectors)
        return np.concatenate([vectors, np.zeros((extra, *vectors.shape[1:]), dtype=vectors.dtype)])

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; the tokenizer and all SIDs stay."""
        return self

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`; the SIDs of all other items stay."""
        changed = copy.copy(self)
        if change.new:
            changed.semantic_ids = self.semantic_ids.extended(self.tokenizer, text_vectors(change))
        else:
            changed.semantic_ids = self.semantic_ids.moved(change.positions, self.tokenizer, text_vectors(change))
        return changed

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        self.semantic_ids.save(folder / SIDS)
        self.tokenizer.state().save(folder / TOKENIZER)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        path = folder / SIDS
        self.semantic_ids = of_all_items(SemanticIds.load(path), beside.n_items, path)
        self.tokenizer = recipe.tokenizer.build(seed=recipe.seed)
        ids, collisions = self.semantic_ids, recipe.semantic_ids.collisions
        if self.tokenizer.codebook_sizes != ids.tokenizer_sizes():
            raise ModelFolderError(
                f"{path} has codes of the sizes {ids.tokenizer_sizes()}, the tokenizer of the recipe makes "
                f"{self.tokenizer.codebook_sizes}"
            )
        if (ids.collisions == EXTRA) != (collisions == EXTRA):
            raise ModelFolderError(
                f"{path} was made with semantic_ids.collisions={ids.collisions}, the recipe has {collisions}"
            )
        self.tokenizer.load_state(State.load(folder / TOKENIZER))
