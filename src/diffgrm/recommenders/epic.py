"""EPIC as a recommender (arXiv 2609.03522): a fitted network over semantic IDs stays as it is, and a posterior over items
that steers it is learnt in a second, short training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from torch import nn

from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.run_folder import holds_checkpoint
from diffgrm.foundation.schema import ModelFolderError, RecipeError
from diffgrm.foundation.storage import State
from diffgrm.networks.contracts import DenoisesByStates, SteersDigits, lacks
from diffgrm.networks.epic import Epic
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.recommenders import inner, packing
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.checks import check_recipe
from diffgrm.recommenders.diffgrm import DiffGRMRecommender
from diffgrm.recommenders.generative import GenerativeRecommender
from diffgrm.recommenders.parts import Beside, FitTask, ItemChange, LearntPart, Parts, check_model, part_of
from diffgrm.recommenders.trained_network import TrainedNetwork, network_of, planned_network
from diffgrm.semantic_ids.semantic_ids import EXTRA

BACKBONE = "backbone.safetensors"


class Backbone(LearntPart):
    """The recommender whose network is steered, read from its folder or fitted first, on the same training events.

    Attributes:
        recommender: there once it is fitted or loaded; its texts, semantic IDs and network are those of the whole.
    """

    recommender: GenerativeRecommender

    def check(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check`; a folder is read, and a recipe of what is fitted first is checked.

        Raises:
            DataError: a folder that holds no model, or one that was fitted on other events or items.
            RecipeError: one that cannot be steered.
        """
        named, setting = task.recipe.model.options["backbone"], "model.backbone"
        if named is None:
            raise RecipeError(
                "model.backbone is null, which says that a saved model holds it; name the folder of a fitted recommender, "
                "or a recipe, to fit this one"
            )
        if isinstance(named, str):
            found = inner.read(Path(named), task.split, setting)
            self.recommendable = inner.taken_over([found])
        else:
            found = inner.planned(named, task.recipe, setting)
        if problem := _unsteerable(found):
            raise RecipeError(f"model.backbone: {problem}")
        assert isinstance(found, GenerativeRecommender)
        self.recommender = found

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        if not isinstance(task.recipe.model.options["backbone"], str):
            folder = None if task.run_folder is None else task.run_folder / "backbone"
            resume = task.resume and folder is not None and holds_checkpoint(folder)
            self.recommender.fit(task.split, run_folder=folder, resume=resume, progress=task.progress)
        task.facts["backbone"] = self.recommender.recipe.model.name
        if (report := self.recommender.facts.get("tokenizer_report")) is not None:
            task.facts["tokenizer_report"] = report

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`."""
        before, changed = self.recommender, copy.copy(self)
        changed.recommender = before.add_items(change.rows) if change.new else before.update_items(change.rows, "move")
        return changed

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`: a whole copy."""
        State(packing.packed(self.recommender)).save(folder / BACKBONE)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load` and :func:`diffgrm.recommenders.inner.loaded`."""
        path = folder / BACKBONE
        found = inner.loaded(path, beside.n_items)
        if problem := _unsteerable(found):
            raise ModelFolderError(f"{path}: {problem}")
        assert isinstance(found, GenerativeRecommender)
        self.recommender = found


class SteeringNetwork(TrainedNetwork):
    """What steers the backbone's network, trained for the recipe's objective.

    Args:
        checks: told n digits and I items; they refuse sizes that decoders and schedules cannot work with.
    """

    def __init__(self, checks: tuple[Callable[[int, int], None], ...] = ()) -> None:
        super().__init__()
        self.checks = checks

    def check(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check`."""
        backbone = _backbone(task.parts)
        n_digits = backbone.recipe.tokenizer.build(seed=task.recipe.seed).n_digits
        n_digits += backbone.recipe.semantic_ids.collisions == EXTRA
        for check in self.checks:
            check(n_digits, task.split.dataset.n_items)
        self.given = {"frozen": planned_network(backbone.recipe)}
        super().check(replace(task, parts=_ingredients(task.parts, self)))
        decoder: type[Decoder] = registry.resolve("decoding", task.recipe.decoding.name)
        if SteersDigits not in decoder.needs:
            raise RecipeError(
                f"decoding {task.recipe.decoding.name!r} ranks by the backbone alone, so that validation could choose "
                "nothing; fit with decoding.name=learnt_item_posterior, and change it afterwards"
            )

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`; the backbone's network is not trained."""
        self.given = {"frozen": network_of(_backbone(task.parts).parts).network}
        super().fit(replace(task, parts=_ingredients(task.parts, self)))
        self.network.requires_grad_(True)  # as after loading: kernels go by it, and the last bits of answers by them

    def _kept(self, network: nn.Module) -> nn.Module:
        """What is learnt here; the backbone is kept by itself."""
        assert isinstance(network, Epic)
        return network.steering

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        self.given = {"frozen": network_of(_backbone(beside.parts).parts).network}
        super().load(folder, recipe, replace(beside, parts=_ingredients(beside.parts, self)))


class EpicRecommender(DiffGRMRecommender):
    """A recommender that denoises digits, steered by a learnt posterior over the items that they lead to.

    Example:
        >>> from diffgrm import Recipe, toy_world
        >>> sizes = {"tokenizer": {"codebook_size": 16}, "training": {"epochs": 1}, "model": {"width": 16}}
        >>> model = {"backbone": {"recommender": "diffgrm", **sizes}, "width": 8}
        >>> recipe = Recipe(recommender="epic", model=model, training={"epochs": 1})
        >>> recommender = EpicRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "epic"
    sections: ClassVar[tuple[str, ...]] = ("model", "objective", "training", "decoding")

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        recipe = self.recipe
        check_model(recipe, "steered")
        check_recipe(recipe)
        checks = [self._decoder().check, recipe.validation_decoder.build(seed=recipe.seed).check]
        if "noising" in recipe.sections:
            checks.append(recipe.noising.build(seed=recipe.seed).check)
        return {"backbone": Backbone(), "network": SteeringNetwork(tuple(checks))}

    @property
    def backbone(self) -> GenerativeRecommender:
        """The recommender whose network is steered."""
        return _backbone(self.parts)

    @property
    def ingredients(self) -> Parts:
        """See :attr:`GenerativeRecommender.ingredients`; the backbone's, but for the network."""
        return _ingredients(self.parts, network_of(self.parts))


def _backbone(parts: Parts) -> GenerativeRecommender:
    return part_of(parts, "backbone", Backbone).recommender


def _ingredients(parts: Parts, network: LearntPart) -> Parts:
    """The parts of the backbone, with another network."""
    backbone = _backbone(parts)
    return {**(backbone.parts or backbone.new_parts()), "network": network}


def _unsteerable(recommender: Recommender) -> str | None:
    """Why a recommender cannot be the backbone; None: it can."""
    recipe, can = recommender.recipe, "choose recommender=diffgrm with model.name=diffgrm or masked_history"
    if not isinstance(recommender, GenerativeRecommender) or "item_scoring" in recipe.sections:
        return f"the recommender {recipe.recommender!r} does not rank by digits alone, which are to be steered; {can}"
    network: type = registry.resolve("model", recipe.model.name)
    if missing := lacks(network, DenoisesByStates):
        return (
            f"the model {recipe.model.name!r} lacks {', '.join(missing)} (DenoisesByStates), by which it is steered; {can}"
        )
    if recipe.model.options.get("pairwise_rank"):
        return "its scores of pairs of digits would be left out by what steers; fit it with model.pairwise_rank=0"
    return None
