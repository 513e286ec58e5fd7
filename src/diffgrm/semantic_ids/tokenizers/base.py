"""Tokenizer, the interface from item vectors to digits (floor 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, Field

from diffgrm.foundation.schema import DataError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import check_embeddings


def _power_of_two(value: int) -> int:
    if value < 2 or value > 65_536 or value & (value - 1):
        raise ValueError(f"expected a power of two from 2 to 65536, found {value}")
    return value


NDigits = Annotated[int, Field(ge=1, le=64), "n, digits of a semantic ID"]
CodebookSize = Annotated[int, AfterValidator(_power_of_two), "K, codes of a digit: a power of two up to 65536"]


class Tokenizer(ABC):
    """Item vectors [N, e] -> codes [N, n] int32 in 0..K-1. Fitted on training items only.

    A row's codes depend on that row alone, so an item that comes later gets its digits the same way.

    Raises:
        TokenizerError: sizes out of range, or fewer training items than codes.
        DataError: vectors that are not finite or not as wide as those it was fitted on.
    """

    needs_items_per_code = True  # K-means needs at least as many items as codes

    def __init__(self, n_digits: int, codebook_size: int, seed: int) -> None:
        try:
            _power_of_two(codebook_size)
        except ValueError as error:
            raise TokenizerError(f"codebook_size: {error}") from None
        if not 1 <= n_digits <= 64:
            raise TokenizerError(f"n_digits: expected 1 to 64, found {n_digits}")
        self.n_digits, self.codebook_size, self.seed = n_digits, codebook_size, seed
        self.embedding_width: int | None = None

    def fit(self, embeddings: np.ndarray) -> Self:
        """Learn the codebooks from the vectors [T, e] of training items."""
        embeddings = check_embeddings(embeddings, len(embeddings))
        if self.needs_items_per_code and len(embeddings) < self.codebook_size:
            raise TokenizerError(
                f"{len(embeddings)} training items are fewer than the {self.codebook_size} codes of a digit; "
                f"lower tokenizer.codebook_size to at most {2 ** int(np.log2(max(len(embeddings), 2)))}"
            )
        self.embedding_width = embeddings.shape[1]
        self._fit(embeddings)
        return self

    def encode(self, embeddings: np.ndarray) -> np.ndarray:
        """Nearest codes [N, n] int32 of vectors [N, e]; different items may get the same."""
        return self._encode(self._checked(embeddings)).astype(np.int32)

    def digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Quantisation error [N, n, K] if one digit were changed and the others kept."""
        return self._digit_costs(self._checked(embeddings), codes)

    def error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Squared distance [N] between the (transformed) vectors and what their codes stand for."""
        return self._error(self._checked(embeddings), codes)

    def _checked(self, embeddings: np.ndarray) -> np.ndarray:
        embeddings = check_embeddings(embeddings, len(embeddings))
        if self.embedding_width is None:
            raise TokenizerError("this tokenizer is not fitted yet: call fit first")
        if embeddings.shape[1] != self.embedding_width:
            raise DataError(
                f"embeddings are {embeddings.shape[1]} wide, but the tokenizer was fitted on {self.embedding_width}; "
                "use the same encoder"
            )
        return embeddings

    @abstractmethod
    def _fit(self, embeddings: np.ndarray) -> None: ...

    @abstractmethod
    def _encode(self, embeddings: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None: ...

    def state(self) -> State:
        """Everything learnt; with the settings, it gives the same codes again."""
        return State(self._arrays(), {"embedding_width": self.embedding_width})

    def load_state(self, state: State) -> Self:
        """Take back what :meth:`state` gave."""
        self.embedding_width = state.facts["embedding_width"]
        self._load_arrays(state.arrays)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_digits={self.n_digits}, codebook_size={self.codebook_size})"


def in_chunks(function: Any, *arrays: np.ndarray, rows: int) -> np.ndarray:
    """Apply a row-wise function to blocks of rows and join the results."""
    count = len(arrays[0])
    if count <= rows:
        return function(*arrays)
    return np.concatenate([function(*(a[i : i + rows] for a in arrays)) for i in range(0, count, rows)])


def squared_distances(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Squared distances [N, K] between points [N, d] and centroids [K, d]."""
    cross = points @ centroids.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * cross + (centroids**2).sum(1), 0)
