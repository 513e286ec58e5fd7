"""DiffGRM as a recommender: the paper's method, from texts to semantic IDs to a network to items."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.dataset import Ragged
from diffgrm.data.frames import is_list
from diffgrm.data.histories import HistoryEvent
from diffgrm.data.ids import id_list
from diffgrm.foundation.schema import Columns, DataError
from diffgrm.ranking.difficulty import digit_difficulty
from diffgrm.ranking.explaining import fill_order, filled_digits, searched, unsaid
from diffgrm.recommenders.answers import beams_table, explanation_table
from diffgrm.recommenders.generative import GenerativeRecommender


class DiffGRMRecommender(GenerativeRecommender):
    """Masked diffusion over semantic IDs (arXiv 2510.21805): digits only, faithful by default, sized for the machine.

    Example:
        >>> from diffgrm import DiffGRMRecommender, Recipe, toy_world
        >>> small = {"tokenizer": {"codebook_size": 16}, "training": {"epochs": 1}, "model": {"width": 16}}
        >>> recipe = Recipe(recommender="diffgrm", **small)
        >>> recommender = DiffGRMRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "diffgrm"

    def fill_order(self, histories: Ragged) -> np.ndarray:
        """Which digit of the best item is filled when, over many users.

        Args:
            histories: item positions of every user, oldest first.

        Returns:
            [n, n] share of users whose best item had digit j (row) filled in step s (column).
        """
        return fill_order(self.ranker(), histories)

    def digit_difficulty(self, histories: Any, targets: Any) -> list[float]:
        """How hard a digit is to predict when some of the others are known, by the items that followed histories.

        Args:
            histories: in any form that those of :meth:`recommend` have.
            targets: an item id for each history, in any form that ``only`` of :meth:`recommend` has.

        Returns:
            n mean negative log-likelihoods in nats, of a digit when j = 0..n-1 others are known.

        Raises:
            DataError: see :meth:`recommend`; targets that are unknown, or not as many as histories.
        """
        users, positions = self.read_histories(histories)
        wanted = self.items.positions(pl.Series(id_list(targets, Columns.ITEM, "targets")))
        if len(wanted) != len(users) or (wanted < 0).any():
            raise DataError(
                f"targets must be a known item for each of {len(users)} histories, found {len(wanted)}, of which "
                f"{int((wanted < 0).sum())} are unknown"
            )
        return digit_difficulty(self.ranker(), positions, wanted, self.recipe.seed)

    def _one(self, history: Any, at: Any, profiles: Any) -> Ragged:
        """One history as item positions."""
        listed = is_list(history) and any(isinstance(entry, HistoryEvent) for entry in history)
        entries = list(history) if listed else id_list(history, Columns.ITEM, "history")
        return self.read_histories([entries], at=at, profiles=profiles)[1]

    def beams(
        self,
        history: Any,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        show: int = 10,
        at: Any = None,
        profiles: Any = None,
    ) -> pl.DataFrame:
        """The search for the k best items of one history as it goes: the best partial SIDs after every step.

        Args:
            history: item ids, oldest first, in any form that ``only`` of :meth:`recommend` has, or a list that holds
                :class:`diffgrm.data.histories.HistoryEvent`.
            show: partial SIDs of each step, 1 or more.
            at, profiles: see :meth:`recommend`; the user is number 0.

        Returns:
            step (from 1), place (from 1), score (log-probability), digits (list of n codes, null where unknown).

        Raises:
            DataError: see :meth:`recommend`; ``show`` is no number of partial SIDs.
        """
        ranker = self.ranker(self.candidates(k, None, None))
        positions = self._one(history, at, profiles)
        return beams_table(searched(ranker, positions, k, exclude_seen, show))

    def explanation_note(self) -> str:
        """What the confidences of :meth:`explain` leave unsaid of how lists come about; empty where they say all.

        Where item scores choose the list (decoding by ``item_proposals`` with ``weight`` 0), digits have no say in it.
        Scores of pairs of digits (``model.pairwise_rank``) have one, and none in confidences of single digits.
        """
        return unsaid(self.ranker())

    def explain(
        self, history: Any, k: int = 5, *, exclude_seen: bool = True, at: Any = None, profiles: Any = None
    ) -> pl.DataFrame:
        """How the k best items of one history were found: which digit was filled when, and how sure the network was.

        Confidences are those that the decoder goes by: of the network and the items that digits lead to where those steer
        it (``epic``, ``item_posterior``), and by ``catalogue_beam`` among the codes that still lead to an item. What they
        leave unsaid tells :meth:`explanation_note`.

        Args:
            history, at, profiles: see :meth:`beams`.

        Returns:
            rank, item_id, step (from 1), digit, code (both from 0), confidence (probability of the code, given what was
            known before the step), rival and rival_confidence (the likeliest other code), items_left
            (items that may be recommended and fit what is known after the step). Digits of one step are in order of
            confidence, and ``items_left`` counts them together.

        Raises:
            DataError: see :meth:`recommend`.
        """
        ranker = self.ranker(self.candidates(k, None, None))
        positions = self._one(history, at, profiles)
        return explanation_table(self.items, filled_digits(ranker, positions, k, exclude_seen, self.recommendable))
