"""What a search is about: a recipe, what may change in it, and how trials are proposed and given up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from diffgrm.apps.choosing import (
    Choose,
    Options,
    Range,
    as_overrides,
    checked,
    combinations,
    incomparable,
    overlapping,
    undoes,
)
from diffgrm.foundation import registry
from diffgrm.foundation.overrides import apply_overrides, split_path
from diffgrm.foundation.recipe import Recipe, read_sections
from diffgrm.foundation.schema import RecipeError, bullet_list, readable
from diffgrm.foundation.yaml_text import YamlError, read_yaml, text_of

CHECKED = 500  # combinations that are looked at before anything runs
Pruning = Literal["median", "none"]


@dataclass(frozen=True)
class Plan:
    """A search, checked.

    Attributes:
        recipe: of all trials, but for what is chosen.
        choose: dotted settings, and what they may be.
        seed: of the proposals; the recipe's own seed is that of every trial.
        pruning: ``"median"``: a trial ends early whose validation is below the median of the earlier trials at that epoch.
        startup: so many trials are drawn at random, and none is given up before as many have ended.
    """

    recipe: Recipe
    choose: Mapping[str, Options]
    seed: int = 0
    pruning: Pruning = "median"
    startup: int = 5

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        choose: Mapping[str, Any],
        seed: int = 0,
        pruning: Pruning = "median",
        startup: int = 5,
        overrides: Sequence[str] = (),
    ) -> Self:
        """A checked search.

        Args:
            choose: lists of values, and ranges as mappings; see :mod:`diffgrm.apps.choosing`.
            overrides: settings of the recipe that are to hold for all trials.

        Raises:
            RecipeError: with every problem found.
        """
        found = cls(recipe, _read(choose), seed, pruning, startup)
        if problems := found._problems() or found._undone(overrides):
            raise RecipeError("this cannot be searched:\n" + bullet_list(problems))
        return found

    @classmethod
    def from_files(cls, recipe: str | Path, space: Path | None, overrides: Iterable[str] = (), **how: Any) -> Self:
        """The same from a recipe file (or the name of a shipped recipe) that has ``choose:``, or a space file beside it.

        Args:
            space: a YAML file of what stands under ``choose:``; None: the recipe has it.
            how: ``seed``, ``pruning`` and ``startup``.

        Raises:
            RecipeError: unreadable files, no space or two, or any problem of :meth:`of`.
        """
        sections = read_sections(recipe)
        within = sections.pop("choose", None)
        if (within is None) == (space is None):
            raise RecipeError(
                f"the recipe {recipe} says nothing under choose:, and there is no --space FILE; give one of both"
                if space is None
                else f"both the recipe {recipe} and --space {space} say what may be chosen; leave one out"
            )
        chosen = within if space is None else _space_file(space)
        overrides = tuple(overrides)
        return cls.of(Recipe.from_dict(apply_overrides(sections, overrides)), chosen, overrides=overrides, **how)

    def trial_recipe(self, choice: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial.

        Raises:
            RecipeError: the choice does not go together, or does nothing.
        """
        found = Recipe.from_dict(apply_overrides(self.recipe.to_dict(), as_overrides(choice)))
        found.refuse_idle()
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this search: two with the same one propose the same."""
        return {
            "recipe": self.recipe.to_dict(),
            "choose": written(self.choose),
            "seed": self.seed,
            "pruning": self.pruning,
            "startup": self.startup,
        }

    def _problems(self) -> list[str]:
        problems = [
            f"{key} cannot be chosen: trials that differ in it are not comparable" for key in incomparable(self.choose)
        ]
        problems += [
            f"{inner} is under choose:, and stands in values of {outer} there too; say it under one of both"
            for inner, outer in overlapping(self.choose)
        ]
        if registry.door(self.recipe.recommender) != "recommender":
            problems.append(f"the recipe is for {self.recipe.recommender!r}, which does not learn from a table of events")
        elif "training" in self.recipe.sections and self.recipe.training.processes > 1:
            problems.append("trials run in one process: set training.devices=1 and training.nodes=1")
        if self.pruning not in get_args(Pruning):
            problems.append(f"pruning is {self.pruning!r}; expected one of {', '.join(get_args(Pruning))}")
        if self.startup < 1:
            problems.append(f"startup is {self.startup}; expected a whole number from 1 on")
        if not self.choose:
            problems.append("nothing is to be chosen; name a setting and its values")
        return problems or checked(self._some_choices(), self.trial_recipe)

    def _undone(self, overrides: Sequence[str]) -> list[str]:
        """Settings that are to hold for all trials, and would not beside what is chosen, a line each."""
        last = {path: text for path, _, text in (override.partition("=") for override in overrides)}
        parts = {path: _with_inside(path, last) for path in last}
        in_force = {path: whole for path, whole in parts.items() if self._keeps(whole, {})}
        found = {(path, key): None for path in in_force for key in self.choose if undoes(key, _nested(path, last[path]))}
        for choice in self._some_choices():
            if not self._keeps([f"{path}={last[path]}" for path in in_force], choice):
                found |= {(path, key): None for path, whole in in_force.items() for key in self._undoing(whole, choice)}
        return [
            f"{path}={last[path]} is to hold for all trials, but choose: has {key}, which would undo it; leave one out, or "
            "choose among values of both"
            for path, key in found
        ]

    def _undoing(self, overrides: Sequence[str], choice: Mapping[str, Any]) -> list[str]:
        """Which settings of a choice undo overrides: those that do it alone, else all of them together."""
        if self._keeps(overrides, choice):
            return []
        return [key for key, value in choice.items() if not self._keeps(overrides, {key: value})] or list(choice)

    def _keeps(self, overrides: Sequence[str], choice: Mapping[str, Any]) -> bool:
        """Whether the recipe is as overrides say after a choice too; True where that choice is none."""
        try:
            trial = self.recipe.override(as_overrides(choice))
        except RecipeError:
            return True
        try:
            return self.recipe.override([*as_overrides(choice), *overrides]) == trial
        except RecipeError:  # what is chosen has no such setting
            return False

    def _ends(self) -> dict[str, list[Any]]:
        """The values of every list, and the ends of every range."""
        return {key: [o.min, o.max] if isinstance(o, Range) else o for key, o in self.choose.items()}

    def _some_choices(self) -> list[dict[str, Any]]:
        """Every combination of listed values and of ends of ranges; where they are many, some drawn by the seed."""
        ends = self._ends()
        if math.prod(map(len, ends.values())) <= CHECKED:
            return combinations(ends)
        draw = np.random.default_rng(self.seed)
        return [{key: values[draw.integers(len(values))] for key, values in ends.items()} for _ in range(CHECKED)]


def _with_inside(path: str, overrides: Mapping[str, str]) -> list[str]:
    """An override, and those of settings inside of what it says."""
    return [f"{key}={text}" for key, text in overrides.items() if key == path or key.startswith(f"{path}.")]


def _nested(path: str, text: str) -> Any:
    """An override as nested settings."""
    return reduce(lambda inner, step: {step: inner}, reversed(split_path(path)), read_yaml(text))


def written(choose: Mapping[str, Options]) -> dict[str, Any]:
    """What may be chosen, as plain lists and mappings."""
    return {
        key: options.model_dump(exclude_defaults=True) if isinstance(options, Range) else options
        for key, options in choose.items()
    }


def _read(choose: Any) -> dict[str, Options]:
    try:
        return TypeAdapter(Choose).validate_python(choose)
    except ValidationError as error:
        problems = [".".join(["choose", *map(str, found["loc"])]) + f": {readable(found)}" for found in error.errors()]
        raise RecipeError("this cannot be searched:\n" + bullet_list(problems)) from None


def _space_file(path: Path) -> Any:
    try:
        return read_yaml(text_of(path))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no space file {path}") from error
    except (OSError, YamlError) as error:
        raise RecipeError(f"the space file {path} cannot be read: {error}") from error
