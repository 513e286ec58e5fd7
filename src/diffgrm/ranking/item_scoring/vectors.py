"""What the network says: the vector of a user times that of an item."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from diffgrm.ranking.item_scoring.base import Array, ScoredItems, Scorer, Users


class VectorScorer(Scorer):
    """The network's item scores, compared as in training (``item_loss.cosine``, ``item_loss.temperature``)."""

    def __init__(self, weight: Annotated[float, Field(ge=0), "what the network's item scores count for"] = 1.0) -> None:
        self.weight = weight

    def scores(self, users: Users, items: ScoredItems) -> Array:
        """See :meth:`Scorer.scores`."""
        scores = users.vectors @ items.vectors.T
        return scores.float() if hasattr(scores, "float") else scores

    def item_factors(self, items: ScoredItems) -> Array:
        """See :meth:`Scorer.item_factors`."""
        return items.vectors

    def user_factors(self, users: Users) -> Array:
        """See :meth:`Scorer.user_factors`."""
        return users.vectors
