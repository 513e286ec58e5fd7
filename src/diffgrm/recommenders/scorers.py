"""The scorers of whole items, and from whom new items borrow, as a learnt part."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Self

from diffgrm.foundation.parts import ItemScoring
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.base import Scorer
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.recommenders.parts import FitTask, ItemChange, LearntPart, SavedModel, of_all_items, part_of
from diffgrm.recommenders.texts import TextVectors, text_vectors

NEIGHBOURS = "text_neighbours.safetensors"


class ItemScorers(LearntPart):
    """What the recipe's ``item_scoring`` names, fitted on the training events; the network scores by itself."""

    def __init__(self) -> None:
        self.neighbours: TextNeighbours | None = None
        self.scorers: dict[str, Scorer] = {}

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        events, n_items = task.split.train, task.split.dataset.n_items
        texts = part_of(task.parts, "texts", TextVectors)
        self.neighbours = TextNeighbours.fit(events, n_items, texts.vectors if texts.kept else None)
        self.scorers = {name: part.build().fit(events, n_items) for name, part in task.recipe.item_scoring.scorers.items()}

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`."""
        assert self.neighbours is not None
        changed, before = copy.copy(self), part_of(change.parts, "texts", TextVectors)
        if change.new:
            changed.neighbours = self.neighbours.grown(text_vectors(change), before.vectors)
        elif before.vectors is not None:
            texts = before.items_changed(change).vectors
            assert texts is not None
            changed.neighbours = self.neighbours.changed(change.positions, text_vectors(change), texts)
        neighbours = changed.neighbours
        assert neighbours is not None
        changed.scorers = {name: scorer.items_changed(neighbours) for name, scorer in self.scorers.items()}
        return changed

    def recipe_changed(self, recipe: Recipe) -> Self:
        """See :meth:`LearntPart.recipe_changed`; what each scorer has learnt stays."""
        changed = copy.copy(self)
        changed.scorers = {}
        for name, part in recipe.item_scoring.scorers.items():
            state, scorer = self.scorers[name].state(), part.build()
            changed.scorers[name] = scorer if state is None else scorer.load_state(state)
        return changed

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        assert self.neighbours is not None
        self.neighbours.state().save(folder / NEIGHBOURS)
        for name, scorer in self.scorers.items():
            if (state := scorer.state()) is not None:
                state.save(folder / scorer_file(name))

    def load(self, saved: SavedModel) -> None:
        """See :meth:`LearntPart.load`."""
        self.read(saved.folder, saved.recipe.item_scoring, len(saved.item_counts))

    def read(self, folder: Path, scoring: ItemScoring, n_items: int) -> None:
        """Read what :meth:`save` wrote for the scorers of a recipe and so many items.

        Raises:
            ModelFolderError: files that are damaged, or do not go with one another.
        """
        self.neighbours = TextNeighbours.of_state(State.load(folder / NEIGHBOURS))
        of_all_items(self.neighbours.has_events, n_items, folder / NEIGHBOURS)
        for name, part in scoring.scorers.items():
            scorer, path = part.build(), folder / scorer_file(name)
            if path.exists() or type(scorer).load_state is not Scorer.load_state:
                state = State.load(path)
                if state.facts.get("items", self.neighbours.n_fitted) != self.neighbours.n_fitted:
                    raise ModelFolderError(
                        f"{path} is about {state.facts['items']} items, but {self.neighbours.n_fitted} were there at fit"
                    )
                scorer.load_state(state)
            self.scorers[name] = scorer


def scorer_file(name: str) -> str:
    """The file of what a scorer has learnt.

    >>> scorer_file("my_lab.scorers:Mine")
    'scorer-my_lab.scorers-Mine.safetensors'
    """
    return f"scorer-{name.replace(':', '-')}.safetensors"
