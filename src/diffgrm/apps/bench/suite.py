"""A suite: which recommenders are compared on which datasets.

name: quick
datasets: [toy, movielens-100k]
folders: [../data]                 # where DATASET/interactions.parquet and items.parquet may lie, beside this file
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
    only_on: {toy: {training: {epochs: 20}}}   # changes for single datasets
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

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from diffgrm.apps.bench.late import is_late
from diffgrm.apps.choosing import Choose, as_overrides, combinations, without_end
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.overrides import PART_SECTIONS, apply_overrides
from diffgrm.foundation.parts import merge, named
from diffgrm.foundation.presets import is_preset
from diffgrm.foundation.recipe import Recipe, explained
from diffgrm.foundation.registry import settings
from diffgrm.foundation.schema import RecipeError, bullet_list, did_you_mean, nearest
from diffgrm.foundation.sections import DataSettings, Seed
from diffgrm.foundation.yaml_text import YamlError, read_yaml, text_of


class Run(BaseModel):
    """How one run of a suite is set up; whatever is not named here are sections of a recipe."""

    model_config = ConfigDict(frozen=True, extra="allow")
    recipe: Path | None = None
    like: str | None = None
    only_on: dict[str, dict[str, Any]] = {}
    choose: Choose = {}
    seeds: tuple[Seed, ...] | None = None
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
        suite._check_recipes()
        return suite

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.reference not in self.runs:
            raise ValueError(f"reference {self.reference!r} is not among the runs{did_you_mean(self.reference, self.runs)}")
        if strange := sorted(set(self.clock) - set(self.datasets)):
            raise ValueError(f"clock names a column for {strange[0]!r}{did_you_mean(strange[0], self.datasets)}")
        for name, run in self.runs.items():
            self._check_keys(name, run)
            self._check_split(name, run)
            seen, like = {name}, run.like
            while like is not None:
                if like not in self.runs:
                    raise ValueError(f"{name!r} is like {like!r}, which is no run{did_you_mean(like, self.runs)}")
                if like in seen:
                    raise ValueError(f"{name!r} is like itself")
                seen.add(like)
                like = self.runs[like].like
            for setting, used in ((setting, used) for setting, runs in run.uses.items() for used in runs):
                if used not in self.runs:
                    raise ValueError(f"{name!r} has {used!r} under {setting}, no run{did_you_mean(used, self.runs)}")
            if endless := without_end(run.choose):
                raise ValueError(
                    f"{name!r} chooses {endless[0]} from a range without a step, but a suite tries every value; give a "
                    "step or a list, or search with diffgrm tune"
                )
            if strange := sorted(set(run.only_on) - set(self.datasets)):
                raise ValueError(f"{name!r} has changes for {strange[0]!r}{did_you_mean(strange[0], self.datasets)}")
        return self

    def _check_keys(self, name: str, run: Run) -> None:
        """Refuse a misspelt key of a run, which a recipe would take for a section of its own."""
        for key in sorted(set(run.changes) - set(Recipe.model_fields)):
            hint = nearest(key, {*Run.model_fields, *Recipe.model_fields})
            if run.peer is None and hint and hint == nearest(key, Run.model_fields):
                raise ValueError(f"{name!r} has the key {key!r}, which is none of a run{hint}")

    def _check_split(self, name: str, run: Run) -> None:
        """Refuse a run that would be fitted on another split than it is asked on, or cannot be asked so."""
        usual = self.data.model_dump()
        said = [changes["data"] for changes in (run.changes, *run.only_on.values()) if "data" in changes]
        other = any(not isinstance(data, Mapping) or not data.items() <= usual.items() for data in said)
        if other or any(key.split(".")[0] == "data" for key in run.choose):
            raise ValueError(f"{name!r} has data settings of its own, but all runs share one split; set data beside runs")
        if any(key.split(".")[0] == "events" for key in run.choose):
            raise ValueError(
                f"{name!r} chooses among settings of events, by which validation would ask for other targets; give each a "
                "run of its own"
            )
        if run.peer is not None and self.data.target == "successive":
            raise ValueError(f"{name!r} is a peer, which makes one list a user; data.target = successive asks for more")

    def _check_events(self, name: str, dataset: str) -> list[str]:
        """What is wrong with the section events of a peer, a line each."""
        try:
            events = self.events(name, dataset)
        except ValidationError as error:
            return [f"run {name!r} on {dataset}: {line}" for line in explained(error)]
        if events.event is None:
            return []
        return [f"run {name!r} is a peer, which cannot be told types of events; leave events.event out"]

    def _check_uses(self, name: str, recipe: Recipe) -> list[str]:
        """What is wrong with the fits of other runs that a run uses, a line each."""
        problems, run = [], self.runs[name]
        for setting, used in self.uses(name).items():
            if setting not in recipe.model.options:
                whose = {"members": "ensemble", "backbone": "epic"}[setting]
                problems.append(f"run {name!r} has {setting}, but its recommender knows none; set recommender: {whose}")
            if any(setting in (changes.get("model") or {}) for changes in (run.changes, *run.only_on.values())):
                problems.append(f"run {name!r} says model.{setting} and {setting}; say one of both")
            problems += [
                f"run {name!r} has {other!r} under {setting}, which is a peer, uses other runs itself, or is the fit of "
                "another run; name a run that is fitted by itself"
                for other in used
                if self.runs[other].peer is not None or self.uses(other) or self.fitted_by(other) != other
            ]
        return problems

    def _check_recipes(self) -> None:
        problems = []
        for name, dataset in itertools.product(self.runs, self.datasets):
            if self.runs[name].peer is not None:
                problems += self._check_events(name, dataset)
                continue
            for choice in self.choices(name):
                try:
                    recipe = self.recipe(name, dataset, choice, self.seeds[0])
                    recipe.refuse_idle()
                    self._own_classes.update(recipe.own_classes)
                    problems += self._check_uses(name, recipe)
                except RecipeError as error:
                    problems.append(f"run {name!r} on {dataset}: {error}")
        if problems:
            raise RecipeError(f"the suite {self.name} has problems:\n" + bullet_list(dict.fromkeys(problems)))

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
        if run.like is None or run.recipe is not None or run.uses:
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
    unused = {section for section, value in changes.items() if value is None}
    raw = {section: value for section, value in raw.items() if section not in unused}
    new = merge(raw, {section: value for section, value in changes.items() if section not in unused})
    for section in PART_SECTIONS:
        before, after = named(raw.get(section)), named(new.get(section))
        if isinstance(before, Mapping) and isinstance(after, Mapping) and before.get("name") != after.get("name"):
            new[section] = {**_known(section, after, before), **after}
    if isinstance(validation := dict(raw.get("training", {})).get("validation_decoding"), Mapping) and "decoding" in new:
        asked = dict(changes.get("training") or {}).get("validation_decoding") or {}
        kept = _known("decoding", named(new["decoding"]), validation)
        new["training"] = {**new["training"], "validation_decoding": {**kept, **asked}}
    return new


def _known(section: str, part: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that a part knows."""
    if "name" not in part:
        return dict(options)
    return {key: value for key, value in options.items() if key != "name" and key in settings(section, part["name"])}
