"""Items that come, go and change after fit: a recommender's catalogue lives, its weights stay (floor 5)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
import polars as pl

from diffgrm.data.dataset import IdMap
from diffgrm.data.tables import read_items
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, DataError, DiffGRMError, first_few


class LivingCatalogue:
    """The items a fitted recommender knows. Every change of them gives a new recommender and leaves this one."""

    recipe: Recipe
    facts: dict[str, Any]
    _items: IdMap | None = None
    _item_table: pl.DataFrame | None = None
    _item_counts: np.ndarray | None = None
    _offered: np.ndarray | None = None  # [I] bool, items that may be recommended; None: all

    @property
    def items(self) -> IdMap:
        """Item ids and their positions."""
        self._check_fitted()
        assert self._items is not None
        return self._items

    @property
    def item_table(self) -> pl.DataFrame:
        """The item table; row i is item position i."""
        self._check_fitted()
        assert self._item_table is not None
        return self._item_table

    @property
    def item_counts(self) -> np.ndarray:
        """[I] training events of every item."""
        self._check_fitted()
        assert self._item_counts is not None
        return self._item_counts

    def _check_fitted(self) -> None:
        if self._items is None:
            raise DiffGRMError(f"this {type(self).__name__} is not fitted: call fit(dataset) or load(folder) first")

    @property
    def offered(self) -> np.ndarray:
        """[I] bool, items that may be recommended: all but removed ones."""
        return np.ones(len(self.items), dtype=bool) if self._offered is None else self._offered

    def add_items(self, table: Any) -> Self:
        """A recommender that knows more items and can recommend them at once; nothing is trained.

        This recommender goes on as it was, so readers of it are not disturbed, and whoever wants the new one takes it.

        Args:
            table: item_id, text and what other columns the embedding reads, a row an item.

        Raises:
            DataError: unusable rows, or ids that are there already.
            DiffGRMError: the method knows items by their events only.
        """
        rows = _new_rows(table, self.item_table, self.items)
        changed = self._copy()
        changed._know(rows)
        changed._item_table = pl.concat([self.item_table, rows])
        changed._items = IdMap(changed._item_table[Columns.ITEM])
        changed._item_counts = np.concatenate([self.item_counts, np.zeros(rows.height, self.item_counts.dtype)])
        if self._offered is not None:
            changed._offered = np.concatenate([self._offered, np.ones(rows.height, dtype=bool)])
        return changed

    def remove_items(self, ids: Iterable[Any]) -> Self:
        """A recommender that recommends these items no more. Histories that hold them mean what they meant.

        Raises:
            DataError: unknown ids, or no item would be left.
        """
        return self._offering(ids, False)

    def restore_items(self, ids: Iterable[Any]) -> Self:
        """A recommender that recommends removed items again.

        Raises:
            DataError: unknown ids.
        """
        return self._offering(ids, True)

    def update_items(self, table: Any, semantic_ids: Literal["keep", "move"]) -> Self:
        """A recommender with other rows (text, title...) for items it knows.

        Args:
            table: as in :meth:`add_items`.
            semantic_ids: ``"keep"``: what the method made of the old text stays, as is right where a text is only
                corrected; ``"move"``: it is made anew from the new text, and the item may get another semantic ID.

        Raises:
            DataError: unusable rows, or unknown ids.
        """
        if semantic_ids not in ("keep", "move"):
            raise DataError(f"semantic_ids is {semantic_ids!r}; expected 'keep' or 'move'")
        positions, rows = _changed_rows(table, self.item_table, self.items)
        changed = self._copy()
        if semantic_ids == "move":
            changed._learn_again(positions, rows)
        changed._item_table = _replaced(self.item_table, positions, rows)
        return changed

    def _offering(self, ids: Iterable[Any], offered: bool) -> Self:
        ids = list(ids)
        positions = self.items.positions(ids)
        if (positions < 0).any():
            unknown = [i for i, p in zip(ids, positions, strict=True) if p < 0]
            raise DataError(f"{len(unknown)} items are not in the catalogue: {first_few(unknown)}")
        changed = self._copy()
        changed._offered = self.offered.copy()
        changed._offered[positions] = offered
        if not changed._offered.any():
            raise DataError("no item would be left to recommend; keep at least one")
        if changed._offered.all():
            changed._offered = None
        return changed

    def _copy(self) -> Self:
        """The same recommender, free to change its catalogue."""
        self._check_fitted()
        changed = copy.copy(self)
        changed.facts = self.facts | {"catalogue_version": self.facts.get("catalogue_version", 0) + 1}
        changed._catalogue_changed()
        return changed

    def _catalogue_changed(self) -> None:
        """Forget what was made from the items."""

    def _know(self, rows: pl.DataFrame) -> None:
        """Take new items in, which get the positions behind those that are there."""
        raise DiffGRMError(
            f"{self.recipe.recommender!r} knows items by their events only and cannot add any; fit again, or use a method "
            "that reads texts"
        )

    def _learn_again(self, positions: np.ndarray, rows: pl.DataFrame) -> None:
        """Make anew what the method keeps of items [N] whose rows changed; methods that read no text keep nothing."""


def _new_rows(source: Any, item_table: pl.DataFrame, items: IdMap) -> pl.DataFrame:
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


def _changed_rows(source: Any, item_table: pl.DataFrame, items: IdMap) -> tuple[np.ndarray, pl.DataFrame]:
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


def _replaced(item_table: pl.DataFrame, positions: np.ndarray, rows: pl.DataFrame) -> pl.DataFrame:
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
