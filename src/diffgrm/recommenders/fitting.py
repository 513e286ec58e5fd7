"""How every recommender learns: the split, its parts one after the other, and what the model card tells of it."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffgrm.data.context import EVENTS_FROM
from diffgrm.data.dataset import InteractionDataset, Split
from diffgrm.data.splits import make_split
from diffgrm.evaluation.seen_targets import warn_of_seen
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.outputs import held_folder
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.run_folder import LAST, LOCK, holds_checkpoint
from diffgrm.foundation.schema import DataError, RecipeError, TrainingError, bullet_list
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.parts import FitTask, Parts, Watch


class Learnt(NamedTuple):
    """What fitting leaves besides the parts: the items, what the model card tells, and what was learnt from."""

    catalogue: ItemCatalogue
    facts: dict[str, Any]
    split: Split


def learn(
    recipe: Recipe,
    parts: Parts,
    dataset: InteractionDataset | Split,
    run_folder: Path | None,
    resume: bool,
    progress: bool,
    watch: Watch | None = None,
) -> Learnt:
    """Fit the parts of a recommender, one after the other; see ``Recommender.fit``."""
    split = split_of(recipe, dataset)
    warn_of_seen(split.validation, "validation")
    return learn_from(split, recipe, parts, run_folder, resume, progress, watch)


def split_of(recipe: Recipe, dataset: InteractionDataset | Split) -> Split:
    """The recipe's split of a dataset, or one that is made already.

    Raises:
        DataError: a dataset that was read otherwise than the recipe says, or cannot be split so.
        RecipeError: another split.
    """
    data, split = recipe.data, dataset
    _check_read_alike(recipe.events, (split.dataset if isinstance(split, Split) else split).event_settings)
    if isinstance(split, InteractionDataset):
        return make_split(split, data)
    if split.name != data.split:
        raise RecipeError(
            f"the recipe says data.split={data.split}, but this is a {split.name} split; let both be the same"
        )
    return split


def _check_read_alike(wanted: EventSettings, found: EventSettings) -> None:
    """Refuse a dataset that was read otherwise than the recipe says, which is how histories will be read.

    Raises:
        DataError: with every setting that differs.
    """
    told, had = wanted.model_dump(), found.model_dump()
    if unlike := [
        f"events.{key} is {told[key]} in the recipe, the dataset was read with {had[key]}"
        for key in told
        if told[key] != had[key]
    ]:
        raise DataError(
            f"the dataset was read otherwise than the recipe says:\n{bullet_list(unlike)}\nRead it with "
            "InteractionDataset.from_tables(interactions, items, events=recipe.events), or write the same into the recipe."
        )


def learn_from(
    split: Split,
    recipe: Recipe,
    parts: Parts,
    run_folder: Path | None,
    resume: bool,
    progress: bool,
    watch: Watch | None = None,
) -> Learnt:
    """The same from a split that is made already, of whatever kind."""
    _check_resume(run_folder, resume)
    started, dataset, facts = time.perf_counter(), split.dataset, facts_of(split)
    task = FitTask(recipe, split, parts, facts, run_folder, resume, progress, watch)
    check_context(recipe, parts)
    for part in parts.values():
        part.check(task)
    with held_run(task):
        for part in parts.values():
            part.fit(task)
    for part in parts.values():
        part.fitted()
    facts |= facts_at_end(facts.pop("earlier_seconds", 0) + time.perf_counter() - started)
    taken_over = [part.recommendable for part in parts.values() if part.recommendable is not None]
    recommendable = np.logical_and.reduce(taken_over) if taken_over else None
    return Learnt(ItemCatalogue(dataset.items, dataset.item_table, split.item_counts, recommendable), facts, split)


@contextmanager
def held_run(task: FitTask) -> Iterator[None]:
    """Let no other fit be at work in the run folder of a task, where something is trained in it.

    Of several processes that train together, the first one holds it. That is known once the parts have checked the devices.

    Raises:
        DataError: another fit is at work there.
    """
    if task.run_folder is None or not any(part.trains for part in task.parts.values()):
        yield
        return
    from diffgrm.learning.machine import is_first_process  # which needs PyTorch

    with held_folder(task.run_folder, LOCK, "fit") if is_first_process() else nullcontext():
        yield


def _check_resume(run_folder: Path | None, resume: bool) -> None:
    """Refuse to go on where nothing was begun, before anything is learnt.

    Raises:
        TrainingError: no run folder, or one without a checkpoint.
    """
    if not resume:
        return
    if run_folder is None:
        raise TrainingError("cannot resume: no run folder is named; pass run_folder= with the one that was begun in")
    if not holds_checkpoint(run_folder):
        raise TrainingError(f"cannot resume: there is no checkpoint {run_folder / LAST}; start without resume")


def check_context(recipe: Recipe, parts: Parts) -> None:
    """Refuse to tell of times and columns where nothing would be told of them.

    Raises:
        RecipeError: no part reads them.
    """
    said = recipe.events.model_dump(include={"time_inputs", "event_columns", "user_columns"})
    if recipe.events.tells_context and not any(part.reads_context for part in parts.values()):
        idle = [f"events.{key}" for key, value in said.items() if value]
        raise RecipeError(
            f"the recommender {recipe.recommender!r} knows of no times and of no columns of events or users, so that "
            f"{', '.join(idle)} would do nothing; leave it out, or choose a recommender with a network"
        )


def facts_of(split: Split) -> dict[str, Any]:
    """What the model card tells of what is learnt from."""
    dataset = split.dataset
    return {
        "dataset": dataset.name,
        "users": dataset.n_users,
        "items": dataset.n_items,
        "events": len(dataset.events.values),
        "training_events": len(split.train.values),
        "training_fingerprint": split.fingerprint,
        **({} if dataset.report is None else {"reading": str(dataset.report)}),
        "split": split.name,
        **({"held_out": split.facts} if split.facts else {}),
        **({} if (times := dataset.events.marks.times) is None else {EVENTS_FROM: int(times.min())}),
    }


def facts_at_end(seconds: float) -> dict[str, Any]:
    """What the model card tells of when and where it was learnt."""
    return {
        "fit_seconds": round(seconds, 1),
        "fitted_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": {package: _version(package) for package in ("diffgrm", "torch", "faiss-cpu", "polars")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree, or a build of another name
        return "unknown"
