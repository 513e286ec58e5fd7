"""Sparse matrices: in model folders, three arrays each, checked on reading; and products of few rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from diffgrm.foundation.schema import ModelFolderError

PARTS = ("data", "indices", "indptr")


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
