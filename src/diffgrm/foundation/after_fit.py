"""What of a recipe can change when a model has been fitted by it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError, bullet_list, first_few

# Where vectors and encoders lie is not kept in model folders (see Local).
LATE = re.compile(
    r"(decoding|retrieval|evaluation)[.=]|data\.(target|cold_targets)=|item_scoring\..*\.weight=|embedding\.(text\.)*(path|model)="
)


def changed_after_fit(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe of a fitted model with overrides of settings that fitting has not used up.

    Raises:
        RecipeError: there are others among them, settings that there are not, wrong values, or what does nothing beside the
            other settings.
    """
    overrides = list(overrides)
    if early := [override for override in overrides if not LATE.match(override)]:
        known = {row.path for row in recipe.table()}
        strange = [override for override in early if override.partition("=")[0] not in known]
        recipe.override(strange)  # of a misspelt name, which tells what is meant
        raise RecipeError(
            "only decoding, retrieval and evaluation settings, the weights of item_scoring (0: without), and what a split "
            f"in time asks for (data.target, data.cold_targets) can change after fit, not {first_few(early)}"
        )
    found = recipe.override(overrides)
    said = tuple(override.partition("=")[0] + end for override in overrides for end in (" ", "."))
    if idle := [problem for problem in found.idle_settings() if problem.startswith(said)]:  # others may be of the fit
        raise RecipeError("the overrides have problems:\n" + bullet_list(idle))
    return found
