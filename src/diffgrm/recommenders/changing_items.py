"""Items that come, change or go in a fitted recommender; each change gives a new one and leaves the one at hand."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Literal, Self

from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import DataError, DiffGRMError
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.parts import ItemChange, LearntPart


class ChangesItems(ABC):
    """``add_items``, ``update_items``, ``remove_items``, ``restore_items``, for what has parts, a catalogue and facts."""

    recipe: Recipe
    parts: dict[str, LearntPart]
    facts: dict[str, Any]
    _catalogue: ItemCatalogue | None
    _ruled: Any

    @property
    @abstractmethod
    def catalogue(self) -> ItemCatalogue:
        """The items that are known."""

    @property
    @abstractmethod
    def takes_new_items(self) -> bool:
        """Whether the method can say something of items without events."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop what was made from the parts, the catalogue or the recipe for use."""

    def add_items(self, table: Any) -> Self:
        """A recommender that knows more items and can recommend them at once; nothing is trained.

        This recommender goes on as it was, so readers of it are not disturbed, and whoever wants the new one takes it.

        Args:
            table: item_id, text and what other columns the embedding reads, a row an item. Values have the types of the
                model's item table, or become them without a change: whole numbers of another size, numbers that are whole
                though their type is not, numbers and ``true`` or ``false`` as texts, as CSV has them, numbers for a text
                (:func:`diffgrm.data.conversions.as_kind`).

        Raises:
            DataError: unusable rows, or ids that are there already.
            DiffGRMError: the method knows items by their events only.
        """
        catalogue, rows, positions, given = self.catalogue.with_new(table)
        if not self.takes_new_items:
            raise DiffGRMError(
                f"{self.recipe.recommender!r} knows items by their events only and cannot add any; fit again, or use a "
                "method that reads texts"
            )
        return self._with(catalogue, ItemChange(rows, positions, given, True, self.parts))

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
        catalogue, rows, positions, given = self.catalogue.with_rows(table)
        change = ItemChange(rows, positions, given, False, self.parts)
        return self._with(catalogue, change if semantic_ids == "move" else None)

    def remove_items(self, ids: Any) -> Self:
        """A recommender that recommends these items (ids as in ``only``) no more. Histories may hold them as before.

        Raises:
            DataError: unknown ids, or no item would be left.
        """
        return self._with(self.catalogue.recommending(ids, False), None)

    def restore_items(self, ids: Any) -> Self:
        """A recommender that recommends removed items again.

        Raises:
            DataError: unknown ids.
        """
        return self._with(self.catalogue.recommending(ids, True), None)

    def _with(self, catalogue: ItemCatalogue, change: ItemChange | None) -> Self:
        """The same recommender with another catalogue."""
        changed = copy.copy(self)
        if change is not None:
            changed.parts = {name: part.items_changed(change) for name, part in self.parts.items()}
        changed._catalogue, changed._ruled = catalogue, None
        changed.facts = self.facts | {"catalogue_version": self.facts.get("catalogue_version", 0) + 1}
        changed._forget()
        return changed
