"""What a document retriever is compared with: BM25, and the cosine of vectors. They learn from no query."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.documents import as_items, asked_queries, ordered, read_documents
from diffgrm.data.ids import IdMap
from diffgrm.foundation.parts import PartLike, as_part
from diffgrm.foundation.schema import Columns, DataError, MissingExtraError
from diffgrm.recommenders.answers import check_k
from diffgrm.recommenders.documents import search_table
from diffgrm.recommenders.query_network import check_width, query_vectors
from diffgrm.semantic_ids.embeddings.base import embed_items, normalise
from diffgrm.semantic_ids.embeddings.lsa import LSA

AT_ONCE = 2**24  # scores (queries x documents) that are held at once


class _Searcher:
    """Scores every document for every query, and sorts."""

    def __init__(self, documents: Any, columns: Mapping[str, str] | None) -> None:
        table, given = ordered(read_documents(documents, columns))
        self.table, self.given, self.documents = as_items(table), given, IdMap(table[Columns.DOCUMENT])

    def search(self, queries: Any, k: int = 10, *, progress: Callable[[int], None] | None = None) -> pl.DataFrame:
        """The k best documents of each query; as ``DocumentRetriever.search``. Equal scores stand in order of ids."""
        check_k(k, len(self.documents), "documents")
        table = asked_queries(queries)
        positions, best = [], []
        for start in range(0, table.height, step := max(1, AT_ONCE // len(self.documents))):
            scores = self._scores(table[start : start + step])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            positions.append(order)
            best.append(np.take_along_axis(scores, order, 1))
            if progress:
                progress(len(order))
        return search_table(table[Columns.QUERY], self.documents, np.concatenate(positions), np.concatenate(best))

    def _scores(self, queries: pl.DataFrame) -> np.ndarray:
        """[Q, D] of all documents for queries."""
        raise NotImplementedError


class BM25(_Searcher):
    """Okapi BM25 as Lucene computes it (the package ``bm25s``): what words of a query a document has, and how often.

    Words are those that the embedding ``lsa`` reads with ``analyzer=auto``: of scripts without spaces, single characters
    and pairs of neighbours. No stemming and no stop words, in any language.

    Args:
        documents: a table of doc_id and text; columns: as of ``DocumentRetriever.fit``.
        k1: how soon more of the same word counts no more; b: how much longer documents are marked down.

    Raises:
        DataError: see :func:`diffgrm.data.documents.read_documents`, or documents without a word.
        MissingExtraError: bm25s is not installed.
    """

    def __init__(self, documents: Any, columns: Mapping[str, str] | None = None, k1: float = 1.5, b: float = 0.75) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("bm25s", "documents", "BM25") from error
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every index
        super().__init__(documents, columns)
        self._words = LSA().features
        words = [self._words(text) for text in self.table[Columns.TEXT]]
        if not any(words):
            raise DataError(f"none of the {len(words)} documents has a word that BM25 could count; give them texts")
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._index.index(words, show_progress=False)

    def _scores(self, queries: pl.DataFrame) -> np.ndarray:
        known = self._index.vocab_dict
        asked = [[word for word in self._words(text) if word in known] for text in queries[Columns.TEXT]]
        nothing = np.zeros(len(self.documents), dtype=np.float32)
        return np.stack([self._index.get_scores(words) if words else nothing for words in asked])


class DenseVectors(_Searcher):
    """The cosine of vectors of texts: what a retriever's semantic IDs are made of, before they are quantised.

    Args:
        documents: a table of doc_id and text; columns: as of ``DocumentRetriever.fit``.
        embedding: a name, mapping or part of the kind ``embedding``, such as ``retriever.recipe.embedding``.

    Raises:
        DataError: see :func:`diffgrm.data.documents.read_documents`, or vectors that cannot be made.
        RecipeError: no such embedding.
    """

    def __init__(
        self, documents: Any, embedding: PartLike = "lsa", columns: Mapping[str, str] | None = None, seed: int = 0
    ) -> None:
        super().__init__(documents, columns)
        self._encoder = as_part("embedding", embedding).build(seed=seed)
        everything = np.ones(len(self.documents), dtype=bool)
        self._vectors = normalise(embed_items(self._encoder, self.table, everything, given=self.given))

    def _scores(self, queries: pl.DataFrame) -> np.ndarray:
        vectors = query_vectors(self._encoder, as_items(queries), self.table)
        check_width(vectors, self._vectors.shape[1])
        return normalise(vectors) @ self._vectors.T
