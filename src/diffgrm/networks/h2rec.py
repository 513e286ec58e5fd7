"""H2Rec's two sides (arXiv 2512.10388): semantic IDs and hash IDs are encoded apart, and their scores are added up.

Letters: B batch, M items, N users, b branches, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation import registry
from diffgrm.networks.blocks import Gated
from diffgrm.networks.history import DropoutRate, FeedForward, Heads, HistoryNetwork, MaxLen, Width
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.item_vectors import Branches, branch_parts
from diffgrm.networks.memory import Memory
from diffgrm.networks.sasrec import SASRec


@dataclass(frozen=True)
class Memories:
    """What each pass remembers of the same B histories."""

    passes: tuple[Memory, ...]

    def __len__(self) -> int:
        return len(self.passes[0])

    def rows(self, chosen: Tensor) -> Memories:
        """The chosen users [b]."""
        return Memories(tuple(memory.rows(chosen) for memory in self.passes))

    def slots(self, length: Tensor) -> Memories:
        """See :meth:`Memory.slots`."""
        return Memories(tuple(memory.slots(length) for memory in self.passes))


class H2Rec(nn.Module):
    """A SASRec for each branch of item vectors; a score is the sum of theirs, with weights that depend on the user.

    The weights are b softmax(W x + v), x being the states of all passes side by side; W and v are 0 at the start, where the
    scores count alike. An item's vector is its vectors of all branches side by side, and a user's are the states times
    their weights, so that one product gives the sum. With one branch it is SASRec over that branch.

    The paper's SID side also fuses digits at several granularities, and its ID side looks at the SID side by
    cross-attention. Its formulas were not to be had: both are left out, and the gate is our reading. Arguments as of
    ``DiffGRM``.

    Raises:
        RecipeError: see :class:`HistoryNetwork`.
    """

    multiples: ClassVar[tuple[tuple[str, str], ...]] = HistoryNetwork.multiples
    causal = True

    def __init__(
        self,
        n_digits: int = 0,
        codebook_size: int = 0,
        n_items: int = 0,
        text_width: int = 0,
        width: Width = 128,
        heads: Heads = 2,
        layers: Annotated[int, Field(ge=1, le=1024), "layers over the history, for each branch"] = 2,
        feed_forward: FeedForward = 256,
        dropout: DropoutRate = 0.3,
        max_len: MaxLen = 50,
        branches: Branches = ("sid", {"name": "id", "start": 1.0}),
        gated: Gated = False,
    ) -> None:
        super().__init__()
        self.max_len, self.passes = max_len, nn.ModuleList()
        for part in branch_parts(branches):
            has_digits = "semantic_ids" in registry.constant("branch", part.name, "sections", ())
            digits = (n_digits, codebook_size) if has_digits else (0, 0)
            sizes = (*digits, n_items, text_width, width, heads, layers, feed_forward, dropout, max_len)
            one = SASRec(*sizes, branches=[part], gated=gated)
            self.passes.append(one)
        count = len(self.passes)
        self.gate = nn.Linear(count * width, count) if count > 1 else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    @property
    def sasrecs(self) -> list[SASRec]:
        """The passes, in order of the branches."""
        return [child for child in self.passes if isinstance(child, SASRec)]

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """See :class:`diffgrm.networks.contracts.EncodesHistories`; [M, b d] of all branches side by side."""
        return torch.cat([one.item_vectors(items) for one in self.sasrecs], 1)

    def take_types(self, count: int) -> None:
        """See :class:`diffgrm.networks.contracts.TakesTypes`; each pass learns its own vectors of them."""
        for one in self.sasrecs:
            one.take_types(count)

    def typed(self, vectors: Tensor, types: Tensor) -> Tensor:
        """See :class:`diffgrm.networks.contracts.TakesTypes`."""
        parts = zip(self.sasrecs, self.vectors_of_branches(vectors), strict=True)
        return torch.cat([one.typed(part, types) for one, part in parts], 1)

    def take_context(self, count: int) -> None:
        """See :class:`diffgrm.networks.contracts.TakesContext`; each pass learns its own vectors."""
        for one in self.sasrecs:
            one.take_context(count)

    def in_context(self, vectors: Tensor, context: Tensor) -> Tensor:
        """See :class:`diffgrm.networks.contracts.TakesContext`."""
        parts = zip(self.sasrecs, self.vectors_of_branches(vectors), strict=True)
        return torch.cat([one.in_context(part, context) for one, part in parts], 1)

    def vectors_of_branches(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """See :class:`diffgrm.networks.contracts.ItemsInBranches`."""
        return vectors.chunk(len(self.passes), -1)

    def borrowed_vectors(self, weights: Tensor) -> Tensor | None:
        """See :class:`diffgrm.networks.contracts.BorrowsVectors`."""
        found = [one.borrowed_vectors(weights) for one in self.sasrecs]
        some = next((part for part in found if part is not None), None)
        return None if some is None else torch.cat([torch.zeros_like(some) if part is None else part for part in found], 1)

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> Memories:
        """See :class:`diffgrm.networks.contracts.EncodesHistories`."""
        parts = zip(self.sasrecs, vectors.chunk(len(self.passes), -1), strict=True)
        return Memories(tuple(one.encode_history(part, index, valid) for one, part in parts))

    def user_vectors(self, memory: Memories, history: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        """See :class:`diffgrm.networks.contracts.ScoresItems`; [N, b d] the states of all passes times their weights."""
        both = zip(self.sasrecs, memory.passes, strict=True)
        states = [one.user_vectors(part, history, length) for one, part in both]
        if self.gate is None:
            return states[0]
        weights = len(states) * self.gate(torch.cat(states, 1)).softmax(-1)
        return torch.cat([state * weight[:, None] for state, weight in zip(states, weights.unbind(1), strict=True)], 1)
