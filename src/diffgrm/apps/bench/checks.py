"""What of a suite is refused before anything runs: names that collide, keys that nobody would read, runs that cannot be."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from diffgrm.apps.choosing import holds, incomparable, overlapping, undoes, without_end
from diffgrm.foundation.overrides import PART_SECTIONS, split_path
from diffgrm.foundation.recipe import Recipe, explained
from diffgrm.foundation.schema import RecipeError, bullet_list, did_you_mean, nearest

if TYPE_CHECKING:
    from diffgrm.apps.bench.suite import Run, Suite

OF_OTHERS = {"semantic_ids_of": "tokenizer", "vectors_of": "embedding"}  # what peers are given, and of which section it is

NOT_OF_PEERS = {
    "event": "types of events",
    "weight": "weights of events",
    "time_inputs": "times of events",
    "event_columns": "columns of events",
    "user_columns": "columns of users",
}


def slug(name: str) -> str:
    """A run's name as a folder.

    >>> slug("diffgrm, W = 16"), slug("日本 2")
    ('diffgrm-w-16', '日本-2')
    """
    return re.sub(r"(?:[^\w.]|_)+", "-", name.lower()).strip("-.")


def check_said(suite: Suite) -> None:
    """Check what stands in a suite file, without a look at recipes.

    Raises:
        ValueError: with the first problem found.
    """
    runs = suite.runs
    if suite.reference not in runs:
        raise ValueError(f"reference {suite.reference!r} is not among the runs{did_you_mean(suite.reference, runs)}")
    _check_folders(suite)
    if strange := sorted(set(suite.clock) - set(suite.datasets)):
        raise ValueError(f"clock names a column for {strange[0]!r}{did_you_mean(strange[0], suite.datasets)}")
    for name, run in runs.items():
        _check_keys(name, run)
        _check_split(suite, name, run)
        _check_names(suite, name, run)
        if run.peer is None:
            _check_run(suite, name, run)
        else:
            _check_keys_of_peer(suite, name, run)


def check_recipes(suite: Suite) -> set[str]:
    """Build every recipe of a suite once, and look at what peers are given.

    Returns:
        What recipes name as ``module:Class``.

    Raises:
        RecipeError: with every problem found.
    """
    problems, own_classes = [], set[str]()
    for name, dataset in itertools.product(suite.runs, suite.datasets):
        if suite.runs[name].peer is not None:
            problems += _problems_of_peer(suite, name, dataset)
            continue
        for choice in suite.choices(name):
            try:
                recipe = suite.recipe(name, dataset, choice, suite.seeds[0])
                recipe.refuse_idle()
                own_classes.update(recipe.own_classes)
                problems += _problems_of_uses(suite, name, recipe)
            except RecipeError as error:
                problems.append(f"run {name!r} on {dataset}: {error}")
    if problems:
        raise RecipeError(f"the suite {suite.name} has problems:\n" + bullet_list(dict.fromkeys(problems)))
    return own_classes


def _check_folders(suite: Suite) -> None:
    """Refuse what would be written into the folder of something else."""
    seeds = {f"seeds of {name!r}": run.seeds for name, run in suite.runs.items() if run.seeds}
    for what, names in {"datasets": suite.datasets, "seeds": suite.seeds, **seeds}.items():
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{what} name {twice[0]!r} more than once; name it once")
    folders: dict[str, str] = {}
    for name in suite.runs:
        if not slug(name):
            raise ValueError(f"the run {name!r} has no letter or digit in its name, by which a folder could be called")
        if (other := folders.setdefault(slug(name), name)) != name:
            raise ValueError(f"the runs {other!r} and {name!r} would share the folder {slug(name)!r}; rename one")


def _check_keys(name: str, run: Run) -> None:
    """Refuse a misspelt key of a run, which a recipe would take for a section of its own."""
    for key in sorted(set(run.changes) - set(Recipe.model_fields)):
        hint = nearest(key, {*type(run).model_fields, *Recipe.model_fields})
        if run.peer is None and hint and hint == nearest(key, type(run).model_fields):
            raise ValueError(f"{name!r} has the key {key!r}, which is none of a run{hint}")


def _check_split(suite: Suite, name: str, run: Run) -> None:
    """Refuse a run that would be fitted on another split than it is asked on, or cannot be asked so."""
    usual = suite.data.model_dump()
    said = [changes["data"] for changes in (run.changes, *run.only_on.values()) if "data" in changes]
    other = any(not isinstance(data, Mapping) or not data.items() <= usual.items() for data in said)
    if other or any(key.split(".")[0] == "data" for key in run.choose):
        raise ValueError(f"{name!r} has data settings of its own, but all runs share one split; set data beside runs")
    if any(key.split(".")[0] == "events" for key in run.choose):
        raise ValueError(
            f"{name!r} chooses among settings of events, by which validation would ask for other targets; give each a "
            "run of its own"
        )


def _check_names(suite: Suite, name: str, run: Run) -> None:
    """Refuse names of runs and datasets that there are not."""
    seen, like = {name}, run.like
    while like is not None:
        if like not in suite.runs:
            raise ValueError(f"{name!r} is like {like!r}, which is no run{did_you_mean(like, suite.runs)}")
        if like in seen:
            raise ValueError(f"{name!r} is like itself")
        seen.add(like)
        like = suite.runs[like].like
    for setting, used in ((setting, used) for setting, runs in run.uses.items() for used in runs):
        if used not in suite.runs:
            raise ValueError(f"{name!r} has {used!r} under {setting}, no run{did_you_mean(used, suite.runs)}")
    if strange := sorted(set(run.only_on) - set(suite.datasets)):
        raise ValueError(f"{name!r} has changes for {strange[0]!r}{did_you_mean(strange[0], suite.datasets)}")


def _check_run(suite: Suite, name: str, run: Run) -> None:
    """Refuse what a recommender's run says and nobody would read."""
    if run.recipe is not None and run.like is not None:
        raise ValueError(f"{name!r} has a recipe and is like {run.like!r}, but begins with one of them; leave one out")
    if any("seed" in said for said in (run.changes, run.choose, *run.only_on.values())):
        raise ValueError(f"{name!r} says seed, but a suite fits for each of its seeds; say seeds, here or of all")
    if run.python is not None:
        raise ValueError(f"{name!r} says python, which runs a peer, and names none; leave it out")
    if endless := without_end(run.choose):
        raise ValueError(
            f"{name!r} chooses {endless[0]} from a range without a step, but a suite tries every value; give a step or a "
            "list, or search with diffgrm tune"
        )
    if alike := incomparable(run.choose):
        raise ValueError(f"{name!r} chooses {alike[0]}, but choices that differ in it are not comparable")
    for inner, outer in overlapping(run.choose):
        raise ValueError(f"{name!r} chooses {inner}, which values of {outer} say too; say it under one of both")
    for dataset, changes in {"all datasets": run.changes, **run.only_on}.items():
        if said := [key for key in run.choose if undoes(key, changes)]:
            raise ValueError(f"{name!r} says {said[0]} of {dataset}, and chooses it; leave one out")
    if run.choose and run.like is not None:
        chosen = suite.runs[suite.base(run.like)].choose
        if lost := [key for key in chosen if not _is_said(run, suite.datasets, key)]:
            raise ValueError(
                f"{name!r} chooses for itself, and would lose what is chosen of {lost[0]} for {suite.base(run.like)!r}, "
                "which it is like; choose that too, or leave choose out"
            )


