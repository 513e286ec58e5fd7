"""What networks are given: features of items, and histories as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.collate import Collated, collate


@dataclass(frozen=True)
class ItemFeatures:
    """What a network may know of M items.

    Attributes:
        codes: [M, n] digits.
        text: [M, e] vectors of their texts; None where the network reads none.
        row: [M] which row of ids is theirs, -1 for those that have none; None where the network has no rows.
    """

    codes: Tensor
    text: Tensor | None = None
    row: Tensor | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def of(self, items: Tensor) -> ItemFeatures:
        """Those of the items at positions [m]."""
        text, row = (None if part is None else part[items] for part in (self.text, self.row))
        return ItemFeatures(self.codes[items], text, row)

    def to(self, device: torch.device) -> ItemFeatures:
        """The features on a device."""
        text, row = (None if part is None else part.to(device) for part in (self.text, self.row))
        return ItemFeatures(self.codes.to(device), text, row)


class Histories(NamedTuple):
    """Histories as networks take them: each distinct item once, and where it stands.

    Attributes:
        items: [M] positions of the distinct items.
        places: [B, S] which of them stands where, oldest first, 0 where padded.
        valid: [B, S] bool, false where padded.
    """

    items: Tensor
    places: Tensor
    valid: Tensor

    @classmethod
    def collate(cls, events: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Histories:
        """The stretches ``events[start:stop]``, padded to the longest."""
        return cls.of(collate(events, start, stop))

    @classmethod
    def of(cls, collated: Collated) -> Histories:
        """The same as tensors."""
        return cls(*map(torch.from_numpy, collated))

    def to(self, device: torch.device) -> Histories:
        """The histories on a device."""
        return Histories(*(part.to(device, non_blocking=True) for part in self))
