"""Parallel Semantic Encoding (paper, section 3.1): whitened PCA, then optimised product quantisation."""

from __future__ import annotations

from typing import Annotated, ClassVar

import faiss
import numpy as np
from pydantic import Field

from diffgrm.foundation.schema import OnlyWith, TokenizerError
from diffgrm.semantic_ids.embeddings.base import normalise
from diffgrm.semantic_ids.tokenizers.base import (
    NDigits,
    PowerOfTwo,
    Tokenizer,
    check_shapes,
    in_chunks,
    power_of_two,
    squared_distances,
)
from diffgrm.semantic_ids.tokenizers.codebooks import nearest
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

MOST_POINTS = 2**20  # items that PCA looks at, which bounds the memory of fitting


class OPQTokenizer(Tokenizer):
    """n sub-vectors of a learnt rotation, each quantised by its own K-means codebook: unordered digits.

    The squared error of an item is a sum over digits, so :meth:`digit_costs` is exact for any change of digits.

    PCA is learnt from all items in training, from a sample of ``MOST_POINTS`` where they are more; rotation and codebooks
    from at most 256 of those a code, which faiss draws.
    """

    only_with: ClassVar[OnlyWith] = (("iterations", "rotate", (True,)),)
    not_with: ClassVar[OnlyWith] = (("iterations", "n_digits", (1,)), ("rotate", "n_digits", (1,)))  # nothing is turned
    costs_add = True

    def __init__(
        self,
        n_digits: NDigits = 4,
        codebook_size: PowerOfTwo = 256,
        pca_width: Annotated[
            int,
            Field(ge=1),
            "width after PCA, rounded down to a multiple of n_digits (less where the embeddings are narrower, or training "
            "items fewer)",
        ] = 256,
        whiten: Annotated[bool, "give every principal direction the same variance (paper)"] = True,
        unit: Annotated[
            bool, "normalise vectors after PCA (paper); false keeps lengths, where inner products are what counts"
        ] = True,
        rotate: Annotated[bool, "learn the OPQ rotation; false is plain product quantisation"] = True,
        iterations: Annotated[int, Field(ge=1), "rounds of the rotation's alternating fit"] = 50,
        seed: int = 0,
    ) -> None:
        super().__init__(n_digits, power_of_two(codebook_size), seed)
        if pca_width < n_digits:
            raise TokenizerError(
                f"tokenizer.pca_width={pca_width} is less than tokenizer.n_digits={n_digits}, of which each takes a "
                f"dimension at least; raise the first to a multiple of {n_digits}, or lower the second"
            )
        self.pca_width, self.whiten, self.unit = pca_width, whiten, unit
        self.rotate, self.iterations = rotate, iterations
        self.mean: np.ndarray | None = None  # [e]
        self.projection: np.ndarray | None = None  # [e, p]: PCA (and whitening)
        self.rotation: np.ndarray | None = None  # [p, n * s]
        self.codebooks: np.ndarray | None = None  # [n, K, s]

    def _largest_size(self, items: int) -> int:
        return 2 ** int(np.log2(items))

    def _fit(self, context: TokenizerContext) -> None:
        embeddings = _learnt_from(context, self.seed)
        room = min(embeddings.shape[1], len(embeddings) - 1)
        if room < self.n_digits:
            raise TokenizerError(
                f"{self.n_digits} digits need at least as many dimensions, but {len(embeddings)} training vectors of width "
                f"{embeddings.shape[1]} leave {room}; lower tokenizer.n_digits"
            )
        width = min(self.pca_width, room) // self.n_digits * self.n_digits
        self.mean, self.projection = _principal_directions(embeddings, width, self.whiten)
        points = self._project(embeddings)
        bits = int(np.log2(self.codebook_size))
        quantizer = faiss.ProductQuantizer(width, self.n_digits, bits)
        quantizer.cp.seed = self.seed + 1234
        quantizer.cp.min_points_per_centroid = 1
        self.rotation = np.eye(width, dtype=np.float32)
        if self.rotate and self.n_digits > 1:
            opq = faiss.OPQMatrix(width, self.n_digits, width)
            opq.niter = self.iterations
            inner = faiss.ProductQuantizer(width, self.n_digits, bits)
            inner.cp.seed = self.seed + 1234
            inner.cp.min_points_per_centroid = 1
            opq.pq = inner
            opq.train(points)
            self.rotation = faiss.vector_to_array(opq.A).reshape(width, width).T.copy()
        quantizer.train(np.ascontiguousarray(points @ self.rotation))
        shape = (self.n_digits, self.codebook_size, width // self.n_digits)
        self.codebooks = faiss.vector_to_array(quantizer.centroids).reshape(shape).copy()

    def _project(self, embeddings: np.ndarray) -> np.ndarray:
        assert self.mean is not None and self.projection is not None
        projected = (embeddings - self.mean) @ self.projection
        return normalise(projected) if self.unit else projected

    def _subvectors(self, embeddings: np.ndarray) -> np.ndarray:
        """[N, n, s]: the rotated vectors, cut into one piece a digit."""
        assert self.rotation is not None
        return (self._project(embeddings) @ self.rotation).reshape(len(embeddings), self.n_digits, -1)

    def _distances(self, embeddings: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        pieces = self._subvectors(embeddings)
        return np.stack([squared_distances(pieces[:, j], self.codebooks[j]) for j in range(self.n_digits)], axis=1)

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        return in_chunks(self._nearest, embeddings, rows=max(1, 2**24 // (self.n_digits * self.codebook_size)))

    def _nearest(self, embeddings: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        pieces = self._subvectors(embeddings)
        return np.stack([nearest(pieces[:, j], book) for j, book in enumerate(self.codebooks)], axis=1)

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        distances = self._distances(embeddings)
        own = np.take_along_axis(distances, codes[..., None].astype(np.int64), axis=-1)  # [N, n, 1]
        return distances + (own.sum(1, keepdims=True) - own)

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        assert self.codebooks is not None
        centroids = self.codebooks[np.arange(self.n_digits), codes]  # [N, n, s]
        return ((self._subvectors(embeddings) - centroids) ** 2).sum((1, 2))

    def code_vectors(self) -> np.ndarray:
        """See :meth:`Tokenizer.code_vectors`."""
        if self.unit:
            raise TokenizerError(
                "codes of vectors that tokenizer.unit=true makes of length 1 stand for directions, and do not add up to "
                "items'; set tokenizer.unit=false"
            )
        assert self.codebooks is not None and self.rotation is not None
        assert self.mean is not None and self.projection is not None
        n, K, s = self.codebooks.shape
        whole = np.zeros((n, K, n * s), dtype=np.float32)
        for j in range(n):
            whole[j, :, j * s : (j + 1) * s] = self.codebooks[j]
        back = np.linalg.pinv(self.projection.astype(np.float64))  # [p, e]
        return (whole @ self.rotation.T @ back + self.mean / n).astype(np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        assert self.mean is not None and self.projection is not None
        assert self.rotation is not None and self.codebooks is not None
        return {
            "mean": self.mean,
            "projection": self.projection,
            "rotation": self.rotation,
            "codebooks": self.codebooks,
        }

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        e, width, n = self.embedding_width, len(arrays["rotation"]), self.n_digits
        books = (n, self.codebook_size, width // n)
        check_shapes(arrays, {"mean": (e,), "projection": (e, width), "rotation": (width, width), "codebooks": books})
        self.mean, self.projection = arrays["mean"], arrays["projection"]
        self.rotation, self.codebooks = arrays["rotation"], arrays["codebooks"]


def _learnt_from(context: TokenizerContext, seed: int) -> np.ndarray:
    """Vectors [T, e] of the items in training, or of ``MOST_POINTS`` of them, drawn evenly."""
    items = np.flatnonzero(context.in_training)
    if len(items) > MOST_POINTS:
        items = np.sort(np.random.default_rng(seed).choice(items, MOST_POINTS, replace=False))
    return context.embeddings[items]


def _principal_directions(points: np.ndarray, width: int, whiten: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean [e] and projection [e, width] on the leading principal directions.

    Whitening divides by the standard deviation, of which a floor is kept so that empty directions stay small.
    """
    mean = points.mean(0, dtype=np.float64)
    centred = points - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / max(len(points) - 1, 1))
    order = np.argsort(variances)[::-1][:width]
    variances, directions = np.maximum(variances[order], 0), directions[:, order]
    directions *= np.sign(directions[np.abs(directions).argmax(0), np.arange(width)])  # one sign, always the same
    if whiten:
        directions = directions / np.sqrt(np.maximum(variances, 1e-6 * max(variances.max(), 1e-12)))
    return mean.astype(np.float32), directions.astype(np.float32)
