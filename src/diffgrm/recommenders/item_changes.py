"""Item tables that change after fit: which rows are new and which replace others (floor 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.dataset import IdMap
from diffgrm.data.tables import read_items
from diffgrm.schema import Columns, DataError, first_few


def new_rows(source: Any, item_table: pl.DataFrame, items: IdMap) -> pl.DataFrame:
    """The rows of new items, with the columns of the item table.

    Raises:
        DataError: unusable tables, or ids that the catalogue has already.
    """
    rows = _rows_like(source, item_table)
    known = rows.filter(pl.Series(items.positions(rows[Columns.ITEM]) >= 0))[Columns.ITEM]
    if len(known):
        raise DataError(
            f"{len(known)} of the new items are in the catalogue already: {first_few(known)}; use update_items for those"
        )
    return rows


def changed_rows(source: Any, item_table: pl.DataFrame, items: IdMap) -> tuple[np.ndarray, pl.DataFrame]:
    """Positions [N] of items that change, and their new rows.

    Raises:
        DataError: unusable tables, or ids that the catalogue does not have.
    """
    rows = _rows_like(source, item_table)
    positions = items.positions(rows[Columns.ITEM])
    unknown = rows.filter(pl.Series(positions < 0))[Columns.ITEM]
    if len(unknown):
        raise DataError(f"{len(unknown)} items are not in the catalogue: {first_few(unknown)}; use add_items for those")
    return positions, rows


def replaced(item_table: pl.DataFrame, positions: np.ndarray, rows: pl.DataFrame) -> pl.DataFrame:
    """The item table with other rows at some positions."""
    order = np.arange(item_table.height)
    order[positions] = item_table.height + np.arange(rows.height)
    return pl.concat([item_table, rows])[order]


def _rows_like(source: Any, item_table: pl.DataFrame) -> pl.DataFrame:
    rows = read_items(source)
    numeric = item_table.schema[Columns.ITEM].is_numeric()
    if numeric != rows.schema[Columns.ITEM].is_numeric() and numeric:
        raise DataError(
            f"item ids of the catalogue are whole numbers, those of the new table are text: {first_few(rows[Columns.ITEM])}"
        )
    missing = [name for name in item_table.columns if name not in rows.columns]
    rows = rows.with_columns(pl.lit(None).alias(name) for name in missing).select(item_table.columns)
    try:
        return rows.cast(item_table.schema)
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"the new items do not go with the item table {item_table.schema}: {error}") from error
