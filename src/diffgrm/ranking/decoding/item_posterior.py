"""A posterior over items inside of denoising, as in EPIC (arXiv 2609.03522), by item scores that are there already.

At every partial SID, the items that still fit it and that the user may get have a posterior by their item scores. What it
gives each code of an open digit in sum (its marginal) is added to the logits, clipped and weighed by a gate:

    logits + gate * clip(log marginal - log p, -c, c)

In EPIC, items are scored by a small network that is trained for it, and the gate is learnt. Here the scores are those of
``item_scoring``, and gate, clip and temperature are settings: the fusion is EPIC's, what is fused is ours.

Letters: B users, W beams, R = B W partial SIDs, n digits, K codes, M items looked at, P pairs of a partial SID and an item.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import OnlyWith, RecipeError
from diffgrm.networks.contracts import Denoises, ScoresItems
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.base import Decoded, Task
from diffgrm.ranking.decoding.beams import Beams
from diffgrm.ranking.digit_sums import sum_of_digits


class Pairs(NamedTuple):
    """Partial SIDs and items that fit them.

    Attributes:
        row: [P] which of the R partial SIDs, in order; item: [P] position.
        score: [P] log-probability of the item's open digits by the network.
    """

    row: Tensor
    item: Tensor
    score: Tensor

    def best(self, count: int) -> Pairs:
        """The best ``count`` items of every partial SID; of equal ones the first."""
        if not len(self.row) or self.row.bincount().max() <= count:
            return self
        order = self.score.argsort(descending=True, stable=True)
        order = order[self.row[order].argsort(stable=True)]
        ordered = self.row[order]
        place = torch.arange(len(ordered), device=ordered.device) - torch.searchsorted(ordered, ordered)
        order = order[place < count]
        return Pairs(*(part[order] for part in self))


class ItemPosterior(AnyOrderBeam):
    """Any-order beam search whose digits know what items they lead to, and what those are worth to the user.

    Raises:
        RecipeError: item scores with a second look, for which a search has no place.
    """

    only_with: ClassVar[OnlyWith] = ()
    uses_item_scores: ClassVar[bool] = True
    needs: ClassVar[tuple[type, ...]] = (Denoises, ScoresItems)

    def __init__(
        self,
        beam: Annotated[
            int, Field(ge=1, le=2**16), "W, partial SIDs kept for each user (raised to k where k is larger)"
        ] = 64,
        gate: Annotated[float, Field(ge=0), "weight of the items' posterior; 0: as any_order_beam"] = 0.5,
        clip: Annotated[float, Field(gt=0), "largest change of a log-probability, in nats, before the gate"] = 5.0,
        temperature: Annotated[float, Field(gt=0), "item scores are divided by it before their softmax"] = 1.0,
        items: Annotated[
            int, Field(ge=1), "most items looked at for a partial SID: those whose open digits are likeliest"
        ] = 128,
    ) -> None:
        super().__init__(beam)
        self.gate, self.clip, self.temperature, self.items = gate, clip, temperature, items

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        return super().rows(n_items, k) + 1 + n_items // 1024  # scores weigh as 1024 logits do

    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        if task.item_scores is not None and task.item_scores.second_look is not None:
            raise RecipeError(
                "decoding.name=item_posterior takes item scores as they are, but item_scoring has a scorer that looks "
                "again at the best items; set its weight to 0, or choose decoding.name=item_proposals"
            )
        return super().decode(task)

    def log_p(self, task: Task, beams: Beams) -> Tensor:
        """See :meth:`AnyOrderBeam.log_p`; of network and items together."""
        logits = task.denoise(beams.codes, ~beams.known, task.memory).float()
        if not self.gate:
            return logits.log_softmax(-1)
        log_p = logits.log_softmax(-1)
        change = (self.log_marginals(task, beams, log_p) - log_p).clamp(-self.clip, self.clip)
        return (logits + self.gate * change).log_softmax(-1)

    def log_marginals(self, task: Task, beams: Beams, log_p: Tensor) -> Tensor:
        """[B, W, n, K] log of what the posterior gives each code of each digit: -inf where no item looked at has it.

        Of a partial SID that no item fits, all is -inf.
        """
        assert task.item_scores is not None and task.item_scores.all is not None
        batch, width, n, K = log_p.shape
        pairs = (_fitting(task, beams, log_p) if beams.known.any() else _all_items(task, log_p, self.items)).best(
            self.items
        )
        score = task.item_scores.all[pairs.row // width, pairs.item].float() / self.temperature
        highest = score.new_full((batch * width,), -torch.inf).scatter_reduce(0, pairs.row, score, "amax")
        mass = (score - highest[pairs.row]).exp()
        total = mass.new_zeros(batch * width).index_add(0, pairs.row, mass)
        share = mass / total[pairs.row]
        digits = torch.arange(n, device=share.device) * K + pairs.row[:, None] * (n * K)
        places = (digits + task.catalogue.codes_of(pairs.item)).flatten()
        marginal = share.new_zeros(batch * width * n * K).index_add(0, places, share.repeat_interleave(n))
        return marginal.view(batch, width, n, K).log()


def _fitting(task: Task, beams: Beams, log_p: Tensor) -> Pairs:
    """Every item that fits a partial SID in which something is known, and that its user may get."""
    batch, width, n, _ = log_p.shape
    user = torch.arange(batch, device=log_p.device).repeat_interleave(width)
    excluded = None if task.excluded is None else task.excluded.rows(user)
    row, item = task.catalogue.fitting(beams.codes.flatten(0, 1), beams.known.flatten(0, 1), excluded)
    open_ = log_p.masked_fill(beams.known[..., None], 0).flatten(0, 1)  # [R, n, K]
    digit = torch.arange(n, device=row.device)
    return Pairs(row, item, open_[row[:, None], digit, task.catalogue.codes_of(item)].sum(1))


def _all_items(task: Task, log_p: Tensor, count: int) -> Pairs:
    """The likeliest ``count`` items that each user may get, where nothing is known yet."""
    catalogue = task.catalogue
    score = sum_of_digits(log_p[:, 0], catalogue.codes)  # [B, I']
    score, place = score.sort(dim=1, descending=True, stable=True)
    item = catalogue.items.long()[place]
    user = torch.arange(len(item), device=item.device)[:, None].expand_as(item)
    may = torch.ones_like(item, dtype=torch.bool)
    if task.excluded is not None:
        may = ~task.excluded.contains(user, item)
    may &= may.cumsum(1) <= count
    return Pairs(user[may], item[may], score[may])
