"""Next-item prediction by two sides that are drawn together, as in H2Rec (arXiv 2512.10388).

Letters: N vectors, B histories, b branches, n digits, d width.
"""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.parts import Part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError, bullet_list, switched_off
from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.networks.blocks import unrounded
from diffgrm.networks.contracts import ItemsInBranches, contract, entered


class AlignedNextItemObjective(NextItemObjective):
    """The loss of telling items apart (``item_loss``), and two that align, each by contrast (:func:`mutual`).

    Items: what one branch says of an item a batch asks for is to be found among what another says of all of them. Items
    that share ``shared_codes`` digits of their semantic IDs or more pass for each other. Users: of every history two views
    are made, in each of which items are hidden by chance (their vectors are 0); the one is to be found by the other.

    The paper guides the first by shared codes and makes the second between masked sequences; its formulas were not to be
    had, and these are our reading.
    """

    needs: ClassVar[tuple[type, ...]] = (ItemsInBranches,)

    def __init__(
        self,
        task: LearningTask,
        item_alignment: Annotated[float, Field(ge=0), "weight of aligning what branches say of an item; 0: left out"] = 0.1,
        shared_codes: Annotated[int, Field(ge=1), "digits in common with which items pass for each other"] = 2,
        user_alignment: Annotated[float, Field(ge=0), "weight of aligning two views of a history; 0: left out"] = 0.1,
        hidden_share: Annotated[float, Field(gt=0, lt=1), "chance of an item to be hidden in a view"] = 0.2,
        alignment_temperature: Annotated[float, Field(gt=0), "cosines of either are divided by it"] = 0.1,
    ) -> None:
        super().__init__(task)
        self.item_alignment, self.shared_codes, self.user_alignment = item_alignment, shared_codes, user_alignment
        self.hidden_share, self.alignment_temperature = hidden_share, alignment_temperature

    @classmethod
    def check(cls, part: Part, recipe: Recipe) -> None:
        """See :meth:`Objective.check`."""
        told, usual = part.options, part.usual
        problems = switched_off("objective", "item_alignment", ["shared_codes"], told, usual)
        problems += switched_off("objective", "user_alignment", ["hidden_share"], told, usual)
        if not told["item_alignment"]:
            problems += switched_off("objective", "user_alignment", ["alignment_temperature"], told, usual)
        branches = [branch.name for branch in recipe.model.options.get("branches", ())]
        if told["item_alignment"] and (len(branches) < 2 or "sid" not in branches):
            problems.append(
                f"objective.item_alignment draws together what branches say of items that share codes, but model.branches "
                f"is {branches}; set objective.item_alignment to 0, or model.branches to [sid, id]"
            )
        digits = recipe.tokenizer.options.get("n_digits") if "tokenizer" in recipe.sections else None
        if told["item_alignment"] and isinstance(digits, int) and told["shared_codes"] > digits:
            problems.append(
                f"objective.shared_codes is {told['shared_codes']}, but semantic IDs have {digits} digits "
                f"(tokenizer.n_digits); at most as many can be shared"
            )
        if problems:
            raise RecipeError("the recipe has problems:\n" + bullet_list(problems))

    def loss(self, batch: Batch, generator: torch.Generator, context: LearningContext) -> Tensor:
        """See :meth:`Objective.loss`."""
        loss = self.compared(batch, generator).loss
        if self.item_alignment:
            loss = loss + self.item_alignment * self.items_apart(batch.target.unique())
        if self.user_alignment:
            loss = loss + self.user_alignment * self.views_apart(batch, generator)
        return loss

    def items_apart(self, items: Tensor) -> Tensor:
        """How far what branches say of N items [N] is apart: the mean of :func:`mutual` over pairs of branches."""
        network, features = contract(self.network, ItemsInBranches), self.items.features.of(items)
        codes = features.codes
        assert codes is not None
        alike = (codes[:, None] == codes).sum(-1) >= min(self.shared_codes, codes.shape[1])
        pairs = list(combinations(network.vectors_of_branches(network.item_vectors(features)), 2))
        return torch.stack([mutual(one, other, alike, self.alignment_temperature) for one, other in pairs]).mean()

    def views_apart(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """How far two views of each of the B histories are apart."""
        network, histories = contract(self.network, ItemsInBranches), batch.histories
        vectors = network.item_vectors(self.items.features.of(histories.items))
        vectors, index = entered(self.network, vectors, histories)
        nothing = len(vectors)  # stands for what is hidden
        vectors = torch.cat([vectors, torch.zeros_like(vectors[:1])])

        def view() -> Tensor:
            hidden = torch.rand(index.shape, generator=generator, device=index.device) < self.hidden_share
            memory = network.encode_history(vectors, index.masked_fill(hidden, nothing), histories.valid)
            return network.user_vectors(memory)

        alike = torch.eye(len(index), dtype=torch.bool, device=index.device)
        return mutual(view(), view(), alike, self.alignment_temperature)

    def identity(self) -> list[Any]:
        """See :meth:`Objective.identity`."""
        mine = self.item_alignment, self.shared_codes, self.user_alignment, self.hidden_share, self.alignment_temperature
        return ["aligned next item", *mine, *super().identity()]


def mutual(one: Tensor, other: Tensor, alike: Tensor, temperature: float) -> Tensor:
    """Mean over N vectors, both ways, of -log p that among the other N one that is alike is found, in nats.

    Args:
        one, other: [N, d] vectors, of which the cosines are compared.
        alike: [N, N] bool, symmetric, true for each with itself.
        temperature: cosines are divided by it.
    """
    with unrounded(one.device):
        scores = F.normalize(one.float(), dim=-1) @ F.normalize(other.float(), dim=-1).T / temperature

    def missed(scores: Tensor) -> Tensor:
        return -scores.log_softmax(-1).masked_fill(~alike, -torch.inf).logsumexp(-1).mean()

    return (missed(scores) + missed(scores.T)) / 2
