"""All digits at once: independent digits and exact scores for every item, as in RPG."""

from __future__ import annotations

from diffgrm.recommenders.diffgrm import DiffGRMRecommender


class OnePassRecommender(DiffGRMRecommender):
    """Learns every digit while all are hidden, and ranks the whole catalogue by the sum of their log-probabilities.

    What DiffGRM is without diffusion; like RPG (Hou et al., 2025) in its independent digits, but scored exactly.
    """

    name = "one_pass"
