"""The scorers of items, and from whom new items borrow, as a learnt part."""

from __future__ import annotations

import copy
import math
from numbers import Integral, Real
from pathlib import Path
from typing import Self

import numpy as np

from diffgrm.foundation.parts import ItemScoring
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError, RecipeError, bullet_list
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.base import Rescorer, Scorer
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.recommenders.parts import Beside, FitTask, ItemChange, LearntPart, of_all_items, part_of
from diffgrm.recommenders.texts import TextVectors, all_text_vectors, text_vectors

NEIGHBOURS = "text_neighbours.safetensors"


class ItemScorers(LearntPart):
    """What the recipe's ``item_scoring`` names, fitted on the training events; the network scores by itself.

    Attributes:
        neighbours: there once it is fitted or loaded.
        scorers: by name.
    """

    neighbours: TextNeighbours

    def __init__(self) -> None:
        self.scorers: dict[str, Scorer] = {}
        self._new: dict[str, Scorer] = {}  # not yet fitted

    @property
    def counts_events(self) -> bool:
        """See :meth:`LearntPart.counts_events`; scorers that learn something do."""
        return any(scorer.weight and scorer.state() is not None for scorer in self.scorers.values())

    def check(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check`; scorers are made, and fitted later.

        Raises:
            RecipeError: one lacks what the sum asks of all of them.
        """
        self._new = built(task.recipe.item_scoring)

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        events, n_items = task.split.train, task.split.dataset.n_items
        texts = part_of(task.parts, "texts", TextVectors)
        self.neighbours = TextNeighbours.fit(events, n_items, texts.vectors if texts.kept else None)
        self.scorers = weighed({name: new.fit(events, n_items) for name, new in self._new.items()})

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; scorers count anew. Items that had events go on to borrow from nobody."""
        more, events, n_items = copy.copy(self), task.split.train, task.split.dataset.n_items
        texts = part_of(task.parts, "texts", TextVectors)
        has_events = self.neighbours.has_events | (np.bincount(events.values, minlength=n_items) > 0)
        more.neighbours = TextNeighbours.of(has_events, texts.vectors if texts.kept else None)
        made = built(task.recipe.item_scoring)
        more.scorers = weighed({name: new.fit(events, n_items) for name, new in made.items()})
        return more

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`."""
        changed, before = copy.copy(self), part_of(change.parts, "texts", TextVectors)
        if change.new:
            changed.neighbours = self.neighbours.grown(text_vectors(change), before.vectors)
        elif before.vectors is not None:
            changed.neighbours = self.neighbours.changed(change.positions, text_vectors(change), all_text_vectors(change))
        changed.scorers = {name: scorer.items_changed(changed.neighbours) for name, scorer in self.scorers.items()}
        return changed

    def recipe_changed(self, recipe: Recipe) -> Self:
        """See :meth:`LearntPart.recipe_changed`; what each scorer has learnt stays.

        Raises:
            RecipeError: scorers that were not there at fit.
        """
        if unknown := [name for name in recipe.item_scoring.scorers if name not in self.scorers]:
            raise RecipeError(
                f"item_scoring.{unknown[0]} was left out at fit, so that nothing was learnt for it; this model has "
                f"{', '.join(self.scorers) or 'no scorers'}; fit again with item_scoring.{unknown[0]}={{}}"
            )
        changed = copy.copy(self)
        changed.scorers = {}
        for name, scorer in built(recipe.item_scoring).items():
            state = self.scorers[name].state()
            changed.scorers[name] = scorer if state is None else scorer.load_state(state)
        weighed(changed.scorers)
        return changed

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        self.neighbours.state().save(folder / NEIGHBOURS)
        for name, scorer in self.scorers.items():
            if (state := scorer.state()) is not None:
                state.save(folder / scorer_file(name))

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        self.read(folder, recipe.item_scoring, beside.n_items)

    def read(self, folder: Path, scoring: ItemScoring, n_items: int) -> None:
        """Read what :meth:`save` wrote for the scorers of a recipe and so many items.

        Raises:
            ModelFolderError: files that are damaged, or do not go with one another.
        """
        self.neighbours = TextNeighbours.of_state(State.load(folder / NEIGHBOURS))
        of_all_items(self.neighbours.has_events, n_items, folder / NEIGHBOURS)
        for name, scorer in built(scoring).items():
            path = folder / scorer_file(name)
            if path.exists() or type(scorer).load_state is not Scorer.load_state:
                state = State.load(path)
                if state.facts.get("items", self.neighbours.n_fitted) != self.neighbours.n_fitted:
                    raise ModelFolderError(
                        f"{path} is about {state.facts['items']} items, but {self.neighbours.n_fitted} were there at fit"
                    )
                scorer.load_state(state)
            self.scorers[name] = scorer
        weighed(self.scorers)


def built(scoring: ItemScoring) -> dict[str, Scorer]:
    """Scorers by name, not yet fitted.

    Raises:
        RecipeError: one lacks what the sum asks of it, but for a weight that it may learn; with all that is missing.
    """
    scorers: dict[str, Scorer] = {name: part.build() for name, part in scoring.scorers.items()}
    _refuse({name: _no_candidates(new) or ("" if _learns(new) else _no_weight(new)) for name, new in scorers.items()})
    return scorers


def weighed(scorers: dict[str, Scorer]) -> dict[str, Scorer]:
    """Scorers that are fitted or loaded, each of which says what it counts for.

    Raises:
        RecipeError: one does not.
    """
    _refuse({name: _no_weight(scorer) for name, scorer in scorers.items()})
    return scorers


def _refuse(lacks: dict[str, str]) -> None:
    if problems := [f"item_scoring.{name} {lack}" for name, lack in lacks.items() if lack]:
        raise RecipeError("the recipe has problems:\n" + bullet_list(problems))


def _learns(scorer: Scorer) -> bool:
    """Whether a scorer takes anything from events or from a file, and so perhaps what it counts for."""
    return any(getattr(type(scorer), name) is not getattr(Scorer, name) for name in ("fit", "load_state"))


def _no_weight(scorer: Scorer) -> str:
    """What is wrong with a scorer's weight; empty where nothing is."""
    weight = getattr(scorer, "weight", None)
    if isinstance(weight, Real) and not isinstance(weight, bool) and math.isfinite(weight):
        return ""
    return (
        f"must have weight, the finite number that its scores count for in the sum, found {weight!r}; set self.weight in "
        "its constructor, or where it learns"
    )


def _no_candidates(scorer: Scorer) -> str:
    """What is wrong with the number of candidates of a second look; empty where nothing is."""
    candidates = getattr(scorer, "candidates", None)
    if not isinstance(scorer, Rescorer):
        return ""
    if isinstance(candidates, Integral) and not isinstance(candidates, bool) and int(candidates) > 0:
        return ""
    return (
        "must have candidates, the number of best items of each user that it looks at again, 1 or more, found "
        f"{candidates!r}; set self.candidates in its constructor"
    )


def scorer_file(name: str) -> str:
    """The file of what a scorer has learnt.

    >>> scorer_file("my_lab.scorers:Mine")
    'scorer-my_lab.scorers-Mine.safetensors'
    """
    return f"scorer-{name.replace(':', '-')}.safetensors"
