"""Latent semantic analysis: TF-IDF and truncated SVD. Needs no download; the default."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from diffgrm.foundation.schema import Columns, DataError, ModelFolderError, did_you_mean
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, normalise
from diffgrm.semantic_ids.threads import one_thread


class LSA(ItemEncoder):
    """TF-IDF weighted words projected on the leading singular directions of the training items' texts."""

    def __init__(
        self,
        width: Annotated[int, Field(ge=1), "length of an item's vector (less where the texts span less)"] = 256,
        analyzer: Annotated[
            Literal["word", "char_wb"], "word: words; char_wb: character n-grams inside words (many languages, typos)"
        ] = "word",
        longest_ngram: Annotated[int, Field(ge=1, le=6), "longest run of words (or characters) that is a feature"] = 1,
        min_items: Annotated[
            int | None, Field(ge=1), "a feature must occur in this many items; null: 2, or 1 where items are under 200"
        ] = None,
        max_features: Annotated[int, Field(ge=2), "most frequent features that are kept"] = 20_000,
        columns: Annotated[
            tuple[str, ...], "further columns of the item table (brand, category ids...), each value of which is a word"
        ] = (),
        seed: int = 0,
    ) -> None:
        self.width, self.analyzer, self.longest_ngram = width, analyzer, longest_ngram
        self.min_items, self.max_features, self.columns, self.seed = min_items, max_features, tuple(columns), seed
        self._vectorizer: TfidfVectorizer | None = None
        self._directions: np.ndarray | None = None  # [e, features]

    def identity(self) -> dict[str, Any]:
        """See :meth:`ItemEncoder.identity`."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def documents(self, items: pl.DataFrame) -> list[str]:
        """What is read of each item: its text, and one word for each value of the chosen columns.

        Raises:
            DataError: the item table lacks a chosen column.
        """
        if missing := [c for c in self.columns if c not in items.columns]:
            raise DataError(
                f"embedding.columns: the item table has no {missing[0]!r}{did_you_mean(missing[0], items.columns)}"
            )
        parts = [pl.col(Columns.TEXT)]
        for column in self.columns:
            values = pl.col(column) if isinstance(items[column].dtype, pl.List) else pl.concat_list(column)
            word = pl.lit(f"{column}_") + pl.element().cast(pl.String).str.replace_all(r"\W+", "_")
            parts.append(values.list.eval(word.filter(pl.element().is_not_null())).list.join(" ").fill_null(""))
        return items.select(pl.concat_str(parts, separator=" "))[Columns.TEXT].to_list()

    def _new_vectorizer(self, **more: Any) -> TfidfVectorizer:
        return TfidfVectorizer(
            analyzer=self.analyzer,
            ngram_range=(1, self.longest_ngram),
            sublinear_tf=True,
            dtype=np.float32,
            token_pattern=r"(?u)\b\w+\b" if self.analyzer == "word" else None,
            **more,
        )

    @one_thread()
    def fit(self, items: pl.DataFrame) -> Self:
        """Learn the vocabulary and the directions from training items.

        Raises:
            DataError: the texts hold no features to learn from.
        """
        texts = self.documents(items)
        min_items = self.min_items or (2 if len(texts) >= 200 else 1)
        vectorizer = self._new_vectorizer(min_df=min_items, max_features=self.max_features)
        try:
            counts = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise DataError(f"LSA found no words in the texts of {len(texts)} items: {error}") from error
        width = min(self.width, min(counts.shape) - 1)
        if width < 1:
            raise DataError(f"LSA needs at least two items and two different words, found a {counts.shape} matrix")
        with np.errstate(invalid="ignore"):  # texts that do not differ have no variance to explain
            svd = TruncatedSVD(width, n_iter=4, random_state=self.seed).fit(counts)
        self._vectorizer, self._directions = vectorizer, svd.components_.astype(np.float32)
        return self

    @one_thread()
    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """Vectors [N, e]; a text without a single known word is the zero vector."""
        assert self._vectorizer is not None and self._directions is not None, "fit first"
        return normalise(self._vectorizer.transform(self.documents(items)) @ self._directions.T)

    def state(self) -> State:
        """Vocabulary, idf weights and directions."""
        assert self._vectorizer is not None and self._directions is not None, "fit first"
        words = self._vectorizer.get_feature_names_out().tolist()
        return State({"directions": self._directions, "idf": self._vectorizer.idf_}, {"words": words})

    def load_state(self, state: State) -> Self:
        """Take back what :meth:`state` gave."""
        words, directions, idf = state.facts["words"], state.arrays["directions"], state.arrays["idf"]
        if directions.ndim != 2 or not len(words) == len(idf) == directions.shape[1]:
            raise ModelFolderError(
                f"{len(words)} words have weights {idf.shape} and directions {directions.shape}; expected as many"
            )
        self._vectorizer = self._new_vectorizer(vocabulary={word: i for i, word in enumerate(words)})
        self._vectorizer.idf_, self._directions = idf, directions
        return self
