"""A posterior over items inside of denoising, as in EPIC (arXiv 2609.03522), by item scores that are there already.

At every partial SID, the items that still fit it and that the user may get have a posterior by their item scores. What it
gives each code of an open digit in sum (its marginal) is added to the logits, clipped and weighed by a gate:

    logits + gate * clip(log marginal - log p, -c, c)

In EPIC, items are scored by a small network that is trained for it, and the gate is learnt: ``learnt_item_posterior``.
Here the scores are those of ``item_scoring``, and gate, clip and temperature are settings: the fusion is EPIC's, what is
fused is ours.

Letters: B users, W beams, n digits, K codes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import OnlyWith, RecipeError
from diffgrm.networks.contracts import Denoises, ScoresItems
from diffgrm.networks.item_posterior import Candidates, fused, log_marginals, log_shares
from diffgrm.ranking.candidates import candidates
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.base import Decoded, Task
from diffgrm.ranking.decoding.beams import Beams


class ItemPosterior(AnyOrderBeam):
    """Any-order beam search whose digits know what items they lead to, and what those are worth to the user.

    Raises:
        RecipeError: item scores with a second look, for which a search has no place.
    """

    only_with: ClassVar[OnlyWith] = ()
    not_with: ClassVar[OnlyWith] = (("clip", "gate", (0,)), ("temperature", "gate", (0,)), ("items", "gate", (0,)))
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
        """See :meth:`Decoder.log_p`; of network and items together."""
        logits = task.denoise(beams.codes, ~beams.known, task.memory).float()
        if not self.gate:
            return logits.log_softmax(-1)
        log_p = logits.log_softmax(-1)
        return fused(logits, log_p, self.log_marginals(task, beams, log_p), self.gate, self.clip).log_softmax(-1)

    def unsaid(self) -> str:
        """See :meth:`Decoder.unsaid`: item scores are in :meth:`log_p`."""
        return ""

    def log_marginals(self, task: Task, beams: Beams, log_p: Tensor) -> Tensor:
        """[B, W, n, K] log of what the posterior gives each code of each digit: -inf where no item looked at has it.

        Of a partial SID that no item fits, all is -inf.
        """
        assert task.item_scores is not None and task.item_scores.all is not None
        batch, width, n, K = log_p.shape
        found = fitting_beams(task, beams, log_p, self.items)
        score = task.item_scores.all[found.row // width, found.item].float() / self.temperature
        log_share = log_shares(score, found.row, batch * width)
        return log_marginals(log_share, found, K).view(batch, width, n, K)


def fitting_beams(task: Task, beams: Beams, log_p: Tensor, most: int) -> Candidates:
    """The items that fit the B W partial SIDs and that their users may get, see :func:`candidates`.

    Args:
        log_p: [B, W, n, K].
    """
    user = torch.arange(len(beams.codes), device=log_p.device).repeat_interleave(beams.codes.shape[1])
    excluded = None if task.excluded is None else task.excluded.rows(user)
    codes, known, log_p = (part.flatten(0, 1) for part in (beams.codes, beams.known, log_p))
    return candidates(task.catalogue, codes, known, log_p, most, excluded)
