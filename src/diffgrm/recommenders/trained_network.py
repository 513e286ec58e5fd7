"""The network, as a learnt part: training, devices, precision, weights."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn

from diffgrm.data.context import input_sizes
from diffgrm.data.dataset import Ragged
from diffgrm.foundation import registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import ModelFolderError, RecipeError, TrainingError
from diffgrm.foundation.sections import SHARDED
from diffgrm.learning.loop import check_run_folder, train
from diffgrm.learning.machine import check_devices
from diffgrm.learning.objectives.base import LearningTask, Objective, Ranking, TrainingItems
from diffgrm.learning.row_updates import branches_with_tables
from diffgrm.networks.compiled import compile_layers, compiled
from diffgrm.networks.contracts import EncodesHistories, TakesContext, TakesTypes, contract, lacks
from diffgrm.networks.growing import begin_ids, take_weights
from diffgrm.networks.history import HistoryNetwork
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.item_table import borrowing
from diffgrm.recommenders import weights
from diffgrm.recommenders.checks import check_all_taught, usable_device
from diffgrm.recommenders.parts import Beside, FitTask, LearntPart, Parts, part_of
from diffgrm.recommenders.rankers import Tables, item_features, item_ranker, neighbours_by_text
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors
from diffgrm.semantic_ids.embeddings.base import ItemSpace

NETWORK = "model.safetensors"
TYPES = "n_event_types"  # among the sizes, where there are some


class TrainedNetwork(LearntPart):
    """The recipe's network, trained for the recipe's objective.

    Attributes:
        network: in 32 bits, as it is saved; there once it is fitted or loaded.
        sizes: what the data decided: arguments of networks that are no settings.
        given: other arguments that are none.
    """

    network: nn.Module
    remembers = reads_context = trains = True

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.given: dict[str, Any] = {}
        self._precision = "32"
        self._in_use: nn.Module | None = None

    # ---- fit ----------------------------------------------------------------------------------------------------

    def check(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check`."""
        self._check_place(task)
        self._try_sizes(task)
        check_all_taught(task.recipe)
        _check_table_updates(task.recipe)
        for part in task.recipe.objective.with_nested():
            if part.kind == "objective":
                objective: type[Objective] = registry.resolve("objective", part.name)
                objective.check(part, task.recipe)
        if task.recipe.model.options.get("start") == "item_scorer":
            network, scorer = planned_network(task.recipe), task.recipe.embedding.build(seed=task.recipe.seed)
            assert isinstance(scorer, ItemSpace) and isinstance(network, HistoryNetwork)
            if (encoder := scorer.planned_encoder()) is not None:
                network.encoder.check_start(encoder)

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        recipe = task.recipe
        self.sizes = _sizes_of(task.parts, task.split.dataset.n_items, recipe)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.network = self._built(recipe)
        if recipe.model.options.get("start", "drawn") != "drawn":
            self._start(task)
        self._train(task)

    def check_more(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check_more`."""
        super().check_more(task)
        if (strategy := task.recipe.training.strategy).startswith(SHARDED):
            raise TrainingError(
                f"training.strategy {strategy} shares weights out, of which going on keeps a whole copy; choose ddp, by "
                "the override training.strategy=ddp"
            )
        _check_table_updates(task.recipe)
        self._check_place(task, going_on=True)

    def fit_more(self, task: FitTask) -> Self:
        """See :meth:`LearntPart.fit_more`; it begins with these weights, and with a row for every item."""
        more, recipe = copy.copy(self), task.recipe
        more.sizes, more._precision = _sizes_of(task.parts, task.split.dataset.n_items, recipe), "32"
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            more.network = more._built(recipe)
        take_weights(more.network, self.network)
        self._begin_ids(task, more.network)
        more._train(task)
        return more

    def _begin_ids(self, task: FitTask, network: nn.Module) -> None:
        """Let a network that goes on from here begin the ID embeddings of items that had no events until now.

        They begin at what the items of nearest text have, whether the recommender ranks items without events so or not.
        """
        before = task.before
        assert before is not None
        fresh = np.flatnonzero((before.item_counts == 0) & (task.item_counts > 0))
        if len(fresh):
            rows, n_fitted = torch.from_numpy(fresh), self.sizes["n_items"]
            features = item_features(before.parts, before.item_counts, n_fitted)
            borrowed = borrowing(neighbours_by_text(features, n_fitted), fresh)
            begin_ids(network, self.network, rows, features.of(rows), borrowed)

    def _train(self, task: FitTask) -> None:
        """Train the network, which is there, and note what came of it."""
        recipe, network = task.recipe, self.network
        objective = self._objective(task, network)
        with tempfile.TemporaryDirectory() as temporary, compiled(network, recipe.training.compile):
            result = train(
                objective,
                events=self._events(task),
                validation=task.split.validation,
                max_len=contract(network, EncodesHistories).max_len,
                settings=recipe.training,
                seed=recipe.seed,
                run_folder=task.run_folder or Path(temporary) / "run",
                network_settings=recipe.model.flat(),
                resume=task.resume,
                progress=task.progress,
                watch=task.watch,
                going_on=task.before is not None,
            )
        network.eval()
        self._in_use = None
        task.facts.update(
            parameters=sum(p.numel() for p in network.parameters()),
            epochs=result.epochs,
            steps=result.steps,
            validation=result.validation,
            earlier_seconds=result.earlier_seconds,
            **({} if result.before is None else {"validation_before": result.before}),
        )

    def _check_place(self, task: FitTask, going_on: bool = False) -> None:
        """Make sure that there is a place for checkpoints, and the devices that are asked for."""
        if task.run_folder is not None:
            check_run_folder(task.run_folder, task.resume, going_on)
        elif task.recipe.training.processes > 1:
            raise TrainingError("several devices need a folder that all of them see: pass run_folder=")
        check_devices(task.recipe.training)

    def _events(self, task: FitTask) -> Ragged:
        """What is learnt from: histories, each with what followed it."""
        return task.split.train

    def _try_sizes(self, task: FitTask) -> None:
        """Make the network once, with small sizes in place of what is not learnt yet, so that it is refused early.

        Raises:
            RecipeError: see :meth:`_built` and :func:`diffgrm.networks.contracts.contract`.
        """
        known = {"n_items": task.split.dataset.n_items, TYPES: task.recipe.events.n_inputs}
        known |= {"n_digits": 2, "codebook_size": 4} if "sids" in task.parts else {}
        if "texts" in task.parts and part_of(task.parts, "texts", TextVectors).kept:
            known["text_width"] = 4
        with torch.random.fork_rng():
            contract(self._built(task.recipe, known), EncodesHistories)

    def _built(self, recipe: Recipe, sizes: Mapping[str, int] | None = None) -> nn.Module:
        """The recipe's network, which is given the sizes that it takes.

        Args:
            sizes: None: what the data decided.

        Raises:
            RecipeError: it needs one that the data do not decide here.
        """
        model, sizes = recipe.model, {**(self.sizes if sizes is None else sizes), **self.given}
        known = inspect.signature(registry.resolve("model", model.name)).parameters.values()
        if missing := [p.name for p in known if p.default is p.empty and p.name not in {*sizes, *model.options}]:
            raise RecipeError(
                f"the model {model.name!r} needs {', '.join(missing)}, which the recommender {recipe.recommender!r} does "
                "not have; semantic IDs come with the branch 'sid' (model.branches), or choose another model.name"
            )
        network: nn.Module = model.build(**{p.name: sizes[p.name] for p in known if p.name in sizes})
        kind: type = type(network)
        if sizes.get(TYPES):
            if lacks(kind, TakesTypes):
                raise RecipeError(
                    f"the model {model.name!r} cannot be told of what type an event is; set events.type_input=false, or "
                    "choose another model.name"
                )
            contract(network, TakesTypes).take_types(sizes[TYPES])
        if recipe.events.tells_context:
            if lacks(kind, TakesContext):
                raise RecipeError(
                    f"the model {model.name!r} cannot be told of times or of columns of events or users; leave out "
                    "events.time_inputs, events.event_columns and events.user_columns, or choose another model.name"
                )
            contract(network, TakesContext).take_context(sum(input_sizes(recipe.events)))
        return network

    def _start(self, task: FitTask) -> None:
        """Begin where the item scorer stands that the embedding is made of."""
        encoder, sids = part_of(task.parts, "texts", TextVectors).encoder, part_of(task.parts, "sids", Identifiers)
        assert isinstance(encoder, ItemSpace) and isinstance(self.network, HistoryNetwork)
        codes = encoder.item_space(sids.code_vectors())
        self.network.start_from(encoder.history_encoder(), torch.from_numpy(codes))

    def _objective(self, task: FitTask, network: nn.Module) -> Objective:
        recipe, items = task.recipe, self._items(task)
        ranking: Callable[[nn.Module, ItemFeatures], Ranking] = partial(item_ranker, recipe)
        if "decoding" in recipe.sections:
            ranking = self._ranking(task, items, recipe.validation_decoder.build(seed=recipe.seed))
        noising = recipe.noising.build(seed=recipe.seed) if "noising" in recipe.sections else None
        encoder = part_of(task.parts, "texts", TextVectors).encoder if "texts" in task.parts else None
        teacher = encoder.teacher(task.split.dataset.items.series) if isinstance(encoder, ItemSpace) else None
        taught = any(part.options.get("teacher_weight") for part in recipe.objective.with_nested())
        if teacher is not None and taught and recipe.events.asks_when:
            _check_moments(network, [table.network for table in teacher.tables])
        code_vectors = part_of(task.parts, "sids", Identifiers).code_vectors if "sids" in task.parts else None
        about = LearningTask(network, items, ranking, recipe.item_loss, noising, teacher, code_vectors)
        return recipe.objective.build(task=about)

    def _items(self, task: FitTask) -> TrainingItems:
        """All items as the objective sees them."""
        counts = task.item_counts
        return TrainingItems(item_features(task.parts, counts, len(counts)), counts)

    def _ranking(
        self, task: FitTask, items: TrainingItems, decoder: Decoder
    ) -> Callable[[nn.Module, ItemFeatures], Ranking]:
        """Makes a network as it is ready to rank; the tables of the catalogue serve all validations."""
        return partial(Tables(task.recipe, task.parts, None).ranker, decoder=decoder)

    # ---- use ----------------------------------------------------------------------------------------------------

    @property
    def in_use(self) -> nn.Module:
        """The network, in the precision that :meth:`to` was told."""
        if self._in_use is None:
            exact = self._precision == "32"
            self._in_use = self.network if exact else copy.deepcopy(self.network).to(torch.bfloat16)
        return self._in_use

    def to(self, device: str, precision: Literal["32", "bf16"]) -> Self:
        """See :meth:`LearntPart.to`."""
        changed = copy.copy(self)
        self.network.to(usable_device(device))
        changed._precision, changed._in_use = precision, None
        return changed

    def compile(self) -> bool:
        """See :meth:`LearntPart.compile`."""
        self._in_use = None
        return compile_layers(self.network) > 0

    # ---- save and load ------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`; the sizes travel in the header."""
        weights.save(self._kept(self.network), folder / NETWORK, self.sizes)

    def _kept(self, network: nn.Module) -> nn.Module:
        """The part of the network that is saved here: all of it."""
        return network

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        path = folder / NETWORK
        self.sizes, shapes = weights.read_header(path)
        fitted = self.sizes.get("n_items", 0)
        expected = _sizes_of(beside.parts, fitted, recipe)
        if self.sizes != expected or not 1 <= fitted <= beside.n_items:
            raise ModelFolderError(
                f"{path} does not fit the files beside it: its sizes are {self.sizes}, expected {expected} and at most "
                f"{beside.n_items} items"
            )
        if recipe.model.name in registry.names("model"):  # a class of others is trusted, and may not be made without memory
            weights.check_shapes(lambda: self._kept(self._built(recipe)), shapes, path)
        self.network = self._built(recipe).eval()
        weights.load(self._kept(self.network), path)


def planned_network(recipe: Recipe) -> nn.Module:
    """The recipe's network without weights, over one item, before the data decide its sizes."""
    part = TrainedNetwork()
    part.sizes = {"n_items": 1, "n_digits": 2, "codebook_size": 1, "text_width": 1}
    with torch.device("meta"):
        return part._built(recipe)


def _check_table_updates(recipe: Recipe) -> None:
    """Refuse to update asked rows where there are none, or where every step asks for all.

    Raises:
        RecipeError: with the way out.
    """
    if recipe.training.table_updates != "asked_rows":
        return
    if not branches_with_tables(planned_network(recipe)):
        raise RecipeError(
            "training.table_updates=asked_rows is of ID embeddings, and model.branches has none; leave it out"
        )
    if "item_loss" in recipe.sections and recipe.item_loss.kind == "softmax":
        raise RecipeError(
            "training.table_updates=asked_rows does nothing with item_loss.kind=softmax, which asks for all items in every "
            "step; choose item_loss.kind=sampled_softmax, or leave it out"
        )


def _check_moments(network: nn.Module, teachers: Iterable[nn.Module]) -> None:
    """Refuse teachers that would read the moments of a batch otherwise than the network that they teach.

    Raises:
        RecipeError: one of them is causal, so that every place has a moment of its own, and the other is not.
    """
    causal = {contract(one, EncodesHistories).causal for one in (network, *teachers)}
    if len(causal) > 1:
        raise RecipeError(
            "objective.teacher_weight: of the network and its item scorer only one is causal, and moments "
            "(events.time_inputs with recency, hour or weekday) are told otherwise to such; let both be causal "
            "(model.history=causal), or leave those inputs out"
        )


def _sizes_of(parts: Parts, n_items: int, recipe: Recipe) -> dict[str, int]:
    """What the data decide: sizes of the semantic IDs, what the branches of item vectors need, and types of events.

    Args:
        n_items: that are there at fit.
    """
    sizes = {"n_items": n_items} | ({TYPES: count} if (count := recipe.events.n_inputs) else {})
    if "sids" in parts:
        sids = part_of(parts, "sids", Identifiers).semantic_ids
        sizes |= {"n_digits": sids.n_digits, "codebook_size": sids.codebook_size}
    if "texts" in parts and (texts := part_of(parts, "texts", TextVectors)).kept:
        assert texts.vectors is not None
        sizes["text_width"] = texts.vectors.shape[1]
    if "scorers" in parts:
        sizes["n_items"] = part_of(parts, "scorers", ItemScorers).neighbours.n_fitted
    return sizes


def network_of(parts: Parts) -> TrainedNetwork:
    """The network among the parts of a recommender.

    Raises:
        DiffGRMError: there is none.
    """
    return part_of(parts, "network", TrainedNetwork)
