"""Going on learning: a fitted recommender, later events and items, and a new recommender that continues from its weights.

Nothing of the old recommender changes, so that a failure or a kill leaves it as it was.
"""

from __future__ import annotations

import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from diffgrm.data.context import EVENTS_FROM, check_clock
from diffgrm.data.dataset import EvaluationSet, InteractionDataset, Ragged, Split
from diffgrm.evaluation.seen_targets import warn_of_seen
from diffgrm.foundation.overrides import apply_overrides
from diffgrm.foundation.recipe import Recipe, explained
from diffgrm.foundation.schema import DataError, RecipeError, bullet_list, first_few
from diffgrm.foundation.sections import DataSettings, UpdateSettings
from diffgrm.foundation.storage import digest
from diffgrm.recommenders.fitting import Learnt, facts_at_end, facts_of, held_run, split_of
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.parts import Before, FitTask, ItemChange, LearntPart, Parts

logger = logging.getLogger(__name__)

KEPT_FACTS = ("tokenizer_report", "catalogue_version")  # of what is not learnt anew


class _Said(BaseModel):
    """The sections that overrides of an update may name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataSettings
    training: UpdateSettings


class GoesOn(ABC):
    """``fit_more``, for what has parts, a catalogue and facts."""

    recipe: Recipe
    parts: dict[str, LearntPart]
    facts: dict[str, Any]
    _fitted_split: Split | None

    @property
    @abstractmethod
    def catalogue(self) -> ItemCatalogue:
        """The items that are known."""

    @property
    def counts_events(self) -> bool:
        """Whether something is counted of events, and so counted anew when the recommender goes on learning."""
        return any(part.counts_events for part in self.parts.values())

    @abstractmethod
    def take(self, parts: dict[str, LearntPart], catalogue: ItemCatalogue, facts: dict[str, Any]) -> None:
        """Go over to learnt parts, their catalogue, and what their fit noted."""

    def fit_more(
        self,
        dataset: InteractionDataset | Split,
        *,
        overrides: Iterable[str] = (),
        run_folder: str | Path | None = None,
        progress: bool = True,
    ) -> Self:
        """A recommender that has gone on learning from this one; this one stays as it is.

        Learnt weights continue in a short training: a third of the recipe's epochs, with its learning rate and a tenth of
        its warm-up. Validation on the new split chooses the epoch, and the weights as they were count as one,
        so that training makes nothing worse by that. Texts and semantic IDs of known items stay; new items come as by
        :meth:`add_items`, and their ID embeddings begin at those of the items of nearest text. An item scorer that the
        embedding is made of goes on before that, in the same way, and says where new items belong. What is counted
        (co-occurrence, neighbours, transitions, popularity) is counted anew, from this dataset alone; where that has fewer
        training events than were learnt from before, there is a warning.

        Args:
            dataset: what to learn from now: best all events that are known, old and new, or the later part of them; it is
                split as the recipe says. Items of the model that it lacks stay; rows of those that it has are as they were
                (:meth:`update_items` changes them).
            overrides: settings of the update, such as ``["training.epochs=1"]`` (0: only items and counts) or
                ``["training.learning_rate=1e-4"]``, which the recipe of the model does not keep; or of ``data``, which it
                does.
            run_folder: see :meth:`fit`; an update cannot be resumed, so that a folder with checkpoints is refused.
            progress: see :meth:`fit`.

        Raises:
            DataError: data that cannot be split or learnt from, of another catalogue, or that was read otherwise.
            RecipeError: another split, or overrides of what the first fit used up.
            DiffGRMError: not fitted, or a method that cannot go on.
        """
        folder = Path(run_folder) if run_folder is not None else None
        done = update(
            self.recipe, self.parts, self.catalogue, self.facts, dataset, overrides, folder, progress, self.counts_events
        )
        more = copy.copy(self)
        more.recipe, more._fitted_split = done.recipe, done.learnt.split
        more.take(done.parts, done.learnt.catalogue, done.learnt.facts)
        return more


class Update(NamedTuple):
    """What an update leads to: the recipe that is kept, the parts, and what a fit leaves besides."""

    recipe: Recipe
    parts: dict[str, LearntPart]
    learnt: Learnt


def update(
    recipe: Recipe,
    parts: Parts,
    catalogue: ItemCatalogue,
    facts: dict[str, Any],
    dataset: InteractionDataset | Split,
    overrides: Iterable[str],
    run_folder: Path | None,
    progress: bool,
    counts_events: bool,
) -> Update:
    """Go on from fitted parts; see ``Recommender.fit_more``."""
    started = time.perf_counter()
    kept, asked = asked_of(recipe, parts, dataset, overrides, run_folder, progress)
    lasts = any(part.remembers for part in parts.values())
    known = catalogue if lasts else replace(catalogue, counts=np.zeros_like(catalogue.counts))
    grown, new = with_items_of(known, asked.split.dataset)
    check_clock(asked.split.dataset.events.marks.times, recipe.events, facts.get(EVENTS_FROM))
    given, split = asked.split.fingerprint, renumbered(asked.split, grown)
    told = facts_of(split)
    if counts_events:
        _warn_of_fewer(facts["training_events"], told["training_events"])
    warn_of_seen(split.validation, "validation")
    asked = replace(asked, split=split, facts=told)
    with held_run(asked):
        parts = {name: part.before_items(asked) for name, part in parts.items()}
        if new is not None:
            change = ItemChange(*new, True, parts)
            parts = {name: part.items_changed(change) for name, part in parts.items()}
        more = dict(parts)
        task = replace(asked, parts=more, before=Before(parts, grown.counts))
        for name, part in parts.items():
            more[name] = part.fit_more(task)
    came = len(grown.ids) - len(known.ids)
    told |= {key: facts[key] for key in KEPT_FACTS if key in facts} | _went_on(facts, told, given, came)
    told.pop("earlier_seconds", None)
    told |= facts_at_end(time.perf_counter() - started)
    return Update(kept, more, Learnt(replace(grown, counts=task.item_counts), told, split))


def _warn_of_fewer(before: int, now: int) -> None:
    """Say that counts forget what they are not given again."""
    if now < before:
        logger.warning(
            "co-occurrence, neighbours, transitions and popularity are counted anew, of these %d training events alone; "
            "the model had learnt from %d: give all events so far, old and new, where the old ones still count",
            now,
            before,
        )


def asked_of(
    recipe: Recipe,
    parts: Parts,
    dataset: InteractionDataset | Split,
    overrides: Iterable[str],
    run_folder: Path | None,
    progress: bool,
) -> tuple[Recipe, FitTask]:
    """The recipe that an update keeps, and its task, where nothing stands in the way; nothing is learnt yet.

    Raises:
        DiffGRMError: see ``Recommender.fit_more``.
    """
    overrides = tuple(overrides)
    shortened = shortened_recipe(recipe, overrides)
    kept = recipe.model_copy(update={"data": shortened.data})
    task = FitTask(shortened, split_of(kept, dataset), parts, {}, run_folder, False, progress, overrides=overrides)
    for part in parts.values():
        part.check_more(task)
    return kept, task


def shortened_recipe(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe by which a fitted model goes on: a third of the epochs, a tenth of the warm-up.

    Args:
        overrides: of ``training`` (of the update alone), or of ``data`` (such as a cut in time, which the model keeps).

    Raises:
        RecipeError: other settings, wrong ones, or those that do nothing.
    """
    overrides, used = list(overrides), [name for name in ("training", "data") if name in recipe.sections]
    if other := [text for text in overrides if text.partition(".")[0] not in used]:
        raise RecipeError(
            f"going on learning with the recommender {recipe.recommender!r} takes settings of {' and '.join(used)} only, "
            f"not {first_few(other)}; fit anew to change others"
        )
    usual = {"data": recipe.data.model_dump(), "training": UpdateSettings.shortened(recipe.training)}
    try:
        said = _Said.model_validate(apply_overrides(usual, overrides))
    except ValidationError as error:
        raise RecipeError("the settings of the update have problems:\n" + bullet_list(explained(error))) from None
    changed = recipe.model_copy(update={"data": said.data, "training": said.training})
    changed.refuse_idle()
    return changed


