"""Sparse matrices: in model folders, three arrays each, checked on reading; products of few rows; largest of each row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from diffgrm.foundation.schema import ModelFolderError

PARTS = ("data", "indices", "indptr")
AT_ONCE = 2**22  # numbers that are compared at once, unless one row has more


def arrays_of(matrix: sp.csr_array) -> dict[str, np.ndarray]:
    """A matrix as named arrays."""
    return {part: getattr(matrix, part) for part in PARTS}


def matrix_of(arrays: Mapping[str, np.ndarray], shape: tuple[int, int]) -> sp.csr_array:
    """The matrix of what :func:`arrays_of` gave.

    Raises:
        ModelFolderError: arrays that are no such matrix of this shape.
    """
    if missing := [part for part in PARTS if part not in arrays]:
        raise ModelFolderError(f"a sparse matrix lacks {', '.join(missing)}")
    data, indices, indptr = (arrays[part] for part in PARTS)
    if data.dtype.kind not in "fiu" or any(part.dtype not in (np.int32, np.int64) for part in (indices, indptr)):
        raise ModelFolderError(f"a sparse matrix has the types {data.dtype}, {indices.dtype}, {indptr.dtype}")
    try:
        matrix = sp.csr_array((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise ModelFolderError(f"a sparse matrix does not have the shape {shape}: {error}") from error
    return matrix


def product_of_few(rows: sp.csr_array, matrix: sp.csr_array) -> sp.csr_array:
    """``rows @ matrix`` of few rows [B, J] and a matrix [J, I], whose every row has few numbers.

    SciPy's product touches I numbers whatever is multiplied, which for one user of a catalogue of a million items is nearly
    all that it does; this one takes as long as there are products of two numbers.

    >>> few, matrix = sp.csr_array([[0.0, 2.0, 1.0]]), sp.csr_array([[1.0, 0.0], [0.0, 3.0], [5.0, 1.0]])
    >>> product_of_few(few, matrix).toarray().tolist()
    [[5.0, 7.0]]
    """
    length = np.diff(matrix.indptr)[rows.indices].astype(np.int64)  # of the matrix's row that each number meets
    place = np.arange(length.sum()) + np.repeat(matrix.indptr[rows.indices] - (length.cumsum() - length), length)
    row = np.repeat(np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), length)
    value = np.repeat(rows.data, length) * matrix.data[place]
    return sp.coo_array((value, (row, matrix.indices[place])), shape=(rows.shape[0], matrix.shape[1])).tocsr()


def largest_of_rows(values: np.ndarray, starts: np.ndarray, count: int) -> np.ndarray:
    """[P] bool, which numbers are among the ``count`` largest of their row; of equal ones, the first.

    Rows of about one length are compared together, so that the time grows with the numbers.

    Args:
        values: [P], row after row.
        starts: [R + 1] where each row begins, and the end.

    >>> largest_of_rows(np.array([1.0, 3.0, 2.0, 2.0, 5.0]), np.array([0, 4, 5]), 2).tolist()
    [False, True, True, False, True]
    """
    keep, lengths = np.ones(len(values), dtype=bool), np.diff(starts)
    rows = np.flatnonzero(lengths > count)
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    while len(rows):
        width = int(lengths[rows[0]])
        now, rows = np.split(rows, [max(1, AT_ONCE // width)])
        column = np.arange(width)
        inside = column < lengths[now, None]
        places = (starts[now, None] + column)[inside]
        padded = np.full(inside.shape, -np.inf)
        padded[inside] = values[places]
        least = np.partition(padded, width - count, axis=1)[:, width - count, None]
        above, level = padded > least, padded == least
        level &= level.cumsum(axis=1) <= count - above.sum(axis=1, keepdims=True)
        keep[places] = (above | level)[inside]
    return keep
