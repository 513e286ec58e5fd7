"""A suite: which recommenders are compared on which datasets.

name: quick
datasets: [shop, movielens-100k]
folders: [../data]  # DATASET/interactions.parquet and items.parquet lie there, beside this file; left out: public datasets
seeds: [0, 1]
test_users: 5000                   # a sample of the test users; left out, all of them are ranked
data: {split: temporal, target: last}      # how events are held out, the same for all runs; left out: leave-one-out
clock: {movielens-100k: seen_at}   # where real times stand, for datasets whose timestamp is only an order
reference: sasrec                  # differences and their intervals are to this run
runs:
  popularity: {recommender: popularity}
  sasrec:
    recommender: sasrec
    choose: {model.dropout: [0.2, 0.5]}        # the best on validation, by the first seed, counts (apps/choosing.py)
  diffgrm:
    recipe: movielens-small                    # a recipe that ships with the package, or a file beside this one
    only_on: {shop: {training: {epochs: 20}}}   # changes for single datasets
  narrow: {like: diffgrm, decoding: {beam: 16}}  # another run, changed; fitted again only if fitting changed
  clock: {like: sasrec, events: {time_inputs: [hour]}}   # what networks are told of events
  other: {like: diffgrm, recommender: autoregressive, noising: null}  # null: without that section
  best: {recipe: best}
  published: {like: diffgrm, tokenizer: {name: from_file, path: sids.parquet}}   # a file beside this one
  both: {recommender: ensemble, members: [sasrec, best]}   # the fits of other runs
  steered: {recipe: epic, backbone: diffgrm}               # the same, of one
  plain: {like: best, item_scoring: {co_occurrence: null}}  # changes reach as deep as settings are nested; the same fit
  liked: {like: best, events: {rating: rating, min_rating: 4}}   # compared where targets are the same
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from diffgrm.apps.bench.checks import OF_OTHERS, check_recipes, check_said
from diffgrm.apps.bench.late import is_late
from diffgrm.apps.choosing import Choose, as_overrides, combinations
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.overrides import PART_SECTIONS, apply_overrides
from diffgrm.foundation.parts import merge, named
from diffgrm.foundation.presets import is_preset
from diffgrm.foundation.recipe import Recipe, explained
from diffgrm.foundation.registry import settings
from diffgrm.foundation.schema import RecipeError, bullet_list
from diffgrm.foundation.sections import DataSettings, Seed
from diffgrm.foundation.yaml_text import YamlError, read_yaml, text_of


class Run(BaseModel):
    """How one run of a suite is set up; whatever is not named here are sections of a recipe."""

    model_config = ConfigDict(frozen=True, extra="allow")
    recipe: Path | None = None
    like: str | None = None
    only_on: dict[str, dict[str, Any]] = {}
    choose: Choose = {}
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    members: tuple[str, ...] = ()
    backbone: str | None = None
    peer: Path | None = None
    python: Path | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The sections of a recipe."""
        return dict(self.model_extra or {})

    @property
    def uses(self) -> dict[str, tuple[str, ...]]:
        """Settings of the section model that stand for the fits of other runs, and those runs."""
        said = {"members": self.members, "backbone": (self.backbone,) if self.backbone is not None else ()}
        return {setting: runs for setting, runs in said.items() if runs}