def _is_said(run: Run, datasets: Iterable[str], key: str) -> bool:
    """Whether a run says a dotted setting itself, for all datasets or in all of its choices."""
    steps = split_path(key)
    if holds(run.changes, steps) or all(holds(run.only_on.get(dataset, {}), steps) for dataset in datasets):
        return True
    for chosen, options in run.choose.items():
        inner = key.removeprefix(f"{chosen}.")
        if key == chosen or (
            inner != key and isinstance(options, list) and all(holds(one, split_path(inner)) for one in options)
        ):
            return True
    return False


def _check_keys_of_peer(suite: Suite, name: str, run: Run) -> None:
    """Refuse what a peer's run says and nobody would read, and a peer that cannot be asked so."""
    unread = {"like": run.like, "recipe": run.recipe, "choose": run.choose, **run.uses}
    if said := [key for key, value in unread.items() if value]:
        raise ValueError(f"{name!r} is a peer, which {said[0]} says nothing of; leave it out")
    for key in sorted({*run.changes}.union(*run.only_on.values()) - {*OF_OTHERS}):
        if key == "seed":
            raise ValueError(f"{name!r} says seed, but a suite runs it for each of its seeds; say seeds, here or of all")
        if hint := nearest(key, OF_OTHERS):
            raise ValueError(f"{name!r} has the key {key!r}, which is none of a peer{hint}")
    if suite.data.target == "successive":
        raise ValueError(f"{name!r} is a peer, which makes one list a user; data.target = successive asks for more")


