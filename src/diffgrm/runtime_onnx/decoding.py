"""Ways of decoding that an export has, and the one that its recipe chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import DataError
from diffgrm.runtime_onnx.search import Order, Task, decode


class Decoding(Protocol):
    """Finds the items of highest score of a batch of B users.

    Attributes:
        takes_offsets: whether what is added to item scores is added to the scores of its list.
    """

    takes_offsets: ClassVar[bool]

    def rows(self, n_items: int, k: int) -> int:
        """Partial SIDs of a user that the network is asked about at once; decides how many users make a batch."""
        ...

    def decode(self, task: Task, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [B, k], best first, -1 after the last, and scores [B, k].

        Args:
            histories: of the users.
        """
        ...


@dataclass(frozen=True)
class BeamSearch:
    """See :mod:`diffgrm.runtime_onnx.search`.

    Attributes:
        beam: partial SIDs kept for each user (raised to k where k is larger).
        order: in which digits are filled.
    """

    beam: int
    order: Order
    takes_offsets: ClassVar[bool] = False

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoding.rows`."""
        return max(self.beam, k)

    def decode(self, task: Task, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Decoding.decode`."""
        return decode(replace(task, order=self.order), self.beam)


def chosen_width(name: str, options: Mapping[str, Any], given: Mapping[str, int | None]) -> int:
    """How many partial SIDs, or candidates, the chosen decoding keeps for each user.

    Args:
        name: of the decoding.
        options: its settings, of which one may name the width; 0 where none does.
        given: ``beam`` and ``candidates``, where somebody wants other ones; None: the recipe's.

    Raises:
        DataError: a number is given that this decoding does not have.
    """
    own = next((setting for setting in given if setting in options), None)
    for setting, value in given.items():
        if value is not None and setting != own:
            instead = f"has {own} instead; give {own}=" if own else "looks at all items; leave it out"
            raise DataError(f"{setting} is {value}, but this export decodes by {name}, which {instead}")
    return 0 if own is None else given[own] or options[own]
