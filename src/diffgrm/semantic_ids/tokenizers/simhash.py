"""SimHash: on which side of random hyperplanes a vector lies, some sides a digit. Nothing is learnt."""

from __future__ import annotations

import numpy as np

from diffgrm.semantic_ids.tokenizers.base import NDigits, PowerOfTwo, Tokenizer, check_shapes, in_chunks, power_of_two
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext


class SimHashTokenizer(Tokenizer):
    """n digits of b = log2 K bits, each bit the side of a random hyperplane through the origin: unordered digits.

    Two vectors get one and the same bit with the chance 1 - angle / pi (Charikar, STOC 2002), so that the share of equal
    bits tells their cosine. As digits of semantic IDs: FLASH (arXiv 2610.07402). The error of codes is ours: the squared
    distance from the vector's n b projections to the orthant that the codes name, that is the sum of the squared
    projections on wrong sides. A vector's own codes have none.
    """

    needs_items_per_code = False
    costs_add = True

    def __init__(self, n_digits: NDigits = 4, codebook_size: PowerOfTwo = 256, seed: int = 0) -> None:
        super().__init__(n_digits, power_of_two(codebook_size), seed)
        self.bits = self.codebook_size.bit_length() - 1
        self.hyperplanes: np.ndarray | None = None  # [e, n * b] normals of length 1

    def _fit(self, context: TokenizerContext) -> None:
        width = context.embeddings.shape[1]
        normals = np.random.default_rng(self.seed).normal(size=(width, self.n_digits * self.bits))
        self.hyperplanes = (normals / np.linalg.norm(normals, axis=0)).astype(np.float32)

    def _projections(self, embeddings: np.ndarray) -> np.ndarray:
        """[N, n, b] signed distances from the hyperplanes."""
        assert self.hyperplanes is not None
        return (embeddings @ self.hyperplanes).reshape(len(embeddings), self.n_digits, self.bits)

    def _sides(self, codes: np.ndarray) -> np.ndarray:
        """[..., b] bool, the bits of codes, lowest first."""
        return (codes[..., None] >> np.arange(self.bits) & 1).astype(bool)

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        def block(rows: np.ndarray) -> np.ndarray:
            return (self._projections(rows) > 0) @ (1 << np.arange(self.bits))

        return in_chunks(block, embeddings, rows=max(1, 2**24 // (self.n_digits * self.bits)))

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        projections = self._projections(embeddings)
        sides = self._sides(np.arange(self.codebook_size)).astype(np.float32)  # [K, b]
        costs = np.maximum(projections, 0) ** 2 @ (1 - sides).T + np.minimum(projections, 0) ** 2 @ sides.T
        own = np.take_along_axis(costs, codes[..., None].astype(np.int64), axis=-1)  # [N, n, 1]
        return costs + (own.sum(1, keepdims=True) - own)

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        projections = self._projections(embeddings)
        return (projections**2 * ((projections > 0) != self._sides(codes))).sum((1, 2))

    def _arrays(self) -> dict[str, np.ndarray]:
        assert self.hyperplanes is not None
        return {"hyperplanes": self.hyperplanes}

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        check_shapes(arrays, {"hyperplanes": (self.embedding_width, self.n_digits * self.bits)})
        self.hyperplanes = arrays["hyperplanes"]
