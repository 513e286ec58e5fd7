"""The network, as a learnt part: training, devices, precision, weights."""

from __future__ import annotations

import copy
import inspect
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import DiffGRMError, ModelFolderError, TrainingError
from diffgrm.learning.loop import check_run_folder, train
from diffgrm.learning.objectives.base import LearningTask, Objective, TrainingItems
from diffgrm.networks.compiled import compile_layers, compiled
from diffgrm.networks.contracts import EncodesHistories, check_network, contract
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.recommenders import weights
from diffgrm.recommenders.parts import FitTask, LearntPart, Parts, SavedModel, part_of
from diffgrm.recommenders.rankers import Tables, item_features
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors

NETWORK = "model.safetensors"


class TrainedNetwork(LearntPart):
    """The recipe's network, trained for the recipe's objective.

    Attributes:
        network: in 32 bits, as it is saved.
        sizes: what the data decided: arguments of networks that are no settings.
    """

    def __init__(self) -> None:
        self.network: nn.Module | None = None
        self.sizes: dict[str, int] = {}
        self._precision = "32"
        self._in_use: nn.Module | None = None

    # ---- fit ----------------------------------------------------------------------------------------------------

    def check(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check`."""
        if task.run_folder is not None:
            check_run_folder(task.run_folder, task.resume)
        elif task.recipe.training.devices > 1:
            raise TrainingError("several devices need a folder that all of them see: pass run_folder=")

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        recipe = task.recipe
        self.sizes = _sizes_of(task.parts, task.split.dataset.n_items)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.network = self._built(recipe)
        objective, network = self._objective(task, self.network), self.network
        with tempfile.TemporaryDirectory() as temporary, compiled(network, recipe.training.compile):
            result = train(
                objective,
                events=task.split.train,
                validation=task.split.validation,
                max_len=contract(network, EncodesHistories).max_len,
                settings=recipe.training,
                seed=recipe.seed,
                run_folder=task.run_folder or Path(temporary) / "run",
                resume=task.resume,
                progress=task.progress,
            )
        network.eval()
        self._in_use = None
        task.facts.update(
            parameters=sum(p.numel() for p in network.parameters()),
            epochs=result.epochs,
            steps=result.steps,
            validation=result.validation,
            earlier_seconds=result.earlier_seconds,
        )

    def _built(self, recipe: Recipe) -> nn.Module:
        """The recipe's network, which is given the sizes that it takes."""
        known = inspect.signature(registry.resolve("model", recipe.model.name)).parameters
        return recipe.model.build(**{name: size for name, size in self.sizes.items() if name in known})

    def _objective(self, task: FitTask, network: nn.Module) -> Objective:
        recipe, counts = task.recipe, task.split.item_counts
        items = TrainingItems(item_features(task.parts, counts, len(counts)), counts)
        tables = Tables(recipe, task.parts, None)
        decoder = recipe.validation_decoder.build(seed=recipe.seed) if "decoding" in recipe.sections else None
        noising = recipe.noising.build(seed=recipe.seed) if "noising" in recipe.sections else None
        learning = LearningTask(
            network, items, lambda: tables.ranking(network, items.features, decoder), recipe.item_loss, noising
        )
        return recipe.objective.build(task=learning)

    # ---- use ----------------------------------------------------------------------------------------------------

    @property
    def in_use(self) -> nn.Module:
        """The network, in the precision that :meth:`to` was told."""
        assert self.network is not None
        if self._in_use is None:
            exact = self._precision == "32"
            self._in_use = self.network if exact else copy.deepcopy(self.network).to(torch.bfloat16)
        return self._in_use

    def to(self, device: str, precision: Literal["32", "bf16"]) -> None:
        """See :meth:`LearntPart.to`."""
        assert self.network is not None
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network.to(device)
        self._precision, self._in_use = precision, None

    def compile(self) -> bool:
        """See :meth:`LearntPart.compile`."""
        assert self.network is not None
        self._in_use = None
        return compile_layers(self.network) > 0

    # ---- save and load ------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`; the sizes travel in the header."""
        assert self.network is not None
        weights.save(self.network, folder / NETWORK, self.sizes)

    def load(self, saved: SavedModel) -> None:
        """See :meth:`LearntPart.load`."""
        path, recipe = saved.folder / NETWORK, saved.recipe
        self.sizes, shapes = weights.read_header(path)
        fitted = self.sizes.get("n_items", 0)
        expected = _sizes_of(saved.parts, fitted)
        if self.sizes != expected or not 1 <= fitted <= len(saved.item_counts):
            raise ModelFolderError(
                f"{path} does not fit the files beside it: its sizes are {self.sizes}, expected {expected} and at most "
                f"{len(saved.item_counts)} items"
            )
        if recipe.model.name in registry.names("model"):  # a class of others is trusted, and may not be made without memory
            weights.check_shapes(lambda: self._built(recipe), shapes, path)
        self.network = weights.load(self._built(recipe), path).eval()


def _sizes_of(parts: Parts, n_items: int) -> dict[str, int]:
    """What the data decide: sizes of the semantic IDs, and what the branches of item vectors need.

    Args:
        n_items: that are there at fit.
    """
    sizes = {"n_items": n_items}
    if "sids" in parts:
        sids = part_of(parts, "sids", Identifiers).semantic_ids
        assert sids is not None
        sizes |= {"n_digits": sids.n_digits, "codebook_size": sids.codebook_size}
    if "texts" in parts and (texts := part_of(parts, "texts", TextVectors)).kept:
        assert texts.vectors is not None
        sizes["text_width"] = texts.vectors.shape[1]
    if "scorers" in parts:
        neighbours = part_of(parts, "scorers", ItemScorers).neighbours
        assert neighbours is not None
        sizes["n_items"] = neighbours.n_fitted
    return sizes


def check_recipe(recipe: Recipe, decoders: list[Decoder]) -> None:
    """Refuse a network that cannot be trained or decoded as a recipe says, before anything is made for it.

    Raises:
        RecipeError: see :func:`check_network`.
    """
    needs = [(need, f"objective {part.name!r}") for part in _objectives(recipe) for need in _needs("objective", part.name)]
    needs += [(need, f"decoding {recipe.decoding.name!r}") for decoder in decoders for need in decoder.needs]
    check_network(recipe.model.name, registry.resolve("model", recipe.model.name), [(EncodesHistories, "training"), *needs])


def _objectives(recipe: Recipe) -> list[Any]:
    """The objective and those nested in it."""
    found, waiting = [], [recipe.objective]
    while waiting:
        part = waiting.pop()
        found.append(part)
        waiting += [option for option in part.options.values() if type(option) is type(part)]
    return found


def _needs(kind: str, name: str) -> tuple[type, ...]:
    return getattr(registry.resolve(kind, name), "needs", ())


def network_of(parts: Parts) -> TrainedNetwork:
    """The network among the parts of a recommender.

    Raises:
        DiffGRMError: there is none.
    """
    if not isinstance(part := parts.get("network"), TrainedNetwork):
        raise DiffGRMError("this recommender has no network")
    return part
