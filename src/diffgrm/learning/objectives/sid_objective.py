"""What objectives over semantic IDs share (floor 4)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.foundation.recipe import ItemLossSettings, LossSettings
from diffgrm.learning.batches import Batch
from diffgrm.learning.item_losses import draw, item_loss
from diffgrm.learning.objectives.base import Objective
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrence
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.ranker import Ranker

OBSERVED = 1024  # validation users whose digits' difficulty is logged


class SidObjective(Objective):
    """The loss of the next item's digits and, beside it, that of telling the whole item from the others.

    Args:
        network: has ``item_vectors``, ``encode_history`` and ``max_len``.
        loss: of digits, and how much the other one weighs.
        whole: the loss over whole items.
        items: features of all items.
        counts: [I] training events of every item.
        decoder: ranks during validation; neighbours: by co-occurrence, for decoders that give it weight.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: LossSettings,
        whole: ItemLossSettings,
        items: ItemFeatures,
        counts: np.ndarray,
        codebook_size: int,
        decoder: Decoder,
        neighbours: CoOccurrence | None = None,
    ) -> None:
        super().__init__()
        self.network, self.settings, self.whole, self.decoder = network, loss, whole, decoder
        self.neighbours = neighbours
        self.codebook_size = codebook_size
        self.codes: Tensor
        self.text: Tensor | None
        self.row: Tensor | None
        self.counts: Tensor
        self.register_buffer("codes", items.codes, persistent=False)
        self.register_buffer("text", items.text, persistent=False)
        self.register_buffer("row", items.row, persistent=False)
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.int64)), persistent=False)

    @property
    def items(self) -> ItemFeatures:
        """Features of all items, on the device of the objective."""
        return ItemFeatures(self.codes, self.text, self.row)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """See :meth:`Objective.loss`."""
        share, rows = self.settings.share, torch.arange(len(batch.length), device=batch.length.device)
        if share < 1:
            shuffled = torch.randperm(len(rows), generator=generator, device=rows.device)
            rows = shuffled[: max(1, round(share * len(rows)))]
        some = batch if share == 1 else batch.rows(rows)
        if not self.settings.item_weight:
            return self.digit_loss(some, self.encode(some), generator)
        whole, memory = self._whole_items(batch, generator)
        digits = self.digit_loss(some, memory if share == 1 else memory.rows(rows), generator)
        return self.settings.item_weight * whole + digits

    def _whole_items(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Any]:
        """The loss of telling a batch's targets from other items, and the memory of its histories."""
        network, (items, places, valid) = cast(Any, self.network), batch.histories
        target, sample = batch.target, draw(self.whole, self.counts, len(batch.target), generator)
        if sample is None:
            vectors = network.item_vectors(self.items)  # [I, d]
        else:  # only the items that are asked for need vectors
            asked = torch.cat([items, target, sample.items.flatten()]).unique()
            vectors = network.item_vectors(self.items.of(asked))
            items, target = (torch.searchsorted(asked, part) for part in (items, target))
            sample = sample._replace(items=torch.searchsorted(asked, sample.items))
        memory = network.encode_history(vectors[items], places, valid)
        last = batch.length.flatten()[batch.slot] - 1  # [N] place of the newest item that each target's history knows
        users = memory.hidden[batch.slot // batch.length.shape[1], last]
        return item_loss(users, target, vectors, self.whole, sample, len(self.items)), memory

    @abstractmethod
    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator) -> Tensor:
        """The loss of the digits of a batch's targets.

        Args:
            memory: of the batch's histories.
            generator: draws whatever is drawn besides dropout.
        """

    def encode(self, batch: Batch) -> Any:
        """Memory of a batch's histories."""
        items, places, valid = batch.histories
        network = cast(Any, self.network)
        return network.encode_history(network.item_vectors(self.items.of(items)), places, valid)

    def rank(self, histories: Ragged, k: int) -> np.ndarray:
        """See :meth:`Objective.rank`."""
        return self._ranker().rank(histories, k, exclude_seen=True)[0]

    def observe(self, validation: EvaluationSet) -> dict[str, float]:
        """How hard each digit is: its negative log-likelihood in nats, mean over users and targets."""
        users = np.arange(min(len(validation), OBSERVED))
        targets = validation.targets.rows(users)
        total, device = torch.zeros(self.codes.shape[1], device=self.codes.device), self.codes.device
        with torch.no_grad(), evaluating(self.network):
            for rows, memory in self._ranker().encoded(validation.histories.rows(users), rows=1):
                wanted = targets.rows(rows)
                row = torch.from_numpy(np.repeat(np.arange(len(rows)), wanted.lengths)).to(device)
                codes = self.codes[torch.from_numpy(wanted.values).to(device)]  # [N, n]
                total -= self.log_likelihood(codes, memory.rows(row)).sum(0)
        return {f"val_digit_{j}_nll": nll for j, nll in enumerate((total / len(targets.values)).tolist())}

    @abstractmethod
    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        """[N, n] log-probability that the network gives each digit of the targets ``codes`` [N, n] of N histories."""

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        buffers = [None if part is None else part.cpu().numpy() for part in (self.codes, self.text, self.row, self.counts)]
        return [self.settings.model_dump(), self.whole.model_dump(), *buffers]

    def _ranker(self) -> Ranker:
        table = ItemTable(self.network, self.items, self.whole, self.neighbours)
        return Ranker(self.network, self.decoder, Catalogue(self.codes, self.codebook_size), table)


def ask_targets(ask: Callable[..., Tensor], questions: tuple[Tensor, ...], memory: Any, batch: Batch) -> Tensor:
    """Logits [N, Q, n, K] of questions about the N targets of a batch, each about its own part of a history.

    Args:
        ask: takes the questions [B, T Q, n] of each history's slots, and the memory.
        questions: each [N, Q, n].
    """
    if batch.length.shape[1] == 1:
        return ask(*questions, memory)
    logits = ask(*(_in_slots(x, batch) for x in questions), memory.slots(batch.length))
    return logits.view(batch.length.numel(), -1, *logits.shape[2:])[batch.slot]


def _in_slots(x: Tensor, batch: Batch) -> Tensor:
    """X [N, Q, n] at the targets' slots: [B, T Q, n], zeros elsewhere."""
    grid = x.new_zeros(batch.length.numel(), *x.shape[1:])
    grid[batch.slot] = x
    return grid.view(len(batch.length), -1, x.shape[-1])
