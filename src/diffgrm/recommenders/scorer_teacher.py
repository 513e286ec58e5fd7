"""A fitted item scorer as a table of vectors, and as somebody to learn from.

Letters: I items, N targets, S scorers, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.foundation.schema import DataError
from diffgrm.learning.batches import Batch
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.contracts import ScoresItems, contract, encoded, lacks
from diffgrm.ranking.item_table import ItemTable
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.checks import needs_of
from diffgrm.recommenders.rankers import item_features, neighbours_by_text
from diffgrm.recommenders.trained_network import network_of
from diffgrm.semantic_ids.threads import one_thread


class Scorer(NamedTuple):
    """An item scorer where it teaches.

    Attributes:
        network, comparison: of it.
        vectors, comparable: [J, d] of its items.
        place: [I] where it has the items that are asked about.
    """

    network: nn.Module
    comparison: Comparison
    vectors: Tensor
    comparable: Tensor
    place: Tensor

    @classmethod
    def on(cls, device: torch.device, table: ItemTable, place: Tensor) -> Scorer:
        """A scorer on a device; one that is elsewhere stays there too."""
        network, found = table.network, next(table.network.parameters()).device
        vectors, comparable = table.vectors.to(device), table.comparable.to(device)  # made where the network is
        moved = network if found == device else copy.deepcopy(network).to(device)
        return cls(moved, table.comparison, vectors, comparable, place.to(device))


class ScorerTeacher:
    """The mean opinion of trained item scorers, see :class:`diffgrm.learning.objectives.base.Teacher`.

    Inner products of vectors that are put one behind the other add up, so that the mean of S scorers' scores, which the
    softmax makes the geometric mean of their probabilities, is one product of width d = S times theirs.

    Args:
        tables: of the scorers.
        places: of each scorer [I], where it has the items that are asked about; one that went on may have them elsewhere.
    """

    def __init__(self, tables: Sequence[ItemTable], places: Sequence[np.ndarray]) -> None:
        self.tables, self.places = list(tables), [torch.tensor(place) for place in places]
        assert all((place >= 0).all() for place in self.places), "an item scorer knows all items that it is asked about"
        self._scorers: dict[torch.device, list[Scorer]] = {}

    def users(self, batch: Batch) -> Tensor:
        """[N, d] what they make of the targets' histories, without dropout."""
        asked = [_asked(scorer, batch) for scorer in self._on(batch.target.device)]
        return torch.cat(asked, -1) / len(asked)

    def items(self, items: Tensor) -> Tensor:
        """[..., d] vectors of items at positions [...]."""
        return torch.cat([scorer.comparable[scorer.place[items]] for scorer in self._on(items.device)], -1)

    def _on(self, device: torch.device) -> list[Scorer]:
        """The scorers on the device that asks, moved there once."""
        if device not in self._scorers:
            given = zip(self.tables, self.places, strict=True)
            self._scorers[device] = [Scorer.on(device, table, place) for table, place in given]
        return self._scorers[device]


def _asked(scorer: Scorer, batch: Batch) -> Tensor:
    with torch.no_grad(), evaluating(scorer.network):
        vectors = scorer.vectors[scorer.place[batch.histories.items]]
        return users_of(scorer.network, scorer.comparison, batch, vectors)


def users_of(network: nn.Module, comparison: Comparison, batch: Batch, vectors: Tensor) -> Tensor:
    """[N, d] of a batch's targets, ready to be multiplied with vectors of items; those of the histories' are given."""
    told, memory = contract(network, ScoresItems), encoded(network, vectors, batch.histories)
    history, length = batch.slot // batch.length.shape[1], batch.length.flatten()[batch.slot]
    return comparison.users(told.user_vectors(memory, history, length))


def table_of(scorer: Recommender) -> ItemTable:
    """The scorer's table of items, in which those without events borrow ID embeddings.

    Raises:
        DataError: it has no vectors of items.
    """
    network = network_of(scorer.parts).network if "network" in scorer.parts else None
    kind: type = type(network)
    objectives = [part for part in scorer.recipe.objective.with_nested() if part.kind == "objective"] if network else []
    taught = any(ScoresItems in needs_of(part) for part in objectives)
    if network is None or not taught or lacks(kind, ScoresItems):
        raise DataError(
            f"the recommender {scorer.recipe.recommender!r} has no vectors of items that users' vectors are multiplied "
            "with; use sasrec, or hybrid"
        )
    fitted = network_of(scorer.parts).sizes["n_items"]
    features = item_features(scorer.parts, scorer.item_counts, fitted)
    neighbours = neighbours_by_text(features, fitted)
    features = features.to(next(network.parameters()).device)
    return ItemTable(network, features, Comparison.of(scorer.recipe.item_loss), neighbours)


@one_thread()
def made_table(scorer: Recommender) -> ItemTable:
    """The same, with its vectors made, which so do not depend on the number of threads."""
    table = table_of(scorer)
    _ = table.comparable
    return table
