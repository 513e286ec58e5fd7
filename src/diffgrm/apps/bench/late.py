"""What of a recipe can change without a new fit: decoding, retrieval, evaluation, and the weights of item scorers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from diffgrm.foundation.recipe import Recipe

LATE = ("decoding", "retrieval", "evaluation")  # sections of which all can


def is_late(section: str, change: object) -> bool:
    """Whether a change of a recipe's section needs no new fit; an item scorer may also be taken out.

    >>> is_late("item_scoring", {"co_occurrence": None, "new_items": {"weight": 2}})
    True
    >>> is_late("item_scoring", {"co_occurrence": {"neighbours": 50}})
    False
    """
    if section != "item_scoring":
        return section in LATE
    if not isinstance(change, Mapping):
        return False
    return all(scorer is None or (isinstance(scorer, Mapping) and set(scorer) <= {"weight"}) for scorer in change.values())


def fitted_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that a fit depends on, as plain nested mappings; files by what they hold."""
    found = {section: value for section, value in recipe.by_content().items() if section not in LATE}
    if "item_scoring" in found:
        scorers = recipe.item_scoring.scorers.items()
        found["item_scoring"] = {name: {**scorer.by_content().flat(), "weight": None} for name, scorer in scorers}
    return found


def late_overrides(recipe: Recipe, fitted: Recipe) -> list[str]:
    """Overrides that make of a fitted recommender what a recipe says.

    Args:
        recipe: differs from the fitted one in late settings only; item scorers that it lacks get the weight 0.
        fitted: of the recommender.
    """
    wanted = recipe.to_dict()
    found = [f"{section}.{key}={json.dumps(value)}" for section in LATE for key, value in wanted.get(section, {}).items()]
    for name in fitted.item_scoring.scorers:
        scorer = recipe.item_scoring.scorers.get(name)
        weights = {"weight": 0.0} if scorer is None else scorer.options
        if "weight" in weights:
            found.append(f"item_scoring.{name}.weight={json.dumps(weights['weight'])}")
    return found
