"""Score the whole catalogue in one pass: the sum of the digits' log-probabilities when all are masked.

Where the network scores every two digits too, that is added; the sum is then the log-probability of an item among all of
the catalogue but for a number that is the same for all items of a user.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.ranking.decoding.base import Decoded, Decoder, Task, items_from_sids
from diffgrm.ranking.digit_sums import sum_at


class OnePass(Decoder):
    """Exact top-k under digits that are independent, or that depend on each other by twos. Items that share a SID tie."""

    uses_pairs: ClassVar[bool] = True

    def __init__(
        self,
        block: Annotated[int, Field(ge=1), "semantic IDs scored at once, which bounds the memory"] = 65_536,
        new_items: Annotated[
            float,
            "added to the scores of items without training events, which digits underrate: 1 makes each 2.7 times as "
            "likely beside the others",
        ] = 0.0,
    ) -> None:
        self.block, self.new_items = block, new_items

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return 1 + min(n_items, self.block) // 1024  # scores of a block weigh as much as that many rows of logits

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        return self.of_log_p(task, task.log_p_all_hidden())

    def of_log_p(self, task: Task, log_p: Tensor) -> Decoded:
        """The answer by log-probabilities [B, n, K] that are at hand."""
        catalogue = task.catalogue
        places, lift = catalogue.distinct_places, self.new_items * catalogue.new_sids  # [D, n], [D]
        # Every excluded item can spoil one SID at most, so among this many are k items, if so many are possible.
        wanted = task.k + (0 if task.excluded is None else task.excluded.padded.shape[1])
        scores = log_p.new_empty(len(log_p), 0)
        indices = scores.long()
        for start in range(0, len(places), self.block):
            block = slice(start, start + self.block)
            score = sum_at(log_p, places[block]) + lift[block]
            if task.pairs is not None:
                score = score + task.pairs.of_all(catalogue.distinct_items[block])
            score, index = score.topk(min(wanted, len(places) - start, self.block), dim=1)
            scores, indices = torch.cat([scores, score], 1), torch.cat([indices, index + start], 1)
            scores, keep = scores.topk(min(wanted, scores.shape[1]), dim=1)
            indices = indices.gather(1, keep)
        return items_from_sids(task, catalogue.distinct_codes[indices].long(), scores)
