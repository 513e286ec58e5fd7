"""What recommenders over semantic IDs share: texts to vectors to semantic IDs, and their files (floor 5)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl

from diffgrm.data.dataset import Split
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.storage import State
from diffgrm.recommenders.base import Recommender
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, embed_items, normalise
from diffgrm.semantic_ids.semantic_ids import SemanticIds, TokenizerReport, tokenize_items
from diffgrm.semantic_ids.tokenizers.base import Tokenizer

SIDS, TOKENIZER, ENCODER = "semantic_ids.safetensors", "tokenizer.safetensors", "encoder.safetensors"


class SemanticRecommender(Recommender):
    """A recommender whose items have semantic IDs. Subclasses call ``_tokenize`` at the start of ``_fit``."""

    sections: ClassVar[tuple[str, ...]] = ("embedding", "tokenizer", "semantic_ids")

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        self.encoder: ItemEncoder | None = None
        self.tokenizer: Tokenizer | None = None
        self.semantic_ids: SemanticIds | None = None
        self.report: TokenizerReport | None = None
        self._vectors: np.ndarray | None = None  # [I, e] of all items, once they are asked for

    def _sizes(self) -> dict[str, int]:
        """Arguments of a network over semantic IDs."""
        assert self.semantic_ids is not None
        return {"n_digits": self.semantic_ids.n_digits, "codebook_size": self.semantic_ids.codebook_size}

    def _tokenize(self, split: Split) -> SemanticIds:
        """Embed the items, fit the tokenizer on those that occur in training, and give every item its SID."""
        recipe, items = self.recipe, split.dataset.item_table
        in_training = split.item_counts > 0
        self._vectors = None
        self.encoder = recipe.embedding.build(seed=recipe.seed)
        embeddings = embed_items(self.encoder, items, in_training)
        self._embedded(embeddings)
        self.tokenizer = recipe.tokenizer.build(seed=recipe.seed)
        self.semantic_ids, self.report = tokenize_items(
            self.tokenizer,
            embeddings,
            in_training,
            recipe.semantic_ids.collisions,
            recipe.tokenizer.options,
        )
        self.facts["tokenizer_report"] = dict(self.report.rows())
        return self.semantic_ids

    def _embedded(self, embeddings: np.ndarray) -> None:
        """Told the vectors [I, e] of all items' texts, for methods that keep them."""

    def _know(self, rows: pl.DataFrame) -> None:
        assert self.semantic_ids is not None and self.tokenizer is not None and self.encoder is not None
        self._know_vectors(self.encoder.encode(rows))

    def _know_vectors(self, embeddings: np.ndarray) -> None:
        """Take in the vectors [N, e] of new items' texts."""
        assert self.semantic_ids is not None and self.tokenizer is not None
        self.semantic_ids = self.semantic_ids.extended(self.tokenizer, embeddings)

    def _catalogue_changed(self) -> None:
        super()._catalogue_changed()
        self._vectors = None

    def _learn_again(self, positions: np.ndarray, rows: pl.DataFrame) -> None:
        assert self.encoder is not None
        self._change_vectors(positions, self.encoder.encode(rows))

    def _change_vectors(self, positions: np.ndarray, embeddings: np.ndarray) -> None:
        """Take in other vectors [N, e] for the texts of items at positions [N]."""
        assert self.semantic_ids is not None and self.tokenizer is not None
        self.semantic_ids = self.semantic_ids.moved(positions, self.tokenizer, embeddings)

    def _likeness(self, position: int) -> np.ndarray:
        assert self.encoder is not None
        if self._vectors is None:
            self._vectors = normalise(self.encoder.encode(self.item_table))
        return self._vectors @ self._vectors[position]

    def sid_numbers(self, item_ids: pl.Series) -> np.ndarray:
        """[N] the number of each item's SID; items that share one have equal numbers, unknown items get -2."""
        self._check_fitted()
        assert self.semantic_ids is not None
        positions = self.items.positions(item_ids)
        return np.where(positions >= 0, self.semantic_ids.sid_of_item()[positions], -2)

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        assert self.semantic_ids is not None and self.tokenizer is not None and self.encoder is not None
        self.semantic_ids.save(folder / SIDS)
        self.tokenizer.state().save(folder / TOKENIZER)
        self.encoder.state().save(folder / ENCODER)

    def _load_files(self, folder: Path) -> None:
        recipe = self.recipe
        self.semantic_ids = SemanticIds.load(folder / SIDS)
        self.tokenizer = recipe.tokenizer.build(seed=recipe.seed).load_state(State.load(folder / TOKENIZER))
        self.encoder = recipe.embedding.build(seed=recipe.seed).load_state(State.load(folder / ENCODER))
        super()._load_files(folder)  # a network needs the sizes of the semantic IDs
