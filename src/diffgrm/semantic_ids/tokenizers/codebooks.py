"""Codebooks: n lists of K vectors that stand for points, each for a piece of its own or for what those before left over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import faiss
import numpy as np

from diffgrm.semantic_ids.tokenizers.base import in_chunks, squared_distances


class Codebooks:
    """What codes stand for.

    Args:
        books: [n, K, w]; rows behind a digit's own K are zero and not used.
        sizes: codes of each digit.
        residual: whether a point [w] is the sum of one row a digit, each for what those before it left over; or else a
            point [n w] is n pieces, with one row for each.
    """

    def __init__(self, books: np.ndarray, sizes: tuple[int, ...], residual: bool) -> None:
        self.books, self.sizes, self.residual = books, sizes, residual

    @classmethod
    def clustered(cls, points: np.ndarray, sizes: tuple[int, ...], residual: bool, iterations: int, seed: int) -> Self:
        """Learnt by K-means, digit by digit."""
        width = points.shape[1] if residual else points.shape[1] // len(sizes)
        made = cls(np.zeros((len(sizes), max(sizes), width), dtype=np.float32), sizes, residual)
        left = points
        for digit, size in enumerate(sizes):
            piece = np.ascontiguousarray(made.apart(left)[:, digit])
            kmeans = faiss.Kmeans(width, size, niter=iterations, seed=seed + digit + 1, min_points_per_centroid=1)
            kmeans.train(piece)
            made.books[digit, :size] = kmeans.centroids
            if residual:
                left = left - made.books[digit, nearest(piece, made.books[digit, :size])]
        return made

    def apart(self, points: np.ndarray) -> np.ndarray:
        """[N, n, w] points as each digit sees them; the adjoint of :meth:`joined`."""
        if self.residual:
            return np.broadcast_to(points[:, None], (len(points), len(self.sizes), points.shape[1]))
        return points.reshape(len(points), len(self.sizes), -1)

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """Points [N, d] of one row a digit [N, n, w]."""
        return rows.sum(1) if self.residual else rows.reshape(len(rows), -1)

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """[N, n, w] of codes [N, n]."""
        return self.books[np.arange(len(self.sizes)), codes]

    def targets(self, points: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """[N, n, w] what the row of each digit is to be near, the digits before it having their codes."""
        if not self.residual:
            return self.apart(points)
        rows = self.rows(codes)
        return points[:, None] - (rows.cumsum(1) - rows)

    def codes(self, points: np.ndarray, last: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """[N, n] the nearest codes, digit by digit.

        Args:
            last: gives the codes [N] of the last digit by squared distances [N, K]; None: the nearest.
        """
        left, digits = points, []
        for digit, size in enumerate(self.sizes):
            piece, book = self.apart(left)[:, digit], self.books[digit, :size]
            if last is not None and digit == len(self.sizes) - 1:
                digits.append(last(squared_distances(piece, book)))
            else:
                digits.append(nearest(piece, book))
            if self.residual:
                left = left - book[digits[-1]]
        return np.stack(digits, axis=1)

    def costs(self, points: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Squared distance [N, n, K] to what the codes stand for if one digit were changed and the others kept."""
        left = self.apart(points - self.joined(rows := self.rows(codes)))  # what the codes leave over
        total = (left[:, 0] ** 2).sum(-1, keepdims=True) if self.residual else (left**2).sum((1, 2))[:, None]
        return np.stack(
            [
                squared_distances(left[:, digit] + rows[:, digit], book)
                + (total - (left[:, digit] ** 2).sum(-1, keepdims=True))
                for digit, book in enumerate(self.books)
            ],
            axis=1,
        )

    def errors(self, points: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Squared distance [N] between points and what their codes stand for."""
        return ((points - self.joined(self.rows(codes))) ** 2).sum(1)


def nearest(points: np.ndarray, book: np.ndarray) -> np.ndarray:
    """[N] the row of a codebook [K, w] that is nearest to each point."""
    rows = max(1, 2**24 // len(book))
    return in_chunks(lambda block: squared_distances(block, book).argmin(1), points, rows=rows)
