"""The semantic IDs of a recommender that may have none."""

from __future__ import annotations

from diffgrm.recommenders import Recommender
from diffgrm.semantic_ids.semantic_ids import SemanticIds


def semantic_ids_of(recommender: Recommender) -> SemanticIds | None:
    """The semantic IDs of a fitted recommender; None where it has none."""
    return getattr(recommender, "semantic_ids", None)
