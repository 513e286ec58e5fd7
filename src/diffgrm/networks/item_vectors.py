"""The vector of an item: a sum of branches, each of which knows something else of it.

Adding a branch is one class and one registry line: a module that takes :class:`ItemFeatures` and the digits' embedding.

Letters: M items, J items that were there at fit, n digits, K codes, d width, e width of text vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation import registry
from diffgrm.foundation.parts import Part, PartsLike, PartsOf, as_parts
from diffgrm.foundation.schema import OnlyWith, RecipeError
from diffgrm.networks.blocks import unrounded
from diffgrm.networks.inputs import ItemFeatures

Branches = Annotated[
    PartsLike,
    PartsOf("branch"),
    "what the vector of an item is the sum of: sid, composed from its digits (paper); text, projected from the vector of "
    "its text; id, a learnt ID embedding; aligned_id, one that is drawn to its text",
]


@dataclass(frozen=True)
class Sizes:
    """The sizes that the data decide.

    Attributes:
        n_digits, codebook_size: n and K (the largest, where digits differ); 0 where items have no semantic IDs.
        n_items: J, rows of ID embeddings; text_width: e. 0 where the network uses none.
        width: d.
    """

    n_digits: int
    codebook_size: int
    n_items: int
    text_width: int
    width: int


class DigitEmbedding(nn.Module):
    """One table of K rows a digit.

    Args:
        scale: what embeddings are multiplied by where they enter a network.
    """

    def __init__(self, n_digits: int, codebook_size: int, width: int, scale: float) -> None:
        super().__init__()
        self.n_digits, self.codebook_size, self.scale = n_digits, codebook_size, scale
        self.codes = nn.Parameter(torch.empty(n_digits * codebook_size, width))
        self.digit_start: Tensor
        self.register_buffer("digit_start", torch.arange(n_digits) * codebook_size, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes [..., n] -> [..., n, d], as they enter a network."""
        return self.rows(codes) * self.scale

    def rows(self, codes: Tensor) -> Tensor:
        """Codes [..., n] -> [..., n, d], the rows of the tables."""
        return F.embedding(codes + self.digit_start, self.codes)

    @property
    def tables(self) -> Tensor:
        """[n, K, d]."""
        return self.codes.view(self.n_digits, self.codebook_size, -1)


class Branch(nn.Module, ABC):
    """One summand of an item's vector, of norm about 1 at the start.

    Attributes:
        sections: recipe sections that say what the branch reads.
        sparse: whether gradients of its tables hold the rows that were asked for, and not all.
        reads_texts: whether it needs the vectors of the items' texts.
        aligns_texts: whether it has a loss of its own (:meth:`alignment`).
    """

    sections: ClassVar[tuple[str, ...]] = ()
    reads_texts: ClassVar[bool] = False
    aligns_texts: ClassVar[bool] = False
    sparse: bool = False

    @abstractmethod
    def forward(self, items: ItemFeatures, digits: DigitEmbedding | None) -> Tensor:
        """[M, d] what the branch says of items."""

    def borrowed(self, weights: Tensor) -> Tensor | None:
        """[M, d] what items without training events get of those [J] that have some, by weights [M, J], a sparse tensor
        (:func:`weighted`); None: nothing."""
        return None

    def begin(self, rows: Tensor, vectors: Tensor) -> None:
        """Let items at rows [F] of the branch's ID embeddings begin with vectors [F, d]; of a branch without any, nothing.

        A branch with ID embeddings of items gives its other vectors (:meth:`forward`) without asking for digits.
        """

    def alignment(self, items: ItemFeatures) -> Tensor | None:
        """How far items are from their texts, as one number, 0 where they are aligned; None: nothing is aligned."""
        return None

    def tables(self) -> list[tuple[nn.Parameter, float]]:
        """Tables to draw at the start, each with its size relative to one whose rows have norm 1."""
        return []


