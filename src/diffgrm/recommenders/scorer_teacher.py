"""A fitted item scorer as a table of vectors, and as somebody to learn from.

Letters: I items, N targets, S scorers, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffgrm.foundation import registry
from diffgrm.foundation.parts import Part
from diffgrm.foundation.schema import DataError
from diffgrm.learning.batches import Batch
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.contracts import ScoresItems, contract, encoded, lacks
from diffgrm.ranking.item_table import ItemTable
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.rankers import item_features, neighbours_by_text
from diffgrm.recommenders.trained_network import network_of
from diffgrm.semantic_ids.threads import one_thread


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

    def users(self, batch: Batch) -> Tensor:
        """[N, d] what they make of the targets' histories, without dropout."""
        asked = [self._asked(table, place, batch) for table, place in zip(self.tables, self.places, strict=True)]
        return torch.cat(asked, -1) / len(asked)

    def _asked(self, table: ItemTable, place: Tensor, batch: Batch) -> Tensor:
        device, vectors = batch.target.device, table.vectors  # made where the network was
        table.network.to(device)
        with torch.no_grad(), evaluating(table.network):
            return users_of(table, batch, vectors.to(device)[place.to(device)[batch.histories.items]])

    def items(self, items: Tensor) -> Tensor:
        """[..., d] vectors of items at positions [...]."""
        device, scorers = items.device, zip(self.tables, self.places, strict=True)
        return torch.cat([table.comparable.to(device)[place.to(device)[items]] for table, place in scorers], -1)


def users_of(table: ItemTable, batch: Batch, vectors: Tensor) -> Tensor:
    """[N, d] of a batch's targets, ready to be multiplied with vectors of items; those of the histories' are given."""
    network, memory = contract(table.network, ScoresItems), encoded(table.network, vectors, batch.histories)
    history, length = batch.slot // batch.length.shape[1], batch.length.flatten()[batch.slot]
    return table.comparison.users(network.user_vectors(memory, history, length))


def table_of(scorer: Recommender) -> ItemTable:
    """The scorer's table of items, in which those without events borrow ID embeddings.

    Raises:
        DataError: it has no vectors of items.
    """
    network = network_of(scorer.parts).network if "network" in scorer.parts else None
    kind: type = type(network)
    taught = any(ScoresItems in _needs(part) for part in scorer.recipe.objective.with_nested()) if network else False
    if network is None or not taught or lacks(kind, ScoresItems):
        raise DataError(
            f"the recommender {scorer.recipe.recommender!r} has no vectors of items that users' vectors are multiplied "
            "with; use sasrec, or hybrid"
        )
    fitted = network_of(scorer.parts).sizes["n_items"]
    features = item_features(scorer.parts, scorer.item_counts, fitted)
    neighbours = neighbours_by_text(features, fitted)
    features = features.to(next(network.parameters()).device)  # a GPU where it has taught there
    return ItemTable(network, features, Comparison.of(scorer.recipe.item_loss), neighbours)


@one_thread()
def made_table(scorer: Recommender) -> ItemTable:
    """The same, with its vectors made, which so do not depend on the number of threads."""
    table = table_of(scorer)
    _ = table.comparable
    return table


def _needs(part: Part) -> tuple[type, ...]:
    return getattr(registry.resolve(part.kind, part.name), "needs", ()) if part.kind == "objective" else ()
