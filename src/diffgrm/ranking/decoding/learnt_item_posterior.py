"""Search by a network whose digits are steered by a learnt posterior over items (EPIC, arXiv 2609.03522).

Letters: B users, W beams, n digits, P pairs of a partial SID and an item that fits it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import OnlyWith, RecipeError
from diffgrm.networks.contracts import SteersDigits
from diffgrm.networks.item_posterior import Candidates, Steered, log_marginals
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.base import Decoded, Task, items_from_sids
from diffgrm.ranking.decoding.beams import Beams, best_distinct, tell
from diffgrm.ranking.decoding.item_posterior import fitting_beams


class LearntItemPosterior(AnyOrderBeam):
    """Any-order beam search over steered digits, which may end early with a list of the items that fit.

    With ``opened``, so many digits are filled by the search; then each item that fits a partial SID scores as that SID
    times its share of the posterior there, by the best of the partial SIDs that it fits. In the paper opening two of four
    digits, then ranking the catalogue, was best and quickest; how it scores items there was not to be had, and this is our
    reading.
    """

    only_with: ClassVar[OnlyWith] = ()
    asks: ClassVar[str] = "steered"
    needs: ClassVar[tuple[type, ...]] = (SteersDigits,)

    def __init__(
        self,
        beam: Annotated[
            int, Field(ge=1, le=2**16), "W, partial SIDs kept for each user (raised to k where k is larger)"
        ] = 64,
        opened: Annotated[
            int | None,
            Field(ge=1),
            "digits that the search fills before items are ranked by their posterior; null: all, and SIDs are ranked",
        ] = None,
    ) -> None:
        super().__init__(beam)
        self.opened = opened

    def check(self, n_digits: int, n_items: int) -> None:
        """See :meth:`Decoder.check`."""
        super().check(n_digits, n_items)
        if self.opened is not None and self.opened >= n_digits:
            raise RecipeError(
                f"decoding.opened {self.opened} leaves none of the {n_digits} digits of a semantic ID to the items' "
                "posterior; lower it, or leave it out"
            )

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return super().rows(n_items, k) + 1 + n_items // 1024  # items that fit weigh as 1024 logits do

    def log_p(self, task: Task, beams: Beams) -> Tensor:
        """See :meth:`Decoder.log_p`; of network and items together and, after ``opened`` digits, of items alone."""
        told = self._steered(task, beams)
        if self.opened is None or int(beams.known.sum(-1).min()) < self.opened:
            return told.logits.log_softmax(-1)
        return log_marginals(told.log_share, told.candidates, told.logits.shape[-1]).view_as(told.logits)

    def unsaid(self) -> str:
        """See :meth:`Decoder.unsaid`."""
        if self.opened is None:
            return ""
        return (
            "The digits of the last step were not filled one by one: the items that fit were ranked by their posterior, of "
            "which the share of each code is shown."
        )

    def in_fixed_order(self) -> AnyOrderBeam:
        """See :meth:`AnyOrderBeam.in_fixed_order`; by steered digits."""
        found = LearntItemPosterior()
        found.order = "fixed"
        return found

    def _steered(self, task: Task, beams: Beams) -> Steered:
        def choose(log_p: Tensor, most: int) -> Candidates:
            return fitting_beams(task, beams, log_p, most)

        return task.ask(beams.codes, ~beams.known, task.memory, choose)

    def _search(self, task: Task, width: int) -> Decoded:
        if self.opened is None:
            return super()._search(task, width)
        beams = Beams.empty(len(task.memory), task.catalogue.n_digits, task.seeds.device)
        for step in range(self.opened):
            beams, _ = self._fill_one(task, beams, self.log_p(task, beams), None, step, width, step)
            tell(task, beams, beams)
        found = self._completed(task, beams, max(width, task.k))
        tell(task, found, found)
        return items_from_sids(task, found.codes, found.score, found.step)

    def _completed(self, task: Task, beams: Beams, count: int) -> Beams:
        """The best ``count`` complete SIDs of the items that fit beams."""
        batch, width, _ = beams.codes.shape
        told = self._steered(task, beams)
        found, user = told.candidates, told.candidates.row // width
        score = beams.score.flatten()[found.row] + told.log_share
        each = user.bincount(minlength=batch)
        first = each.cumsum(0) - each
        place = torch.arange(len(user), device=user.device) - first[user]  # of each pair among its user's
        columns = max(count, int(each.max()))

        def table(values: Tensor, empty: float) -> Tensor:
            """[B, L, ...] values [P, ...] of users, ``empty`` after the last."""
            return values.new_full((batch, columns, *values.shape[1:]), empty).index_put((user, place), values)

        codes = found.codes[found.place]
        known = beams.step.flatten(0, 1)[found.row]
        step = torch.where(known >= 0, known, self.opened or 0)
        all_ = Beams(table(codes, 0), table(step, 0), table(score, -torch.inf), table(task.catalogue.keys(codes), -1))
        score, keep = best_distinct(all_.score, all_.key, count)
        best = all_.take(keep)
        return Beams(best.codes, best.step, score, best.key)