class SidBranch(Branch):
    """Composed from the digits of the semantic ID (paper, section 3.2).

    Args:
        scaled: whether the vector is normalised.
    """

    sections: ClassVar[tuple[str, ...]] = ("embedding", "tokenizer", "semantic_ids")
    only_with: ClassVar[OnlyWith] = (("input_scale", "compose", ("mlp",)),)

    def __init__(
        self,
        sizes: Sizes,
        scaled: bool,
        input_scale: Annotated[
            bool, "whether digit embeddings enter at the size they have in the decoder; false: as they are drawn"
        ] = True,
        compose: Annotated[
            Literal["mlp", "sum", "mean"],
            "how: by two layers over all of them (paper), or as the sum or the mean of their vectors",
        ] = "mlp",
    ) -> None:
        super().__init__()
        if sizes.n_digits < 1:
            raise nothing_for("sid", "n_digits", sizes.n_digits)
        d = sizes.width
        self.compose = compose
        if compose != "mlp":
            return
        self.input_scale, self.unit = input_scale, d**-0.5 if scaled else 1.0
        self.layers = nn.Sequential(nn.Linear(sizes.n_digits * d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        self.norm = nn.LayerNorm(d) if scaled else nn.Identity()

    def forward(self, items: ItemFeatures, digits: DigitEmbedding | None) -> Tensor:
        """See :meth:`Branch.forward`."""
        assert items.codes is not None and digits is not None
        if self.compose != "mlp":
            rows = digits.rows(items.codes)
            return rows.sum(1) if self.compose == "sum" else rows.mean(1)
        entering = digits(items.codes) if self.input_scale else digits.rows(items.codes)
        return self.norm(self.layers(entering.flatten(1))) * self.unit


class TextBranch(Branch):
    """Projected from the vector of the item's text.

    Args:
        scaled: whether the network's vectors have norm 1.
    """

    sections: ClassVar[tuple[str, ...]] = ("embedding",)
    reads_texts: ClassVar[bool] = True

    def __init__(self, sizes: Sizes, scaled: bool) -> None:
        super().__init__()
        if sizes.text_width < 1:
            raise nothing_for("text", "text_width", sizes.text_width)
        self.unit = sizes.width**-0.5 if scaled else 1.0
        self.linear, self.norm = nn.Linear(sizes.text_width, sizes.width), nn.LayerNorm(sizes.width)

    def forward(self, items: ItemFeatures, digits: DigitEmbedding | None) -> Tensor:
        """See :meth:`Branch.forward`."""
        assert items.text is not None
        return self.norm(self.linear(items.text.to(self.linear.weight.dtype))) * self.unit


class IdBranch(Branch):
    """A learnt ID embedding. Items that came after fit have none, but may borrow from those whose texts are near."""

    def __init__(
        self,
        sizes: Sizes,
        scaled: bool,
        start: Annotated[float, Field(gt=0), "norm at the start; below 1: a small addition to the other branches"] = 0.25,
        untrained: Annotated[
            Literal["none", "drawn"],
            "items without training events: none: no ID embedding; drawn: the one drawn at the start",
        ] = "none",
    ) -> None:
        super().__init__()
        if sizes.n_items < 1:
            raise nothing_for("id", "n_items", sizes.n_items)
        self.start, self.untrained = start, untrained
        self.ids = nn.Parameter(torch.empty(sizes.n_items, sizes.width))

    def forward(self, items: ItemFeatures, digits: DigitEmbedding | None) -> Tensor:
        """See :meth:`Branch.forward`."""
        assert items.row is not None and items.trained is not None
        known = items.row >= 0
        if self.untrained == "none":
            known = known & items.trained
        return F.embedding(items.row.clamp(min=0), self.ids, sparse=self.sparse) * known[:, None]

    def borrowed(self, weights: Tensor) -> Tensor | None:
        """See :meth:`Branch.borrowed`."""
        return weighted(weights, self.ids)

    def begin(self, rows: Tensor, vectors: Tensor) -> None:
        """See :meth:`Branch.begin`."""
        with torch.no_grad():
            self.ids[rows] = vectors

    def tables(self) -> list[tuple[nn.Parameter, float]]:
        """See :meth:`Branch.tables`."""
        return [(self.ids, self.start)]


class ItemVectors(nn.Module):
    """The sum of some branches.

    Args:
        branches: names, mappings or parts of the kind ``branch``.
        scaled: whether vectors have norm about 1 at the start (otherwise as the release has them).

    Raises:
        RecipeError: branches that are named twice or have nothing to be made of.
    """

    def __init__(self, branches: PartsLike, sizes: Sizes, scaled: bool) -> None:
        super().__init__()
        parts = branch_parts(branches)
        self.names = tuple(part.name for part in parts)
        for part in parts:
            self.add_module(part.name.rpartition(":")[2], part.build(sizes=sizes, scaled=scaled))

    @property
    def branches(self) -> list[Branch]:
        """The branches, in order."""
        return [child for child in self.children() if isinstance(child, Branch)]

    def forward(self, items: ItemFeatures, digits: DigitEmbedding | None) -> Tensor:
        """[M, d]."""
        parts = [branch(items, digits) for branch in self.branches]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def borrowed(self, weights: Tensor) -> Tensor | None:
        """See :meth:`Branch.borrowed`."""
        parts = [part for branch in self.branches if (part := branch.borrowed(weights)) is not None]
        return torch.stack(parts).sum(0) if parts else None

    def alignment(self, items: ItemFeatures) -> Tensor | None:
        """See :meth:`Branch.alignment`; the sum over branches."""
        parts = [part for branch in self.branches if (part := branch.alignment(items)) is not None]
        return torch.stack(parts).sum(0) if parts else None


def weighted(weights: Tensor, vectors: Tensor) -> Tensor:
    """[M, d] a sparse tensor [M, J] times vectors [J, d], in 32 bits: GPUs multiply none that is sparse in fewer."""
    with unrounded(vectors.device):
        return (weights.float() @ vectors.float()).to(vectors.dtype)


def branch_parts(branches: PartsLike) -> tuple[Part, ...]:
    """Branches as parts, at least one, and each once.

    Raises:
        RecipeError: they are not.
    """
    parts = as_parts("branch", branches)
    names = [part.name for part in parts]
    if not parts:
        raise RecipeError(f"model.branches is empty; name at least one of {', '.join(registry.names('branch'))}")
    if len(set(names)) < len(names):
        raise RecipeError(f"model.branches {names}: name each branch once")
    return parts


def nothing_for(branch: str, size: str, found: int) -> RecipeError:
    """What is told of a branch without its material."""
    return RecipeError(f"model.branches has {branch!r}, but there is nothing to make it of: {size} is {found}")