class Suite(BaseModel):
    """Everything a suite file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    datasets: tuple[str, ...] = Field(min_length=1)
    folders: tuple[Path, ...] = ()
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    test_users: int | None = Field(None, ge=1)  # so many, the same for all runs, are ranked; null: all
    data: DataSettings = DataSettings()  # type: ignore[call-arg]
    clock: dict[str, str] = {}
    reference: str
    runs: dict[str, Run] = Field(min_length=1)
    _home: Path = PrivateAttr(default=Path())
    _own_classes: set[str] = PrivateAttr(default_factory=set)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read and check a suite file; every recipe in it is built once.

        Raises:
            RecipeError: with every problem found.
        """
        path = Path(path)
        try:
            raw = read_yaml(text_of(path))
        except FileNotFoundError as error:
            raise RecipeError(f"there is no suite file {path}") from error
        except (OSError, YamlError) as error:
            raise RecipeError(f"the suite {path} cannot be read: {error}") from error
        if not isinstance(raw, dict):
            raise RecipeError(f"{path}: expected a mapping with datasets and runs, found {type(raw).__name__}")
        try:
            suite = cls(**{"name": path.stem, **raw})
        except ValidationError as error:
            raise RecipeError(f"the suite {path} has problems:\n" + bullet_list(explained(error, cls))) from None
        suite._home = path.resolve().parent
        suite._own_classes = check_recipes(suite)
        return suite

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_said(self)
        return self

    @property
    def own_classes(self) -> set[str]:
        """What its recipes name as ``module:Class``: code that whoever runs the suite means to run."""
        return self._own_classes

    def path(self, relative: Path) -> Path:
        """A path of the suite file, from where that file lies."""
        return self._home / relative

    def choices(self, name: str) -> list[dict[str, Any]]:
        """The settings among which validation chooses, as dotted overrides; one empty choice where nothing is chosen."""
        return combinations(self.runs[name].choose)

    def recipe(self, name: str, dataset: str, choice: Mapping[str, Any], seed: int) -> Recipe:
        """The recipe of a run on a dataset, with one of its choices (and, for runs like another, that one's).

        Files that it names lie where the suite file says, from its own folder.
        """
        raw = self._raw(name, dataset, choice)
        return Recipe.from_dict({**raw, "data": self.data.model_dump(), "seed": seed}).located(self._home)

    def _raw(self, name: str, dataset: str, choice: Mapping[str, Any]) -> dict[str, Any]:
        run = self.runs[name]
        raw: dict[str, Any] = {}
        if run.recipe is not None:
            beside = self.path(run.recipe)
            preset = is_preset(run.recipe) and not beside.is_file()
            raw = Recipe.from_yaml(run.recipe if preset else beside).to_dict()
        if run.like is not None:
            raw = self._raw(run.like, dataset, {} if run.choose else choice)
        for changes in (run.changes, run.only_on.get(dataset, {})):
            raw = _changed(raw, changes)
        if self.base(name) != name:
            return raw
        return apply_overrides(raw, as_overrides(choice))

    def events(self, name: str, dataset: str) -> EventSettings:
        """How a run reads the events of a dataset: by its recipe or, where it is a peer, as it says itself."""
        run = self.runs[name]
        if run.peer is None:
            return self.recipe(name, dataset, self.choices(name)[0], self.seeds[0]).events
        said = {**run.changes, **run.only_on.get(dataset, {})}.get("events")
        return EventSettings(**(said or {}))

    def owners(self, name: str, dataset: str) -> dict[str, str]:
        """The runs of which a peer is given semantic IDs or vectors, by the key that names them."""
        said = {**self.runs[name].changes, **self.runs[name].only_on.get(dataset, {})}
        return {key: str(said[key]) for key in OF_OTHERS if said.get(key) is not None}

    def base(self, name: str) -> str:
        """The run whose choice by validation this one takes over: itself, or the one it is like."""
        run = self.runs[name]
        return name if run.choose or run.like is None else self.base(run.like)

    def uses(self, name: str) -> dict[str, tuple[str, ...]]:
        """The runs whose fits a run uses, by setting: its own or those of the run it is like."""
        run = self.runs[name]
        return run.uses if run.uses or run.like is None else self.uses(run.like)

    def fitted_by(self, name: str) -> str:
        """The run whose fit this one uses: itself, or the one it is like where only late settings differ."""
        run = self.runs[name]
        if run.like is None or run.uses:
            return name
        changed = [item for changes in (run.changes, *run.only_on.values()) for item in changes.items()]
        changed += [item for key in run.choose for item in apply_overrides({}, [f"{key}=0"]).items()]
        late = all(is_late(section, change) for section, change in changed)
        return self.fitted_by(run.like) if late and self._scorers(name) <= self._scorers(run.like) else name

    def _scorers(self, name: str) -> set[tuple[str, str]]:
        """The item scorers of a run on each dataset."""
        choice = self.choices(self.base(name))[0]
        recipes = {dataset: self.recipe(name, dataset, choice, self.seeds[0]) for dataset in self.datasets}
        return {(dataset, scorer) for dataset, recipe in recipes.items() for scorer in recipe.item_scoring.scorers}


def _changed(raw: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A raw recipe with the changes of a run.

    A part under another name keeps the settings that both know: "like" another run means that nothing else differs.
    """
    unused = {section for section, value in changes.items() if value is None and section in Recipe.model_fields}
    raw = {section: value for section, value in raw.items() if section not in unused}
    new = merge(raw, {section: value for section, value in changes.items() if section not in unused})
    for section in PART_SECTIONS:
        before, after = named(raw.get(section)), named(new.get(section))
        if isinstance(before, Mapping) and isinstance(after, Mapping) and before.get("name") != after.get("name"):
            new[section] = {**_known(section, after, before), **after}
    if isinstance(validation := dict(raw.get("training", {})).get("validation_decoding"), Mapping) and "decoding" in new:
        asked = dict(changes.get("training") or {}).get("validation_decoding", {})
        kept = _known("decoding", named(new["decoding"]), validation)
        if isinstance(asked, Mapping):  # anything else the recipe refuses
            new["training"] = {**new["training"], "validation_decoding": {**kept, **asked}}
    return new


def _known(section: str, part: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that a part knows."""
    if "name" not in part:
        return dict(options)
    return {key: value for key, value in options.items() if key != "name" and key in settings(section, part["name"])}