def _problems_of_peer(suite: Suite, name: str, dataset: str) -> list[str]:
    """What is wrong with a peer, a line each."""
    run, problems = suite.runs[name], []
    assert run.peer is not None
    if not suite.path(run.peer).is_file():
        problems.append(f"run {name!r}: there is no script {suite.path(run.peer)}")
    for key, owner in suite.owners(name, dataset).items():
        where = f"run {name!r} has {owner!r} under {key}"
        if owner not in suite.runs:
            problems.append(f"{where}, no run{did_you_mean(owner, suite.runs)}")
        elif suite.runs[owner].peer is not None:
            problems.append(f"{where}, which is a peer itself; name the run of a recommender")
        elif OF_OTHERS[key] not in _sections(suite, owner, dataset):
            problems.append(f"{where}, whose recipe has no section {OF_OTHERS[key]}; name another run")
    try:
        said = suite.events(name, dataset).said
        problems += [
            f"run {name!r} is a peer, which cannot be told {what}; leave events.{key} out"
            for key, what in NOT_OF_PEERS.items()
            if key in said
        ]
    except ValidationError as error:
        problems += [f"run {name!r} on {dataset}: {line}" for line in explained(error)]
    return problems


def _sections(suite: Suite, name: str, dataset: str) -> tuple[str, ...]:
    """The sections of a run's recipe; of a wrong one, which is told itself, all that may be asked for."""
    try:
        return suite.recipe(name, dataset, suite.choices(name)[0], suite.seeds[0]).sections
    except RecipeError:
        return PART_SECTIONS


def _problems_of_uses(suite: Suite, name: str, recipe: Recipe) -> list[str]:
    """What is wrong with the fits of other runs that a run uses, a line each."""
    problems, run = [], suite.runs[name]
    for setting, used in suite.uses(name).items():
        if setting not in recipe.model.options:
            whose = {"members": "ensemble", "backbone": "epic"}[setting]
            problems.append(f"run {name!r} has {setting}, but its recommender knows none; set recommender: {whose}")
        if any(holds(changes, ["model", setting]) for changes in (run.changes, *run.only_on.values())):
            own = setting in run.uses
            told = f"says {setting}" if own else f"is like one that says {setting}; begin with its recipe"
            problems.append(f"run {name!r} says model.{setting} and {told}{'; say one of both' * own}")
        problems += [
            f"run {name!r} has {other!r} under {setting}, which is a peer, uses other runs itself, or is the fit of "
            "another run; name a run that is fitted by itself"
            for other in used
            if suite.runs[other].peer is not None or suite.uses(other) or suite.fitted_by(other) != other
        ]
    return problems
