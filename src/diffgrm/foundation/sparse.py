"""Sparse matrices in model folders: three arrays each, checked on reading."""

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