class NewItems(NamedTuple):
    """Items that come: rows, positions and where they stood, as in :class:`ItemChange`."""

    rows: pl.DataFrame
    positions: np.ndarray
    given: np.ndarray


def with_items_of(catalogue: ItemCatalogue, dataset: InteractionDataset) -> tuple[ItemCatalogue, NewItems | None]:
    """The catalogue with the items of a dataset that it lacks, behind its own; None: it lacks none.

    Rows of items that it has stay as they are, and so do items that the dataset lacks.

    Raises:
        DataError: the dataset has none of its items, or item rows that do not go with its table.
    """
    unknown = catalogue.ids.positions(dataset.items.series) < 0
    if unknown.all():
        raise DataError(
            f"none of the {dataset.n_items} items of the dataset is among the {len(catalogue.ids)} of the model: "
            f"{first_few(map(repr, dataset.items.series))} there, {first_few(map(repr, catalogue.ids.series))} here; go on "
            "with tables of the same shop, or fit a model of its own"
        )
    if not unknown.any():
        return catalogue, None
    new = np.flatnonzero(unknown)
    catalogue, rows, positions, order = catalogue.with_new(dataset.item_table[new])
    given = new[order] if dataset.given is None else dataset.given[new[order]]
    return catalogue, NewItems(rows, positions, given)


def renumbered(split: Split, catalogue: ItemCatalogue) -> Split:
    """A split in which items have the positions of a catalogue that knows them all."""
    dataset = split.dataset
    position = catalogue.ids.positions(dataset.items.series)

    def moved(rows: Ragged) -> Ragged:
        return rows.by_blocks(lambda block: replace(block, values=position[block.values]))

    def asked(users: EvaluationSet) -> EvaluationSet:
        return replace(users, histories=moved(users.histories), targets=moved(users.targets))

    events = moved(dataset.events)
    dataset = replace(dataset, items=catalogue.ids, item_table=catalogue.table, events=events, given=None)
    return replace(
        split, dataset=dataset, train=moved(split.train), validation=asked(split.validation), test=asked(split.test)
    )


def _went_on(facts: dict[str, Any], told: dict[str, Any], split: str, came: int) -> dict[str, Any]:
    """What the model card tells of the model that was gone on from.

    What was learnt from is all events so far, so that the fingerprint is that of no split alone: a model that goes on may
    have learnt from what a split holds out. ``one_split`` says that it has not: each time it learnt from this one.

    Args:
        split: fingerprint of the split that it went on with, as its tables give it.
    """
    before = facts.get("training_fingerprint", "")
    earlier = facts.get("went_on", {"split": before, "one_split": True})
    found: dict[str, Any] = {
        "training_fingerprint": digest([before, told["training_fingerprint"]]),
        "went_on": {
            "times": facts.get("went_on", {}).get("times", 0) + 1,
            "fingerprint": before,
            "fitted_at": facts["fitted_at"],
            "training_events": facts["training_events"],
            "new_items": came,
            "split": split,
            "one_split": earlier.get("one_split") is True and earlier.get("split") == split,
        },
    }
    if came:
        found["catalogue_version"] = facts.get("catalogue_version", 0) + 1
    return found
