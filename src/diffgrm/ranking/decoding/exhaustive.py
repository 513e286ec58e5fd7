"""The oracle for tiny worlds: the exact any-order score of every item."""

from __future__ import annotations

from typing import Annotated, Literal

import torch

from diffgrm.foundation.schema import RecipeError
from diffgrm.ranking.decoding.base import Decoded, Decoder, Task, first_of_each, items_from_sids

LIMIT = 2**21  # items x subsets of digits


class Exhaustive(Decoder):
    """Asks the network about every subset of every item's digits; what CPD gives when nothing is pruned.

    An item's score is the best (or the log-sum) over the n! orders of filling its digits, by recursion over subsets:
    score(S + j) = max (or log-sum) over j of score(S) + log p(code of j | digits in S).
    """

    def __init__(
        self,
        merge: Annotated[
            Literal["best_path", "sum_paths"], "score of an item: its best order, or the log of the sum over orders"
        ] = "best_path",
    ) -> None:
        self.merge = merge

    def check(self, n_digits: int, n_items: int) -> None:
        """See :meth:`Decoder.check`."""
        if n_items * 2**n_digits > LIMIT:
            raise RecipeError(
                f"decoding 'exhaustive' is for tiny worlds: {n_items} items x 2^{n_digits} digit subsets are over {LIMIT}; "
                "use any_order_beam"
            )

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return max(n_items, 1)

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        catalogue, n = task.catalogue, task.catalogue.n_digits
        self.check(n, len(catalogue))
        batch, device = len(task.memory), catalogue.codes.device
        codes = catalogue.codes.long().expand(batch, -1, -1)  # [B, R, n]
        scores = {0: torch.zeros(batch, len(catalogue), device=device)}
        for subset in range(2**n - 1):
            known = torch.tensor([subset >> j & 1 for j in range(n)], dtype=torch.bool, device=device)
            log_p = task.denoise(codes, ~known.expand_as(codes), task.memory).float().log_softmax(-1)
            log_p = log_p.gather(3, codes[..., None])[..., 0]  # [B, R, n]
            for j in range(n):
                if not known[j]:
                    path = scores[subset] + log_p[..., j]
                    larger = subset | 1 << j
                    scores[larger] = self._join(scores[larger], path) if larger in scores else path
            del scores[subset]
        score = scores[2**n - 1] if n else scores[0]
        # Items that share a SID give it several times: keep the first of each, then all items of it come back.
        key = catalogue.keys(catalogue.codes).expand(batch, -1)
        score = score.masked_fill(~first_of_each(key), -torch.inf)
        order = score.argsort(dim=1, descending=True, stable=True)
        return items_from_sids(task, codes.gather(1, order[..., None].expand(-1, -1, n)), score.gather(1, order))

    def _join(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.maximum(a, b) if self.merge == "best_path" else torch.logaddexp(a, b)
