"""Neighbourhood recommenders: by co-occurrence and by text (floor 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import scipy.sparse as sp

from diffgrm.data.dataset import Split
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.storage import State
from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.recommenders.base import Recommender
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, embed_items

SIMILARITY, VECTORS, ENCODER = "similarity.safetensors", "vectors.safetensors", "encoder.safetensors"


class ItemKNNRecommender(Recommender):
    """Items that the same users met as those of the history."""

    name = "item_knn"
    sections = ("model",)
    defaults: ClassVar[dict[str, dict[str, Any]]] = {"model": {"name": "item_knn"}}

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        self.similarity: sp.csr_array | None = None

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        self.similarity = self.recipe.model.build().fit(split.train, split.dataset.n_items)

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        model, similarity = self.recipe.model.build(), self.similarity
        return top_k_of_scores(query, lambda rows: model.scores(query.histories.rows(rows), similarity))

    def _likeness(self, position: int) -> np.ndarray:
        assert self.similarity is not None
        return self.similarity[[position]].toarray()[0]

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        found = self.similarity
        assert found is not None
        State({"data": found.data, "indices": found.indices, "indptr": found.indptr}).save(folder / SIMILARITY)

    def _load_files(self, folder: Path) -> None:
        super()._load_files(folder)
        arrays = State.load(folder / SIMILARITY).arrays
        size = len(arrays["indptr"]) - 1
        self.similarity = sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(size, size))


class TextKNNRecommender(Recommender):
    """Items whose text is like that of the last ones of the history; needs no events of an item."""

    name = "text_knn"
    sections = ("embedding", "model")
    defaults: ClassVar[dict[str, dict[str, Any]]] = {"model": {"name": "text_knn"}}

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        self.encoder: ItemEncoder | None = None
        self.vectors: np.ndarray | None = None

    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None:
        self.encoder = self.recipe.embedding.build(seed=self.recipe.seed)
        self.vectors = embed_items(self.encoder, split.dataset.item_table, split.item_counts > 0)

    def _know(self, rows: pl.DataFrame) -> None:
        assert self.vectors is not None and self.encoder is not None
        self.vectors = np.concatenate([self.vectors, self.encoder.encode(rows)])

    def _learn_again(self, positions: np.ndarray, rows: pl.DataFrame) -> None:
        assert self.vectors is not None and self.encoder is not None
        self.vectors = self.vectors.copy()
        self.vectors[positions] = self.encoder.encode(rows)

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        model, vectors = self.recipe.model.build(), self.vectors
        return top_k_of_scores(query, lambda rows: model.scores(query.histories.rows(rows), vectors))

    def _likeness(self, position: int) -> np.ndarray:
        assert self.vectors is not None
        return self.vectors @ self.vectors[position]

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        assert self.vectors is not None and self.encoder is not None
        State({"vectors": self.vectors}).save(folder / VECTORS)
        self.encoder.state().save(folder / ENCODER)

    def _load_files(self, folder: Path) -> None:
        super()._load_files(folder)
        self.vectors = State.load(folder / VECTORS).arrays["vectors"]
        encoder = self.recipe.embedding.build(seed=self.recipe.seed)
        self.encoder = encoder.load_state(State.load(folder / ENCODER))
