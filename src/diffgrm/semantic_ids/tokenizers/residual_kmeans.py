"""Residual K-means: each digit quantises what the digits before it left over. Ordered digits, a control for PSE."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from diffgrm.semantic_ids.tokenizers.base import CodebookSize, NDigits, Tokenizer, check_shapes
from diffgrm.semantic_ids.tokenizers.codebooks import Codebooks
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
        self.codebooks: Codebooks | None = None  # over points of width e

    def _fit(self, context: TokenizerContext) -> None:
        points = context.training_embeddings
        self.codebooks = Codebooks.clustered(points, self.codebook_sizes, True, self.iterations, self.seed)

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        return self.codebooks.codes(embeddings)

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        return self.codebooks.costs(embeddings, codes)

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        return self.codebooks.errors(embeddings, codes)

    def _arrays(self) -> dict[str, np.ndarray]:
        assert self.codebooks is not None
        return {"codebooks": self.codebooks.books}

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        check_shapes(arrays, {"codebooks": (self.n_digits, self.codebook_size, self.embedding_width)})
        self.codebooks = Codebooks(arrays["codebooks"], self.codebook_sizes, residual=True)
