"""Residual K-means: each digit quantises what the digits before it left over. Ordered digits, a control for PSE."""

from __future__ import annotations

from typing import Annotated

import faiss
import numpy as np
from pydantic import Field

from diffgrm.semantic_ids.tokenizers.base import (
    CodebookSize,
    NDigits,
    Tokenizer,
    check_shapes,
    in_chunks,
    squared_distances,
)
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext


class ResidualKMeansTokenizer(Tokenizer):
    """Greedy residual quantisation (RQ) of L2-normalised embeddings.

    The cost of a change of several digits is taken for the sum of the single ones', which leaves out how they interact.
    """

    costs_add = True

    def __init__(
        self,
        n_digits: NDigits = 4,
        codebook_size: CodebookSize = 256,
        iterations: Annotated[int, Field(ge=1), "rounds of K-means for each digit"] = 25,
        seed: int = 0,
    ) -> None:
        super().__init__(n_digits, codebook_size, seed)
        self.iterations = iterations
        self.codebooks: np.ndarray | None = None  # [n, K, e]; rows behind a digit's own K are zero and not used

    def _fit(self, context: TokenizerContext) -> None:
        residual = context.training_embeddings
        self.codebooks = np.zeros((self.n_digits, self.codebook_size, residual.shape[1]), dtype=np.float32)
        for digit, size in enumerate(self.codebook_sizes):
            kmeans = faiss.Kmeans(
                residual.shape[1], size, niter=self.iterations, seed=self.seed + digit + 1, min_points_per_centroid=1
            )
            kmeans.train(residual)
            book = self.codebooks[digit, :size]
            book[:] = kmeans.centroids
            residual = residual - book[self._nearest(residual, book)]

    def _nearest(self, points: np.ndarray, book: np.ndarray) -> np.ndarray:
        rows = max(1, 2**24 // len(book))
        return in_chunks(lambda block: squared_distances(block, book).argmin(1), points, rows=rows)

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        residual, digits = embeddings, []
        for digit, size in enumerate(self.codebook_sizes):
            book = self.codebooks[digit, :size]
            digits.append(self._nearest(residual, book))
            residual = residual - book[digits[-1]]
        return np.stack(digits, axis=1)

    def _sum(self, codes: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        return self.codebooks[np.arange(self.n_digits), codes].sum(1)

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        left = embeddings - self._sum(codes)
        costs = [squared_distances(left + book[codes[:, j]], book) for j, book in enumerate(self.codebooks)]
        return np.stack(costs, axis=1)

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return ((embeddings - self._sum(codes)) ** 2).sum(1)

    def _arrays(self) -> dict[str, np.ndarray]:
        assert self.codebooks is not None
        return {"codebooks": self.codebooks}

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        check_shapes(arrays, {"codebooks": (self.n_digits, self.codebook_size, self.embedding_width)})
        self.codebooks = arrays["codebooks"]
