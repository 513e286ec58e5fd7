"""Scores of whole semantic IDs by every two of their digits, of low rank.

Letters: B batch, T slots, M semantic IDs, n digits, K codes, r rank, d width.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation.schema import RecipeError

PairwiseRank = Annotated[
    int,
    Field(ge=0, le=2**12),
    "rank of scores of every two digits of a semantic ID beside those of single digits; 0: single digits alone",
]


class DigitPairs(nn.Module):
    """What two digits together say beside what each says alone: a sum over the pairs i < j of g(x) . (a_i(c_i) * b_j(c_j)).

    The vectors a and b of codes have r numbers and are multiplied one by one; g(x) = W x + w says what each of the r counts
    for with a user whose state is x. Without W the pairs would lift or lower an item for everybody alike, which tells
    popular combinations of codes from others but not whose they are: that the low-rank scores depend on the user is our
    reading of a summary that gives their number of weights alone. Since g does not depend on the item and the pairs not on
    the user, an item has one vector [r] (:meth:`of`), made once for a catalogue, and a score is one product.

    W and w are 0 at the start, where scores are those of single digits.

    Raises:
        RecipeError: fewer than two digits.
    """

    def __init__(self, n_digits: int, codebook_size: int, rank: int, width: int) -> None:
        super().__init__()
        if n_digits < 2:
            raise RecipeError(
                f"model.pairwise_rank = {rank} scores pairs of digits, but a semantic ID has {n_digits}; set it to 0, or "
                "tokenizer.n_digits to 2 or more"
            )
        self.first = nn.Parameter(torch.empty((n_digits - 1) * codebook_size, rank))  # a of all digits but the last
        self.second = nn.Parameter(torch.empty((n_digits - 1) * codebook_size, rank))  # b of all digits but the first
        self.user = nn.Linear(width, rank)
        self.start: Tensor
        self.register_buffer("start", torch.arange(n_digits - 1) * codebook_size, persistent=False)
        for table in (self.first, self.second):  # so that an item's numbers, sums over all pairs, have variance 1
            nn.init.normal_(table, std=(n_digits * (n_digits - 1) / 2) ** -0.25)
        nn.init.zeros_(self.user.weight)
        nn.init.zeros_(self.user.bias)

    def of(self, codes: Tensor) -> Tensor:
        """[M, r] the sums over all pairs of semantic IDs [M, n]."""
        first = F.embedding(codes[:, :-1] + self.start, self.first).cumsum(1)  # of all digits before each but the first
        return (first * F.embedding(codes[:, 1:] + self.start, self.second)).sum(1).float()

    def users(self, states: Tensor) -> Tensor:
        """[..., r] what users with states [..., d] are multiplied with those sums by."""
        return self.user(states).float()
