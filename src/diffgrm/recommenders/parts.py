"""LearntPart: one thing that a recommender learns, keeps and saves; a recommender is a catalogue and a few of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import polars as pl

from diffgrm.data.dataset import Split
from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import DiffGRMError, ModelFolderError, RecipeError

Parts = Mapping[str, "LearntPart"]
Watch = Callable[[int, float], None]
P = TypeVar("P", bound="LearntPart")
Rows = TypeVar("Rows", bound=Sized)


@dataclass(frozen=True)
class Before:
    """A fitted recommender that goes on learning, with all items that it goes on with.

    Attributes:
        parts: what it has learnt, new items among theirs.
        item_counts: [I] training events of every item, where what was learnt of them lasts; 0 of new items.
    """

    parts: Parts
    item_counts: np.ndarray


@dataclass(frozen=True)
class FitTask:
    """What is to be learnt from.

    Attributes:
        split: training, validation and test events; parts learn from the first and choose by the second.
        parts: all parts of the recommender; those before the one that learns are fitted.
        facts: what the model card tells; parts add theirs.
        run_folder: for checkpoints and logs; None: a temporary one.
        resume: go on from the last checkpoint.
        progress: show progress bars.
        watch: told the epoch and the score of every validation; of what is fitted first, it is told nothing.
        before: what is gone on from; None: nothing is.
        overrides: settings that an update was told, for what goes on inside of a part by a recipe of its own.
    """

    recipe: Recipe
    split: Split
    parts: Parts
    facts: dict[str, Any]
    run_folder: Path | None
    resume: bool
    progress: bool
    watch: Watch | None = None
    before: Before | None = None
    overrides: tuple[str, ...] = ()

    @cached_property
    def item_counts(self) -> np.ndarray:
        """[I] training events of every item; of one without any here, those that it was learnt from before."""
        counts = self.split.item_counts
        return counts if self.before is None else np.where(counts > 0, counts, self.before.item_counts)


@dataclass(frozen=True)
class ItemChange:
    """Items that come, or whose rows change.

    Attributes:
        rows: N rows of the item table, in order of their ids.
        positions: [N] where they stand.
        given: [N] where they stood in the table that was given.
        new: whether they come, behind those that are there.
        parts: of the recommender before the change.
        made: what parts made of the rows for each other, by name.
    """

    rows: pl.DataFrame
    positions: np.ndarray
    given: np.ndarray
    new: bool
    parts: Parts
    made: dict[str, np.ndarray] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What several parts need of the rows, made for the first that asks."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]


@dataclass(frozen=True)
class Beside:
    """What was read of a model folder before a part, which has to go with it.

    Attributes:
        parts: of the recommender that are read already.
    """

    n_items: int
    parts: Parts


class LearntPart:
    """Something learnt. Changes give a new part and leave this one, so that readers of it are not disturbed.

    Attributes:
        remembers: whether what it has learnt of an item lasts where it goes on with other events.
        reads_context: whether it is told of times, and of columns of events and users, where the recipe says so.
        trains: whether it keeps checkpoints in the run folder, in which no other fit may be at work then.
        recommendable: [I] bool, what fitted recommenders that it is made of recommend; None: all.
    """

    remembers: ClassVar[bool] = False
    reads_context: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    recommendable: np.ndarray | None = None

    @property
    def counts_events(self) -> bool:
        """Whether it counts events, so that going on forgets those that it is not given again."""
        return False

    def check(self, task: FitTask) -> None:
        """Complain of what stands in the way, before any part learns."""

    def fit(self, task: FitTask) -> None:
        """Learn."""

    def fitted(self) -> None:
        """Told that all parts have learnt: what only served them may go."""

    def check_more(self, task: FitTask) -> None:
        """Complain of what stands in the way of going on, before any part does.

        Raises:
            DiffGRMError: it cannot go on.
        """
        if type(self).fit_more is LearntPart.fit_more:
            raise DiffGRMError(
                f"the recommender {task.recipe.recommender!r} cannot go on learning, since its {type(self).__name__} "
                "cannot; fit it anew on all events"
            )

    def before_items(self, task: FitTask) -> Self:
        """The part before the items of an update come to it: what tells where they belong has gone on learning."""
        return self

    def fit_more(self, task: FitTask) -> Self:
        """The part that has gone on learning, or counted anew; this one is for the items of the task already."""
        raise NotImplementedError

    def counted_anew(self, task: FitTask) -> Self:
        """A part of this kind, fitted on the events of a task alone: how counts go on."""
        anew = type(self)()
        anew.fit(task)
        return anew

    def items_changed(self, change: ItemChange) -> Self:
        """The part for a catalogue with other items; nothing is trained."""
        return self

    def recipe_changed(self, recipe: Recipe) -> Self:
        """The part under another recipe, of which only settings differ that fitting has not used up."""
        return self

    def to(self, device: str, precision: Literal["32", "bf16"]) -> Self:
        """The part with what computes moved to a device; see ``Recommender.to``."""
        return self

    def compile(self) -> bool:
        """Compile what can be compiled; whether there was any."""
        return False

    def save(self, folder: Path) -> None:
        """Write the part's own files."""

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """Read them, as written under a recipe, and refuse what does not go with what was read before."""


def of_all_items(rows: Rows, n_items: int, path: Path) -> Rows:
    """What a file holds of every item.

    Raises:
        ModelFolderError: it has another number of rows than there are items.
    """
    if len(rows) != n_items:
        raise ModelFolderError(f"{path} has {len(rows)} rows, but there are {n_items} items")
    return rows


def check_model(recipe: Recipe, *needed: str) -> None:
    """Refuse a model that a recommender cannot use, before anything is made for it.

    Args:
        needed: methods that are asked for.

    Raises:
        RecipeError: some are missing.
    """
    name = recipe.model.name
    if missing := [method for method in needed if not hasattr(registry.resolve("model", name), method)]:
        raise RecipeError(
            f"the recommender {recipe.recommender!r} needs a model with {', '.join(needed)}; {name!r} has no "
            f"{', '.join(missing)}; leave model.name out"
        )


def part_of(parts: Parts, name: str, kind: type[P]) -> P:
    """A part by its name, as what it is.

    Raises:
        DiffGRMError: there is none of that name.
    """
    if (part := parts.get(name)) is None:
        raise DiffGRMError(f"nothing is learnt of {name!r}: not fitted, or by a method that does without")
    assert isinstance(part, kind), f"{name} is a {type(part).__name__}"
    return part
