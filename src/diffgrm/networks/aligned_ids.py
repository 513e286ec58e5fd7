"""ID embeddings that are drawn to the texts of their items, as FLASH does it (arXiv 2610.07402).

Letters: M items, J items that were there at fit, d width, e width of text vectors.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.item_vectors import Branch, DigitEmbedding, Sizes, nothing_for


class AlignedIdBranch(Branch):
    """A learnt ID embedding, and a projection of texts that an objective's ``text_alignment`` draws it to.

    Ranking uses the ID embeddings; texts have a say by what they made of those. The projection learns by the alignment
    alone. Items without training events have the projection of their texts, of the mean length of all ID embeddings (ours).

    Args:
        scaled: whether the network's vectors have norm 1.
    """

    sections: ClassVar[tuple[str, ...]] = ("embedding",)
    reads_texts: ClassVar[bool] = True
    aligns_texts: ClassVar[bool] = True

    def __init__(
        self,
        sizes: Sizes,
        scaled: bool,
        start: Annotated[float, Field(gt=0), "norm at the start; below 1: a small addition to the other branches"] = 1.0,
    ) -> None:
        super().__init__()
        for size in ("n_items", "text_width"):
            if getattr(sizes, size) < 1:
                raise nothing_for("aligned_id", size, getattr(sizes, size))
        self.start = start
        self.ids = nn.Parameter(torch.empty(sizes.n_items, sizes.width))
        self.projection = nn.Linear(sizes.text_width, sizes.width)

    def forward(self, items: ItemFeatures, digits: DigitEmbedding | None) -> Tensor:
        """See :meth:`Branch.forward`."""
        assert items.row is not None and items.trained is not None
        own = F.embedding(items.row.clamp(min=0), self.ids, sparse=self.sparse)
        known = (items.row >= 0) & items.trained
        if known.all():
            return own
        with torch.no_grad():
            length = self.ids.norm(dim=1).mean()
            projected = F.normalize(self._projected(items), dim=1) * length
        return torch.where(known[:, None], own, projected)

    def alignment(self, items: ItemFeatures) -> Tensor:
        """See :meth:`Branch.alignment`: the mean of 1 - cos(ID embedding, projected text) of items with training events."""
        assert items.row is not None and items.trained is not None
        known = (items.row >= 0) & items.trained
        own = F.embedding(items.row.clamp(min=0), self.ids, sparse=self.sparse)
        apart = 1 - F.cosine_similarity(own, self._projected(items), dim=1)
        return (apart * known).sum() / known.sum().clamp(min=1)

    def begin(self, rows: Tensor, vectors: Tensor) -> None:
        """See :meth:`Branch.begin`."""
        with torch.no_grad():
            self.ids[rows] = vectors

    def tables(self) -> list[tuple[nn.Parameter, float]]:
        """See :meth:`Branch.tables`."""
        return [(self.ids, self.start)]

    def _projected(self, items: ItemFeatures) -> Tensor:
        assert items.text is not None
        return self.projection(items.text.to(self.projection.weight.dtype))
