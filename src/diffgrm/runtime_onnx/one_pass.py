"""The whole catalogue in one pass: the sum of the digits' log-probabilities when all are masked, and of pairs, in NumPy.

What :mod:`diffgrm.ranking.decoding.one_pass` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.top_k import best_places
from diffgrm.runtime_onnx.search import Task, items_from_sids, log_softmax

BLOCK = 2**16  # semantic IDs whose sums stay in the cache of a processor while they are made


@dataclass(frozen=True)
class OnePass:
    """Exact top-k under digits that are independent, or that depend on each other by twos.

    Attributes:
        new_items: added to the scores of items without training events.
        pairs: [I, r] what the pairs of digits of all items say; None: nothing.
    """

    new_items: float
    pairs: np.ndarray | None = None
    takes_offsets: ClassVar[bool] = False

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`diffgrm.runtime_onnx.decoding.Decoding.rows`; scores weigh as 1024 logits do."""
        return 1 + n_items // 1024

    def decode(self, task: Task, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`diffgrm.runtime_onnx.decoding.Decoding.decode`."""
        tables, masked = task.catalogue.tables, np.ones((len(task.memory), 1, task.catalogue.n_digits), dtype=bool)
        log_p = log_softmax(task.network.denoise(masked.astype(np.int64), masked, task.memory))[:, 0]  # [B, n, K]
        columns = tables.distinct_codes.T
        score = np.zeros((len(log_p), columns.shape[1]), dtype=np.float32)  # [B, D]
        for start in range(0, columns.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            for digit, codes in enumerate(columns):
                score[:, block] += log_p[:, digit].take(codes[block], axis=1)
        score += np.float32(self.new_items) * tables.new_sids
        if (pairs := self._checked_pairs(task)) is not None:
            score += task.memory.pairs @ pairs[tables.distinct_items].T
        # Every excluded item can spoil one SID at most.
        best = best_places(score, task.k + (histories.lengths.max(initial=0) if task.excluded is not None else 0))
        items, scores = items_from_sids(task, tables.distinct_codes[best], np.take_along_axis(score, best, 1))
        short = ((0, 0), (0, task.k - items.shape[1]))
        return np.pad(items, short, constant_values=-1), np.pad(scores, short, constant_values=-np.inf)

    def _checked_pairs(self, task: Task) -> np.ndarray | None:
        """``pairs``, if what the graph says of users goes with it.

        Raises:
            ModelFolderError: it does not.
        """
        items, users = (None if part is None else part.shape[1:] for part in (self.pairs, task.memory.pairs))
        if items != users or (items is not None and len(items) != 1):
            raise ModelFolderError(
                f"scores of pairs of digits do not go together: items have {items or 'none'}, users {users or 'none'}; "
                "export the model again"
            )
        return self.pairs
