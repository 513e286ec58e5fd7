"""Objective: what the training loop optimises and validates; and the task it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from diffgrm.data.dataset import EvaluationSet
from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingSchedule
from diffgrm.networks.contracts import EncodesHistories, contract
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.item_ranker import ItemRanker
from diffgrm.ranking.ranker import Ranker

Ranking = Ranker | ItemRanker
"""A network ready to rank, as validation needs it."""


class TrainingItems(nn.Module):
    """Features and training events of all items, on the device of the network.

    Args:
        features: of all items.
        counts: [I] training events of every item.
        queries: [Q, e] vectors of the queries that histories hold in place of items; None: they hold items.
    """

    def __init__(self, features: ItemFeatures, counts: np.ndarray, queries: np.ndarray | None = None) -> None:
        super().__init__()
        self.counts: Tensor
        self.queries: Tensor | None
        self.codes: Tensor | None
        self.text: Tensor | None
        self.row: Tensor | None
        self.trained: Tensor | None
        for name, part in zip(("codes", "text", "row", "trained"), features.parts, strict=True):
            self.register_buffer(name, part, persistent=False)
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.int64)), persistent=False)
        self.register_buffer("queries", None if queries is None else torch.from_numpy(queries), persistent=False)

    @property
    def features(self) -> ItemFeatures:
        """Of all items."""
        return ItemFeatures(self.codes, self.text, self.row, self.trained)

    @property
    def in_histories(self) -> ItemFeatures:
        """Of what histories hold: the items, or queries."""
        return self.features if self.queries is None else ItemFeatures(text=self.queries)

    def identity(self) -> list[np.ndarray | None]:
        """The same as arrays."""
        parts = (*self.features.parts[:3], self.counts, *([] if self.queries is None else [self.queries]))
        return [None if part is None else part.cpu().numpy() for part in parts]


class Teacher(Protocol):
    """A trained item scorer from whose opinion of items a network may learn; it learns nothing itself."""

    def users(self, batch: Batch) -> Tensor:
        """[N, d] what it makes of the targets' histories."""
        ...

    def items(self, items: Tensor) -> Tensor:
        """[..., d] vectors of items at positions [...]; a score is their product with that of a user."""
        ...


@dataclass(frozen=True)
class LearningTask:
    """What an objective is about.

    Attributes:
        network: whose weights are trained and kept; see :mod:`diffgrm.networks.contracts`.
        items: all items.
        ranking: makes the network as it is, by the features of all items, ready to rank; asked once a validation.
        item_loss: how items are told apart, for objectives that do so.
        noising: which digits are hidden, for objectives that hide some.
        teacher: the item scorer that the embedding is made of, where it is.
        code_vectors: gives what each code stands for [n, K, e], where there are semantic IDs; see
            :meth:`Tokenizer.code_vectors`.
    """

    network: nn.Module
    items: TrainingItems
    ranking: Callable[[nn.Module, ItemFeatures], Ranking]
    item_loss: ItemLossSettings
    noising: NoisingSchedule | None
    teacher: Teacher | None = None
    code_vectors: Callable[[], np.ndarray] | None = None


class Objective(nn.Module, ABC):
    """A network, its loss, and how it ranks during validation.

    Attributes:
        needs: what the network must be able to do, and learns by this objective.
        sections: recipe sections that the objective reads.
        teaches_pairs: whether scores of every two digits, where the network has some, are learnt by it.
    """

    needs: ClassVar[tuple[type, ...]] = (EncodesHistories,)
    sections: ClassVar[tuple[str, ...]] = ()
    teaches_pairs: ClassVar[bool] = False

    def __init__(self, task: LearningTask) -> None:
        super().__init__()
        self.task, self.network, self.items = task, task.network, task.items

    @classmethod
    def check(cls, part: Part, recipe: Recipe) -> None:
        """Refuse settings that the objective cannot work with, or that do nothing, before anything is learnt.

        Args:
            part: the objective's own settings; recipe: all.

        Raises:
            RecipeError: with the way out.
        """

    @property
    def shared(self) -> bool:
        """Whether one stretch of events serves all its targets (a causal encoder)."""
        return contract(self.network, EncodesHistories).causal

    @property
    def newest_only(self) -> bool:
        """Whether a user's newest event is the only target; not where histories are shared."""
        return False

    @property
    def few_items(self) -> bool:
        """Whether a step asks for the vectors of few items: those of the histories, targets and drawn negatives."""
        return "item_loss" not in self.sections or self.task.item_loss.kind != "softmax"

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Tensor:
        """Loss of a batch in the network's present mode (dropout on in training).

        Args:
            generator: draws whatever is drawn besides dropout, on the batch's device.
            context: how far training is.
        """

    def ranking(self) -> Ranking:
        """The network as it is now, ready to rank."""
        return self.task.ranking(self.network, self.items.features)

    def observe(self, ranking: Ranking, validation: EvaluationSet) -> dict[str, float]:
        """More figures to log at every validation; nothing is chosen by them.

        Args:
            ranking: what :meth:`ranking` gave for this validation.
        """
        return {}

    @abstractmethod
    def identity(self) -> list[Any]:
        """Facts and arrays from which the losses follow, but for the network, whose settings the training loop is told."""
