"""Recommenders inside of another's: read from a model folder, or planned by a recipe and fitted first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffgrm.data.dataset import Split
from diffgrm.foundation import registry
from diffgrm.foundation.parts import merge
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import DataError, DiffGRMError, ModelFolderError, RecipeError, first_few
from diffgrm.foundation.storage import State
from diffgrm.recommenders import packing
from diffgrm.recommenders.base import Recommender, load


def read(folder: Path, split: Split, setting: str) -> Recommender:
    """One from its folder.

    Args:
        setting: what names it, for messages.

    Raises:
        DataError: the folder holds no model, or one that was fitted on other events or items.
    """
    try:
        found = load(folder)
    except DiffGRMError as error:
        raise DataError(f"{setting}: {error}") from error
    if not found.items.series.equals(ids := split.dataset.items.series):
        strange = first_few(sorted({*map(str, found.items.series)} ^ {*map(str, ids)}))
        raise DataError(
            f"{setting}: {folder} knows other items than this dataset has (one of both has {strange}); fit it on the same "
            "tables"
        )
    if found.recipe.events != split.dataset.event_settings:
        raise DataError(
            f"{setting}: {folder} was fitted with another section events, and would read histories otherwise; fit it with "
            "the same one"
        )
    if found.facts.get("training_fingerprint") != split.fingerprint:
        raise DataError(
            f"{setting}: {folder} was not fitted on the training events of this split, so it may have learnt from those "
            "that are to be predicted; fit it on the same tables with the same data.split"
        )
    return found


def taken_over(read: Sequence[Recommender]) -> np.ndarray | None:
    """[I] bool, what all that were read recommend, which is the whole's from then on: they rank every item. None: all.

    Raises:
        DataError: no item is left.
    """
    removed = [found.catalogue.recommendable for found in read if found.catalogue.recommendable is not None]
    if not removed:
        return None
    left = np.logical_and.reduce(removed)
    if not left.any():
        raise DataError("no item is left that all members recommend; restore some in their folders (restore_items)")
    for found in read:
        found.take(found.parts, replace(found.catalogue, recommendable=None), found.facts)
    return left


def loaded(path: Path, n_items: int) -> Recommender:
    """One that was saved inside of another's folder, read as any model folder is; it runs no code that it names.

    Raises:
        ModelFolderError: no model, or one of another number of items.
    """
    found = packing.unpacked(State.load(path).arrays, registry.trust())
    if len(found.items) != n_items:
        raise ModelFolderError(f"{path} knows {len(found.items)} items, but there are {n_items}")
    return found


def planned(wanted: Mapping[str, Any], recipe: Recipe, setting: str) -> Recommender:
    """One that is fitted first, by a recipe in which the seed, split and events of the other's stand where it has none.

    Args:
        wanted: a recipe, or ``recipe`` with the name of a shipped one and changes; setting: what names it, for messages.

    Raises:
        RecipeError: a wrong recipe, or one with a split or events of its own.
    """
    if shared := [section for section in ("data", "events") if section in wanted]:
        raise RecipeError(
            f"{setting}: what is fitted first shares the split of the whole; say {shared[0]} of the whole only"
        )
    changes = {key: value for key, value in wanted.items() if key != "recipe"}
    raw = Recipe.preset(str(wanted["recipe"])).to_dict() if "recipe" in wanted else {}
    try:
        whole = {"seed": recipe.seed, "data": recipe.data.model_dump(), "events": recipe.events.model_dump()}
        found = Recipe.from_dict(merge({**raw, **whole}, changes))
        found.refuse_idle()
        recommender = registry.resolve("recommender", found.recommender)(found)
        recommender.new_parts()
    except RecipeError as error:
        raise RecipeError(f"{setting}: {error}") from error
    return recommender
