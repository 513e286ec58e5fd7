"""SPRINT's ranking (arXiv 2609.34306): what all digits say at once, and what the whole semantic ID says, added up."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from diffgrm.networks.contracts import Denoises, ScoresItems
from diffgrm.ranking.decoding.base import Decoded, Decoder, Task
from diffgrm.ranking.decoding.item_proposals import ItemProposals
from diffgrm.ranking.digit_sums import sum_of_digits


class DigitsAndItems(Decoder):
    """Every item is scored by the sum of its digits' log-probabilities, all masked, and its item score.

    The score of a list is the log of an item's probability among those that may be recommended.
    """

    uses_item_scores: ClassVar[bool] = True
    uses_pairs: ClassVar[bool] = True
    takes_offsets: ClassVar[bool] = True
    needs: ClassVar[tuple[type, ...]] = (Denoises, ScoresItems)

    def __init__(
        self,
        weight: Annotated[float, Field(gt=0), "what the log-probabilities of digits count for beside the item score"] = 1.0,
    ) -> None:
        self.weight, self.by_item = weight, ItemProposals(candidates=1)

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return 1 + 2 * (n_items // 1024)  # scores weigh as 1024 logits do

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        assert task.item_scores is not None and task.item_scores.all is not None
        catalogue, log_p = task.catalogue, task.log_p_all_hidden()
        everything = torch.arange(catalogue.n_items, device=task.seeds.device)
        digits = sum_of_digits(log_p, catalogue.codes_of(everything))  # [B, I]
        digits = digits if task.pairs is None else digits + task.pairs.of_all(everything)
        scores = replace(task.item_scores, all=task.item_scores.all + self.weight * digits)
        return self.by_item.decode(replace(task, item_scores=scores))
