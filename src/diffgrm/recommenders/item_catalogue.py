"""The items that a fitted recommender knows: ids, rows, training events, and which may be recommended."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.conversions import as_kind
from diffgrm.data.ids import IdMap, id_order, known_positions, spelled
from diffgrm.data.tables import COUNT, RECOMMENDABLE, read_items
from diffgrm.foundation import forks
from diffgrm.foundation.saved_tables import read_table, write_table
from diffgrm.foundation.schema import Columns, DataError, ModelFolderError, bullet_list, first_few, nearest

logger = logging.getLogger(__name__)

ITEMS = "items.parquet"
KINDS: dict[str, tuple[Any, ...]] = {
    Columns.ITEM: (pl.String, pl.Int64),
    Columns.TEXT: (pl.String,),
    COUNT: (pl.Int64, pl.Int32),
    RECOMMENDABLE: (pl.Boolean,),
}
SHOWN = 12  # columns of the item table that a message names


@dataclass(frozen=True)
class ItemCatalogue:
    """A value: every change gives a new catalogue and leaves this one.

    Attributes:
        ids: item ids and their positions.
        table: the item table; row i is item position i.
        counts: [I] training events of every item.
        recommendable: [I] bool, items that may be recommended; None: all.
    """

    ids: IdMap
    table: pl.DataFrame
    counts: np.ndarray
    recommendable: np.ndarray | None = None

    def with_new(self, source: Any) -> tuple[ItemCatalogue, pl.DataFrame, np.ndarray, np.ndarray]:
        """With more items behind those that are there, in order of their ids.

        Returns:
            The catalogue; the new rows [N], their positions [N], and the row [N] of the source where each stood.

        Raises:
            DataError: unusable rows, or ids that are there already.
        """
        rows, given = _new_rows(source, self.table, self.ids)
        table = pl.concat([self.table, rows])
        counts = np.concatenate([self.counts, np.zeros(rows.height, self.counts.dtype)])
        recommendable = self.recommendable
        if recommendable is not None:
            recommendable = np.concatenate([recommendable, np.ones(rows.height, dtype=bool)])
        grown = ItemCatalogue(IdMap(table[Columns.ITEM]), table, counts, recommendable)
        return grown, rows, np.arange(self.table.height, table.height), given

    def with_rows(self, source: Any) -> tuple[ItemCatalogue, pl.DataFrame, np.ndarray, np.ndarray]:
        """With other rows for items that are there.

        Returns:
            The catalogue; those rows [N] in order of their ids, their positions [N], and the row [N] of the source where
            each stood.

        Raises:
            DataError: unusable rows, or unknown ids.
        """
        rows, positions, given = _changed_rows(source, self.table, self.ids)
        return replace(self, table=_replaced(self.table, positions, rows)), rows, positions, given

    def recommending(self, ids: Any, may: bool) -> ItemCatalogue:
        """With items that may, or may not, be recommended from now on.

        Args:
            ids: in any form that :func:`diffgrm.data.ids.id_list` takes.

        Raises:
            DataError: unknown ids, or no item would be left.
        """
        positions, unknown = known_positions(self.ids, ids, Columns.ITEM, "ids")
        if unknown:
            raise DataError(f"{len(unknown)} items are not in the catalogue: {first_few(unknown)}")
        recommendable = np.ones(len(self.ids), dtype=bool) if self.recommendable is None else self.recommendable.copy()
        recommendable[positions] = may
        if not recommendable.any():
            raise DataError("no item would be left to recommend; keep at least one")
        return replace(self, recommendable=None if recommendable.all() else recommendable)

    def save(self, folder: Path) -> None:
        """Write ``items.parquet``."""
        forks.check()
        recommendable = np.ones(len(self.ids), dtype=bool) if self.recommendable is None else self.recommendable
        columns = pl.Series(COUNT, self.counts), pl.Series(RECOMMENDABLE, recommendable)
        write_table(self.table.with_columns(columns), folder / ITEMS)

    @classmethod
    def load(cls, folder: Path) -> ItemCatalogue:
        """Read what :meth:`save` wrote.

        Raises:
            ModelFolderError: see :func:`read_item_rows`.
        """
        table = read_item_rows(folder, (Columns.ITEM, Columns.TEXT, COUNT, RECOMMENDABLE))
        recommendable = table[RECOMMENDABLE].to_numpy()
        rows = table.drop(COUNT, RECOMMENDABLE)
        ids, counts = IdMap(table[Columns.ITEM]), table[COUNT].to_numpy()
        return cls(ids, rows, counts, None if recommendable.all() else recommendable)


def read_item_rows(folder: Path, columns: Iterable[str]) -> pl.DataFrame:
    """``items.parquet`` of a model folder or an export.

    Args:
        columns: of ours that it must have.

    Raises:
        ModelFolderError: a file that :func:`read_table` refuses, or columns that are not as they are saved.
    """
    path = folder / ITEMS
    table = read_table(path)
    for name in columns:
        if name not in table.columns or table.schema[name] not in KINDS[name] or table[name].null_count():
            kinds = " or ".join(str(kind) for kind in KINDS[name])
            raise ModelFolderError(
                f"{path} is damaged: {name} should be {kinds} without nulls, found {table.schema.get(name)}"
            )
    if table.height == 0 or table[Columns.ITEM].is_duplicated().any() or not table[RECOMMENDABLE].any():
        raise ModelFolderError(f"{path} is damaged: it should have items, each once, of which some may be recommended")
    if COUNT in table.columns and int(table[COUNT].min() or 0) < 0:  # type: ignore[arg-type]
        raise ModelFolderError(f"{path} is damaged: {COUNT} is below 0")
    return table


def _new_rows(source: Any, item_table: pl.DataFrame, items: IdMap) -> tuple[pl.DataFrame, np.ndarray]:
    """The rows of new items, with the columns of the item table; and where they stood [N].

    Raises:
        DataError: unusable tables, or ids that the catalogue has already.
    """
    rows, given = _rows_like(source, item_table)
    known = rows.filter(pl.Series(items.positions(rows[Columns.ITEM]) >= 0))[Columns.ITEM]
    if len(known):
        raise DataError(
            f"{len(known)} of the new items are in the catalogue already: {first_few(known)}; use update_items for those"
        )
    return rows, given


def _changed_rows(source: Any, item_table: pl.DataFrame, items: IdMap) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """The new rows of items that change, their positions [N], and where they stood [N].

    Raises:
        DataError: unusable tables, or ids that the catalogue does not have.
    """
    rows, given = _rows_like(source, item_table)
    positions = items.positions(rows[Columns.ITEM])
    unknown = rows.filter(pl.Series(positions < 0))[Columns.ITEM]
    if len(unknown):
        raise DataError(f"{len(unknown)} items are not in the catalogue: {first_few(unknown)}; use add_items for those")
    return rows, positions, given


def _replaced(item_table: pl.DataFrame, positions: np.ndarray, rows: pl.DataFrame) -> pl.DataFrame:
    """The item table with other rows at some positions."""
    order = np.arange(item_table.height)
    order[positions] = item_table.height + np.arange(rows.height)
    return pl.concat([item_table, rows])[order]


def _rows_like(source: Any, item_table: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Item rows with the columns of the item table, empty where they have none; ids as the catalogue spells them, in order.

    Columns that the item table does not have are passed over, and a warning names them.

    Returns:
        N rows, and where each stood in the table [N].

    Raises:
        DataError: unusable rows, ids that are not of the catalogue's kind, values of another type that would be changed
            (see :func:`diffgrm.data.conversions.as_kind`), or columns that are misspelt.
    """
    rows = read_items(source)
    ids = spelled(rows[Columns.ITEM], item_table.schema[Columns.ITEM])
    problems, passed_over = _strange_columns(rows.columns, item_table.columns)
    if ids.null_count():
        strange = first_few(repr(i) for i in rows[Columns.ITEM].filter(ids.is_null()))
        problems.append(
            f"item ids of the catalogue are whole numbers, {ids.null_count()} of the new ones are not: {strange}; "
            "give them other ids, or fit on a table whose ids are text"
        )
    columns = [ids.alias(Columns.ITEM)]
    for name, kind in item_table.schema.items():
        if name == Columns.ITEM:
            continue
        column = rows[name] if name in rows.columns else pl.Series(name, [None] * rows.height)
        try:
            columns.append(as_kind(column, kind))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise DataError("the new items do not go with the item table:\n" + bullet_list(problems))
    if passed_over:
        logger.warning(
            "columns of the new items that the model's item table does not have are passed over: %s; it has %s",
            first_few(map(repr, passed_over)),
            first_few(item_table.columns, SHOWN),
        )
    given = id_order(ids)
    return pl.DataFrame(columns).select(item_table.columns)[given], given


def _strange_columns(given: list[str], known: list[str]) -> tuple[list[str], list[str]]:
    """Columns that the item table does not have: what is wrong with those that are misspelt, and the others.

    Misspelt is one that is spelt much like a column that the rows lack: passed over, it would leave that one empty.
    """
    lacking, problems, others = [name for name in known if name not in given], list[str](), list[str]()
    for name in given:
        if name in known:
            continue
        if hint := nearest(name, lacking):
            problems.append(f"the item table has no column {name!r}{hint} rename it, or leave it out")
        else:
            others.append(name)
    return problems, others
