"""Recipes that ship with the package, and what the recipe of each recommender is where nothing else is said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from diffgrm.foundation.schema import RecipeError, did_you_mean

USUAL = "hybrid"  # the recommender of a recipe that names none
FOLDER = Path(__file__).resolve().parents[1] / "recipes"


def preset_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_text(name: str) -> str:
    """The YAML of a recipe that ships with the package.

    Raises:
        RecipeError: there is none of that name.
    """
    known = preset_names()
    if name not in known:
        hint = did_you_mean(name, known)
        listed = "" if "known:" in hint else f" Recipes that ship with diffgrm: {', '.join(known)}"
        raise RecipeError(f"there is no recipe {name!r}{hint}{listed}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def preset_summary(name: str) -> str:
    """The first line of a shipped recipe's comment, which is a sentence."""
    return preset_text(name).splitlines()[0].lstrip("# ").rstrip(":")


def is_preset(path: str | Path) -> bool:
    """Whether a path is to be read as the name of a shipped recipe: no suffix, no folder, and no file of that name."""
    path = Path(path)
    is_file = os.path.lexists(path) and path.is_file()  # for the first of which no name is too long
    return path.name == str(path) and not path.suffix and not is_file


@lru_cache
def defaults_of(recommender: str) -> Mapping[str, Any]:
    """Settings that a recommender has instead of the usual ones, by section; not to be changed."""
    known = {path.stem: path for path in (FOLDER / "defaults").glob("*.yaml")}
    return yaml.safe_load(known[recommender].read_text(encoding="utf-8")) if recommender in known else {}
