"""What networks are given: features of items, and histories as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.collate import Collated, collate
from diffgrm.data.context import Context


@dataclass(frozen=True)
class ItemFeatures:
    """What a network may know of M items; None where it asks for no such thing.

    Attributes:
        codes: [M, n] digits of their semantic IDs.
        text: [M, e] vectors of their texts.
        row: [M] their ID embeddings among those that were there at fit, -1 for items that came later.
        trained: [M] bool, whether they have training events.
    """

    codes: Tensor | None = None
    text: Tensor | None = None
    row: Tensor | None = None
    trained: Tensor | None = None

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """All features, in order."""
        return self.codes, self.text, self.row, self.trained

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self._any().device

    def __len__(self) -> int:
        return len(self._any())

    def _any(self) -> Tensor:
        return next(part for part in self.parts if part is not None)

    def of(self, items: Tensor) -> ItemFeatures:
        """Those of the items at positions [m]."""
        return ItemFeatures(*(None if part is None else part[items] for part in self.parts))

    def to(self, device: torch.device) -> ItemFeatures:
        """The features on a device."""
        return ItemFeatures(*(None if part is None else part.to(device) for part in self.parts))


class Histories(NamedTuple):
    """Histories as networks take them: each distinct item once, and where it stands.

    Attributes:
        items: [M] positions of the distinct items.
        item_index: [B, S] which of them stands where, oldest first, 0 where padded.
        valid: [B, S] bool, false where padded.
        types: [M] numbers of their event types: an item that was met in two ways is there twice; None: events have none.
        context: [B, S, C] what is told of each place besides; None: nothing.
    """

    items: Tensor
    item_index: Tensor
    valid: Tensor
    types: Tensor | None = None
    context: Tensor | None = None

    @classmethod
    def collate(
        cls,
        events: np.ndarray,
        start: np.ndarray,
        stop: np.ndarray,
        types: np.ndarray | None = None,
        context: Context | None = None,
    ) -> Histories:
        """The stretches ``events[start:stop]``, padded to the longest; see :func:`diffgrm.data.collate.collate`."""
        return cls.of(collate(events, start, stop, types, context))

    def rows(self, chosen: Tensor) -> Histories:
        """Some histories [b], of the same distinct items."""
        context = None if self.context is None else self.context[chosen]
        return self._replace(item_index=self.item_index[chosen], valid=self.valid[chosen], context=context)

    @classmethod
    def of(cls, collated: Collated) -> Histories:
        """The same as tensors."""
        return cls(*(None if part is None else torch.from_numpy(part) for part in collated))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Histories:
        """The histories on a device."""
        parts = (None if part is None else part.to(device, non_blocking=True) for part in self)
        return Histories(*parts)  # type: ignore[arg-type]
