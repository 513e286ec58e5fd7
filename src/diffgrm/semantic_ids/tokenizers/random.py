"""Random digits: the control that shows what the meaning in semantic IDs is worth."""

from __future__ import annotations

import hashlib

import numpy as np

from diffgrm.semantic_ids.tokenizers.base import CodebookSize, NDigits, Tokenizer
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext


class RandomTokenizer(Tokenizer):
    """Digits drawn from a hash of the item's vector and the seed: meaningless, but always the same for an item."""

    needs_items_per_code = False
    costs_add = True

    def __init__(self, n_digits: NDigits = 4, codebook_size: CodebookSize = 256, seed: int = 0) -> None:
        super().__init__(n_digits, codebook_size, seed)

    def _fit(self, context: TokenizerContext) -> None:
        pass

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        key, n = self.seed.to_bytes(8, "little"), self.n_digits
        codes = np.empty((len(embeddings), n), dtype=np.int32)
        for row, vector in enumerate(embeddings):
            drawn = hashlib.shake_128(key + vector.tobytes()).digest(6 * n)
            low, high = np.frombuffer(drawn, "<u2", n), np.frombuffer(drawn, "<u4", n, 2 * n)
            # 48 bits a digit: the low 16 decide where K is a power of two, all of them make other K equally likely.
            codes[row] = (low + 65_536 * high.astype(np.int64)) % self.codebook_sizes
        return codes

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Every other code is as good as any, so all moves cost the same."""
        costs = np.ones((len(embeddings), self.n_digits, self.codebook_size), dtype=np.float32)
        np.put_along_axis(costs, codes[..., None].astype(np.int64), 0, axis=-1)
        return costs

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.zeros(len(embeddings), dtype=np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"seed": np.array([self.seed])}

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.seed = int(arrays["seed"][0])
