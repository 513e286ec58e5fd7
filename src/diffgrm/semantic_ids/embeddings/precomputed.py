"""Vectors from a file: ``.npy`` in the order of the item table, or parquet (or a folder of it) keyed by item id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import polars as pl

from diffgrm.data.files import read_file, read_parquet
from diffgrm.data.ids import spelled
from diffgrm.foundation.part_settings import Local
from diffgrm.foundation.schema import Columns, DataError, first_few
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, check_embeddings, missing_rows_error, normalise


class Precomputed(ItemEncoder):
    """Embeddings that were made elsewhere.

    A ``.npy`` file is a matrix [I, e] whose row i belongs to row i of the item table as it was given. A ``.parquet`` file
    has the columns ``item_id`` and ``embedding`` (a list or array of numbers); it may hold more items than the table, and
    may be a folder of such files, as ``diffgrm embed-batch`` writes it. A saved model does not keep where the file lies;
    items that come later need it, or a file of their own, again.
    """

    cached = False
    zero_vector: ClassVar[str] = "their vectors in the file are zero; give them others, or leave the items out"

    def __init__(
        self,
        path: Annotated[
            str | None, Local(), "the .npy or .parquet file (or folder of these); a saved model does not keep it"
        ] = None,
        column: Annotated[str, "parquet: the column of the vectors"] = "embedding",
    ) -> None:
        self.path, self.column = path, column

    @property
    def goes_by_rows(self) -> bool:
        """See :meth:`ItemEncoder.goes_by_rows`: a ``.npy`` file knows no ids."""
        return self.path is not None and Path(self.path).suffix == ".npy"

    def identity(self) -> dict[str, Any]:
        """Not cached, so the path will do."""
        return {"path": self.path}

    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """Vectors [N, e] of the rows of the item table.

        Raises:
            DataError: no file, unknown format, wrong shape, missing items or values that are not finite.
        """
        if self.path is None:
            raise DataError(
                f"the vectors of {len(items)} items are needed, and a saved model does not keep where they lie; give the "
                'file again: embedding.path=FILE in the recipe, recommender.override(["embedding.path=FILE"]) in Python, '
                "or --vectors FILE for diffgrm items (inside text_and_events, it is embedding.text.path)"
            )
        path = Path(self.path)
        if not os.path.lexists(path):  # for which no name is too long
            raise DataError(f"there is no embedding file {path}")
        if path.suffix == ".npy":
            try:
                vectors = np.load(path, allow_pickle=False)
            except (ValueError, OSError, EOFError) as error:
                raise DataError(f"{path} is not a NumPy matrix: {error}") from error
        elif path.suffix == ".parquet" or path.is_dir():
            vectors = self._from_parquet(path, items)
        else:
            raise DataError(f"{path.name}: precomputed embeddings are .npy or .parquet")
        return normalise(check_embeddings(vectors, len(items), items[Columns.ITEM]))

    def _from_parquet(self, path: Path, items: pl.DataFrame) -> np.ndarray:
        try:
            table = read_file(path, "embedding") if path.is_dir() else read_parquet(path)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise DataError(f"{path} is not a parquet file that can be read: {error}") from error
        if missing := [c for c in (Columns.ITEM, self.column) if c not in table.columns]:
            raise DataError(f"{path} has columns {table.columns}; expected also {missing}")
        self._check_lists(table[self.column], str(path))
        ids = items.select(Columns.ITEM)
        table = table.with_columns(spelled(table[Columns.ITEM], ids[Columns.ITEM].dtype).alias(Columns.ITEM))
        table = self._once(table.join(ids, on=Columns.ITEM, how="semi"), path)
        joined = ids.join(table, on=Columns.ITEM, how="left", maintain_order="left")[self.column]
        if joined.null_count():
            raise missing_rows_error(str(path), ids[Columns.ITEM].filter(joined.is_null()).to_list())
        return self._matrix(joined, str(path))

    def _once(self, table: pl.DataFrame, path: Path) -> pl.DataFrame:
        """The rows of a file, of items that stand there again with the same vector only one.

        Raises:
            DataError: items with several vectors.
        """
        repeated = table[Columns.ITEM].is_duplicated()
        if not repeated.any():
            return table
        table = table.select(Columns.ITEM, self.column).unique(maintain_order=True)
        ids = table[Columns.ITEM]
        if (twice := ids.filter(ids.is_duplicated()).unique(maintain_order=True)).len():
            raise DataError(
                f"{path}: {len(twice)} items stand there more than once, with different vectors: {first_few(twice)}; keep "
                "one of each"
            )
        return table

    def of_queries(self, queries: pl.DataFrame) -> np.ndarray:
        """Vectors [N, e] of queries, which stand in their table in a column of their own.

        Raises:
            DataError: there is no such column, or it does not hold vectors that can be used.
        """
        where = "the query table"
        if self.column not in queries.columns:
            raise DataError(
                f"a precomputed embedding knows no new texts: {where} needs the queries' vectors (lists of numbers, made "
                f"as those of the documents) in a column {self.column!r}; it has {queries.columns}"
            )
        column = queries[self.column]
        self._check_lists(column, where)
        if column.null_count():
            raise missing_rows_error(where, queries[Columns.ITEM].filter(column.is_null()).to_list(), "queries")
        return normalise(check_embeddings(self._matrix(column, where), len(queries), queries[Columns.ITEM]))

    def _check_lists(self, column: pl.Series, where: str) -> None:
        if not isinstance(column.dtype, pl.List | pl.Array):
            raise DataError(f"{where}: column {self.column!r} has type {column.dtype}; expected lists of numbers")

    def _matrix(self, column: pl.Series, where: str) -> np.ndarray:
        """A column of lists as a matrix."""
        try:
            column = column.cast(pl.List(pl.Float32))
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{where}: column {self.column!r} does not hold numbers: {error}") from error
        widths = column.list.len()
        if widths.n_unique() > 1:
            raise DataError(f"{where}: vectors have different widths, from {widths.min()!r} to {widths.max()!r}")
        return column.cast(pl.Array(pl.Float32, int(widths[0]))).to_numpy()
