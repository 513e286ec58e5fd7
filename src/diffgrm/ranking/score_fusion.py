"""Score fusion: a weighted sum of what recommenders that were fitted apart say of all items.

Each member's scores are first brought to one scale for each user. The weights are the same for everybody, or follow how
sure the first member is of its best item.

Letters: U users, I items, M items of a member's list, m members.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from diffgrm.foundation.part_settings import Local
from diffgrm.foundation.schema import OnlyWith, RecipeError

SHARPNESS = (1.0, 5.0, 9.0, 13.0)  # q and tau among which validation chooses
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
USUAL_USERS = 5000
WEIGHT_STEPS = 10  # so that weights are chosen among tenths


class ScoreFusion:
    """How the scores of members become one.

    The sum of an ID and a text model trained apart is EnsRec's (arXiv 2512.17820). Weights by certainty are those of arXiv
    2603.19809, w = sigmoid(-q (max p - tau)), p being the softmax of the first member's scores; that w is the weight of the
    second member and 1 - w that of the first, is our reading: the surer the first is, the more it counts.

    Raises:
        RecipeError: settings that contradict each other, or do nothing together.
    """

    only_with: ClassVar[OnlyWith] = (
        ("weights", "weighting", ("constant",)),
        ("sharpness", "weighting", ("certainty",)),
        ("threshold", "weighting", ("certainty",)),
    )

    def __init__(
        self,
        members: Annotated[
            tuple[str | dict[str, Any], ...] | None,
            Local(),
            "two or more: each the folder of a fitted recommender, or a recipe as a mapping ({recipe: NAME, section: "
            "settings} for a shipped one with changes), which is fitted first. A saved model holds them and has null here",
        ] = ({"recommender": "sasrec"}, {"recipe": "item-scorer", "model": {"branches": ["text"]}}),
        scale: Annotated[
            Literal["standardised", "log_softmax"],
            "of each user's scores before the sum: standardised: mean 0 and standard deviation 1 over the list; "
            "log_softmax: log-probabilities",
        ] = "standardised",
        weighting: Annotated[
            Literal["constant", "certainty"],
            "constant: the same weights for everybody; certainty: of two members, the first counts more the surer it is",
        ] = "constant",
        weights: Annotated[
            tuple[Annotated[float, Field(ge=0, le=1)], ...] | None,
            "one for each member, 1 together; null: in tenths, the best on validation",
        ] = None,
        sharpness: Annotated[
            float | None, Field(gt=0), "q of w = sigmoid(-q (max p - tau)); null: of 1, 5, 9, 13 the best on validation"
        ] = None,
        threshold: Annotated[
            float | None, Field(ge=0, le=1), "tau; null: of 0, 0.1, ... 0.5 the best on validation"
        ] = None,
        validation_users: Annotated[
            int | None, Field(ge=1), "weights are chosen on this many validation users, drawn once; null: all"
        ] = USUAL_USERS,
        depth: Annotated[
            int | None,
            Field(ge=1),
            "best items that each member is asked for (raised to k), others get its lowest score among them; null: all, "
            "which a beam search is slow to find",
        ] = None,
    ) -> None:
        self.members, self.scale, self.weighting = members, scale, weighting
        self.weights, self.sharpness, self.threshold, self.depth = weights, sharpness, threshold, depth
        self.validation_users = validation_users

    def check(self, count: int) -> None:
        """Refuse settings that do not go with so many members.

        Raises:
            RecipeError: with the way out.
        """
        if count < 2:
            raise RecipeError(f"model.members names {count} recommenders; an ensemble needs two or more")
        if self.weighting == "certainty" and count != 2:
            raise RecipeError(
                f"model.weighting certainty is between two members, found {count}; leave members out, or choose constant"
            )
        if self.weights is not None and len(self.weights) != count:
            raise RecipeError(f"model.weights has {len(self.weights)} numbers for {count} members; give each its own")
        if self.weights is not None and not np.isclose(sum(self.weights), 1):
            raise RecipeError(f"model.weights add up to {sum(self.weights):g}; expected 1")
        if self.validation_users != USUAL_USERS and len(list(self.choices(count))) == 1:
            raise RecipeError("model.validation_users does nothing where the recipe says the weights; leave it out")

    def choices(self, count: int) -> Iterator[np.ndarray]:
        """What the weights of so many members may be: weights [m], or q and tau [2]; one alone where nothing is chosen."""
        if self.weighting == "certainty":
            sharpness = SHARPNESS if self.sharpness is None else (self.sharpness,)
            thresholds = THRESHOLDS if self.threshold is None else (self.threshold,)
            yield from (np.array(pair) for pair in product(sharpness, thresholds))
        elif self.weights is not None:
            yield np.array(self.weights)
        else:
            for first in product(range(WEIGHT_STEPS + 1), repeat=count - 1):
                if (rest := WEIGHT_STEPS - sum(first)) >= 0:
                    yield np.array([*first, rest]) / WEIGHT_STEPS

    def user_weights(self, chosen: np.ndarray, first: np.ndarray) -> np.ndarray:
        """[U or 1, m] weights of the members.

        Args:
            chosen: one of :meth:`choices`.
            first: [U] the probability of the first member's best item, see :func:`highest_probability`.
        """
        if self.weighting == "constant":
            return chosen[None]
        sharpness, threshold = chosen
        second = 1 / (1 + np.exp(sharpness * (first - threshold)))
        return np.stack([1 - second, second], 1)

    def scaled(self, items: np.ndarray, scores: np.ndarray, n_items: int) -> np.ndarray:
        """Scores [U, I] of all items on one scale, from lists of the best.

        Args:
            items: [U, M] positions, -1 in unused places; scores: [U, M].
            n_items: I; an item that is not in a list gets the lowest score of the list.
        """
        listed = items >= 0
        found = np.where(listed, scores, 0).astype(np.float64)
        if self.scale == "standardised":
            count = np.maximum(listed.sum(1, keepdims=True), 1)
            centred = np.where(listed, found - found.sum(1, keepdims=True) / count, 0)
            spread = np.sqrt((centred**2).sum(1, keepdims=True) / count)
            found = centred / np.where(spread > 0, spread, 1)
        else:
            found = found - _log_sum(found, listed)
        lowest = np.where(listed, found, np.inf).min(1, keepdims=True)
        filled = np.repeat(np.where(np.isfinite(lowest), lowest, 0), n_items, 1).astype(np.float32)
        if listed.all():
            np.put_along_axis(filled, items, found.astype(np.float32), 1)
        else:
            row, column = np.nonzero(listed)
            filled[row, items[row, column]] = found[row, column]
        return filled


def highest_probability(items: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[U] the largest probability by the softmax of scores [U, M]; items [U, M] are -1 in unused places.

    >>> highest_probability(np.array([[4, 2, -1]]), np.log([[3.0, 1.0, 5.0]])).round(6).tolist()
    [0.75]
    """
    listed = items >= 0
    found = np.where(listed, scores, -np.inf).astype(np.float64)
    return np.exp(found.max(1) - _log_sum(found, listed)[:, 0])


def _log_sum(scores: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """[U, 1] log of the summed exponentials of the listed scores."""
    highest = np.where(listed, scores, -np.inf).max(1, keepdims=True)
    return highest + np.log(np.where(listed, np.exp(np.where(listed, scores - highest, 0)), 0).sum(1, keepdims=True))
