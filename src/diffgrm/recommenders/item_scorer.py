"""The item vectors of a trained item scorer as an embedding: a space in which preference is an inner product.

In it a product quantiser makes a user's score of an item a sum of one number a digit, so that digits which are independent
rank nearly as the item scorer does.

Letters: I items, N items of a table, U users' vectors, d width, n digits, K codes.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
import torch
from pydantic import Field
from torch import nn

from diffgrm.data.dataset import Ragged, Split
from diffgrm.foundation import registry
from diffgrm.foundation.part_settings import SOURCE, Local
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.run_folder import holds_checkpoint
from diffgrm.foundation.schema import Columns, DataError, DiffGRMError, ModelFolderError, RecipeError, first_few
from diffgrm.foundation.sections import DataSettings
from diffgrm.foundation.storage import State, content_digest, file_digest
from diffgrm.learning.batches import TrainingBatches
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.contracts import DenoisesVectors, ScoresItems, contract, lacks
from diffgrm.networks.history import HistoryEncoder
from diffgrm.ranking.item_table import ItemTable
from diffgrm.recommenders import packing
from diffgrm.recommenders.base import Recommender, load
from diffgrm.recommenders.going_on import asked_of
from diffgrm.recommenders.parts import part_of
from diffgrm.recommenders.scorer_teacher import ScorerTeacher, made_table, users_of
from diffgrm.recommenders.texts import TextVectors, branch_names
from diffgrm.recommenders.trained_network import planned_network
from diffgrm.semantic_ids.embeddings.base import EventContext, ItemEncoder
from diffgrm.semantic_ids.threads import one_thread

logger = logging.getLogger(__name__)

SMALLEST = 1e-6  # of the largest direction's share, below which a direction counts as this
USERS_AT_ONCE = 4096
FILE = "file:"  # before the names of the scorer's files among the arrays
SEEDS_APART = 1000  # of scorers that are fitted for one seed


class ItemScorerVectors(ItemEncoder):
    """Vectors [N, d] of items as a trained item scorer compares them with users; their lengths mean something.

    The scorer is fitted first, on the same training events, or read from a model folder. Items without events have what
    their texts give: the projection of the text, and the ID embeddings of the items of nearest text. What is saved holds
    the scorer, so that items can come later; ranking does not use it.

    With ``scorers`` above 1 further ones are fitted, each by a seed of its own, for a network that learns from their mean
    opinion (``objective.teacher_weight``), which is better than that of each; vectors are those of the first. The others
    are kept in the cache, not in a model folder, and are left behind where a model goes on learning.

    Raises:
        RecipeError: a model and changes of a recipe, or further scorers, at once.
    """

    reads_events: ClassVar[bool] = True
    cached = True

    def __init__(
        self,
        model: Annotated[
            str | None,
            Local(),
            "folder of a fitted recommender with item vectors (sasrec, hybrid); null: one is fitted first. A saved model "
            "holds what it needs of it",
        ] = None,
        recipe: Annotated[str, "shipped recipe of the item scorer that is fitted first"] = "item-scorer",
        changes: Annotated[tuple[str, ...], "changes of that recipe, such as embedding.columns=[attributes]"] = (),
        measure: Annotated[
            Literal["scores", "vectors"],
            "what an error of a vector is measured in: scores: what it changes in the scores of users; vectors: its length",
        ] = "scores",
        scorers: Annotated[
            int,
            Field(ge=1, le=64),
            "item scorers that are fitted, each by a seed of its own; vectors are the first one's, and what is learnt by "
            "objective.teacher_weight is the mean opinion of all",
        ] = 1,
    ) -> None:
        if model is not None and (changes or scorers > 1):
            raise RecipeError(
                f"embedding.{'changes' if changes else 'scorers'} are of a recipe that is fitted first, but "
                "embedding.model names a fitted one; leave one out"
            )
        self.model, self.recipe, self.changes, self.measure = model, recipe, tuple(changes), measure
        self.scorers = scorers
        self._scorer: Recommender | None = None
        self._made: tuple[Recommender, ItemTable] | None = None  # see _table
        self._others: list[Recommender] = []  # where they were fitted, or came from the cache
        self._files: dict[str, np.ndarray] | None = None  # of the scorer's model folder, until it is needed
        self._into = self._back = np.zeros((0, 0), dtype=np.float32)  # [d, d]: to the measure, and back

    def identity(self) -> dict[str, Any]:
        """See :meth:`ItemEncoder.identity`; a model counts by its files."""
        folder = None if self.model is None else Path(self.model)
        files = None if folder is None else content_digest(folder)
        recipe = None if folder is not None else self._recipe(None).to_dict()
        floors = ("semantic_ids", "networks", "learning")
        code = [file_digest(path) for floor in floors for path in sorted((SOURCE / floor).rglob("*.py"))]
        return {"model": files, "recipe": recipe, "measure": self.measure, "scorers": self.scorers, "learning": code}

    def documents(self, items: pl.DataFrame) -> list[str]:
        """See :meth:`ItemEncoder.documents`; the scorer may read any column."""
        return [repr(row) for row in items.iter_rows()]

    def _recipe(self, context: EventContext | None, number: int = 0) -> Recipe:
        if context is None:
            return Recipe.preset(self.recipe, self.changes)
        whole = {"seed": context.seed + SEEDS_APART * number, "events": context.split.dataset.event_settings.model_dump()}
        if context.data:
            whole["data"] = dict(context.data)
        return Recipe.from_dict(Recipe.preset(self.recipe).to_dict() | whole).override(self.changes)

    # ---- fit ----------------------------------------------------------------------------------------------------

    def fit_events(self, context: EventContext) -> Self:
        """Fit or read the scorer, and learn what errors are measured in.

        Raises:
            DataError: a folder that holds no model with item vectors, or one that was fitted on other events or items.
        """
        if self.model is None:
            scorer, *self._others = [self._fitted(context, number) for number in range(self.scorers)]
        else:
            scorer = self._read(Path(self.model), context.split)
        self._scorer = scorer
        table = self._table
        width = table.vectors.shape[1]
        self._into = self._back = np.eye(width, dtype=np.float32)
        if self.measure == "scores":
            with one_thread():
                self._into, self._back = _root(_moment(table, context.split.train))
        return self

    def _fitted(self, context: EventContext, number: int) -> Recommender:
        """One of the scorers, in a run folder of its own."""
        recipe = self._recipe(context, number)
        if self.scorers > 1:
            logger.info("Fitting item scorer %d of %d ...", number + 1, self.scorers)
        scorer: Recommender = registry.resolve("recommender", recipe.recommender)(recipe)
        folder = _run_folder(context, number)
        resume = context.resume and folder is not None and holds_checkpoint(folder)
        return scorer.fit(context.split, run_folder=folder, resume=resume, progress=context.progress)

    def _read(self, folder: Path, split: Split) -> Recommender:
        try:
            scorer = load(folder)
        except DiffGRMError as error:
            raise DataError(f"embedding.model: {error}") from error
        ids = split.dataset.items.series
        if missing := ids.filter(scorer.items.positions(ids) < 0).to_list():
            raise DataError(
                f"embedding.model: {folder} knows nothing of {len(missing)} items of this dataset: {first_few(missing)}; "
                "fit it on the same tables"
            )
        if scorer.recipe.events != split.dataset.event_settings:
            raise DataError(
                f"embedding.model: {folder} was fitted with another section events, and would read histories otherwise; "
                "fit it with the same one"
            )
        if scorer.facts.get("training_fingerprint") != split.fingerprint:
            raise DataError(
                f"embedding.model: {folder} was not fitted on the training events of this split, so it may have learnt "
                "from those that are to be predicted; fit it on the same tables with the same data.split, or leave "
                "embedding.model out and one is fitted first"
            )
        return scorer

    # ---- go on --------------------------------------------------------------------------------------------------

    def check_more(self, context: EventContext, overrides: Sequence[str]) -> None:
        """See :meth:`ItemSpace.check_more`."""
        scorer = self._going_on(context)
        asked_of(scorer.recipe, scorer.parts, context.split, overrides, _run_folder(context), context.progress)

    def fit_more(self, context: EventContext, overrides: Sequence[str]) -> tuple[Self, dict[str, Any]]:
        """See :meth:`ItemSpace.fit_more`; of several scorers the first goes on, and is the only one from then on.

        A model folder has only that one, and what comes of an update shall not depend on whether the model was saved
        before it. The matrices of the measure stay, since the vectors of codes are in that space. Items that come to the
        model afterwards have the vectors of the scorer that went on, which know of the events with which they come, and by
        which it teaches. Vectors of known items move away from their codes, which stay; that costs less than a scorer that
        goes on more gently (docs/results/updates.md).
        """
        more = copy.copy(self)
        more._scorer = self._going_on(context).fit_more(
            context.split, overrides=overrides, run_folder=_run_folder(context), progress=context.progress
        )
        more._others, more._files = [], None
        told = {key: more._scorer.facts[key] for key in ("epochs", "validation", "validation_before")}
        return more, {**told, "fitted": self.scorers}

    def _going_on(self, context: EventContext) -> Recommender:
        """The scorer under the settings of the split that is gone on with."""
        scorer = copy.copy(self.scorer)
        scorer.recipe = scorer.recipe.model_copy(update={"data": DataSettings.model_validate(context.data)})
        return scorer

    # ---- use ----------------------------------------------------------------------------------------------------

    @property
    def scorer(self) -> Recommender:
        """The item scorer.

        Raises:
            DataError: not fitted yet.
        """
        if self._scorer is None and self._files is not None:
            self._scorer, self._files = self._unpacked(self._files), None
        if self._scorer is None:
            raise DataError("the vectors of an item scorer are needed, and there is none yet: call fit first")
        return self._scorer

    @property
    def _table(self) -> ItemTable:
        """The scorer's table: a fit asks for it in what errors are measured by, as vectors, start and teacher."""
        scorer = self.scorer  # which may be read here, and its table with it
        if self._made is None or self._made[0] is not scorer:
            self._made = scorer, made_table(scorer)
        return self._made[1]

    @one_thread()
    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """See :meth:`ItemEncoder.encode`.

        Raises:
            DataError: items that the scorer does not know and cannot add, since it reads no texts.
        """
        scorer = self.scorer
        known = scorer.items.positions(items[Columns.ITEM])
        vectors = self._table.comparable.cpu().numpy()[known]
        if scorer.takes_new_items:
            for rows in self._independent(items, known):
                changed = items[rows]
                other = scorer.add_items(changed) if known[rows[0]] < 0 else scorer.update_items(changed, "move")
                vectors[rows] = made_table(other).comparable.cpu().numpy()[other.items.positions(changed[Columns.ITEM])]
        elif (known < 0).any():
            raise DataError(
                "the item scorer knows items by their events only, and there are none of "
                f"{first_few(items.filter(known < 0)[Columns.ITEM])}; use one that reads texts, such as the recipe "
                "'item-scorer'"
            )
        return (vectors @ self._into).astype(np.float32)

    def _independent(self, items: pl.DataFrame, known: np.ndarray) -> list[np.ndarray]:
        """Rows that the scorer does not know, or knows otherwise, in groups in which none decides another's vector.

        Items without events borrow from those with events by their texts, and free semantic IDs go to who comes first.
        """
        scorer, before = self.scorer, np.maximum(known, 0)
        read = part_of(scorer.parts, "texts", TextVectors).encoder.documents
        other = np.array([a != b for a, b in zip(read(scorer.item_table[before]), read(items), strict=True)], dtype=bool)
        other, met = other & (known >= 0), scorer.item_counts[before] > 0
        groups = [np.flatnonzero(chosen) for chosen in (known < 0, other & met, other & ~met)]
        if "sid" in branch_names(scorer.recipe):
            groups = [group[place : place + 1] for group in groups for place in range(len(group))]
        return [group for group in groups if len(group)]

    def history_encoder(self) -> HistoryEncoder:
        """See :meth:`ItemSpace.history_encoder`.

        Raises:
            RecipeError: the scorer's network has none, or scores items by more than inner products.
        """
        return _encoder_of(self._table.network, self.scorer.recipe)

    def planned_encoder(self) -> HistoryEncoder | None:
        """See :meth:`ItemSpace.planned_encoder`; errors as of :meth:`history_encoder`."""
        if self.model is not None:
            return None
        recipe = self._recipe(None)
        return _encoder_of(planned_network(recipe), recipe) if "model" in recipe.sections else None

    def item_space(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [..., d] of the embedding as vectors of the scorer, to be multiplied with those of users."""
        return (vectors @ self._back).astype(np.float32)

    def teacher(self, items: pl.Series) -> ScorerTeacher:
        """See :meth:`ItemSpace.teacher`: all scorers at a fit, the first where a model goes on learning."""
        tables = [self._table, *map(made_table, self._others)]
        self._made = None  # nothing asks for it afterwards, and of many items it is large
        return ScorerTeacher(tables, [scorer.items.positions(items) for scorer in (self.scorer, *self._others)])

    # ---- save and load ------------------------------------------------------------------------------------------

    def state(self) -> State:
        """See :meth:`ItemEncoder.state`; the scorer travels as the files of its model folder."""
        files = self._files
        if files is None:
            files = packing.packed(self.scorer)
        named = {f"{FILE}{name}": content for name, content in files.items()}
        return State({**named, "into": self._into, "back": self._back})

    def learnt(self) -> State:
        """See :meth:`ItemEncoder.learnt`; all scorers."""
        named = dict(self.state().arrays)
        for number, other in enumerate(self._others, 1):
            named |= {f"{_prefix(number)}{name}": content for name, content in packing.packed(other).items()}
        return State(named)

    def load_state(self, state: State) -> Self:
        """See :meth:`ItemEncoder.load_state`; the scorer is read when it is needed, as a stranger's model folder is.

        Raises:
            ModelFolderError: arrays that no scorer was saved as.
        """
        arrays = dict(state.arrays)
        files, *others = [
            {name.removeprefix(prefix): arrays.pop(name) for name in [*arrays] if name.startswith(prefix)}
            for prefix in (FILE, *map(_prefix, range(1, self.scorers)))
        ]
        shapes = {name: array.shape for name, array in arrays.items()}
        square = (width := max((shape[0] for shape in shapes.values() if shape), default=0), width)
        if shapes != {"into": square, "back": square}:
            raise ModelFolderError(
                f"the matrices of an item scorer's vectors have the shapes {shapes}; expected two squares"
            )
        packing.check_names(files)
        self._into, self._back, self._files, self._scorer = arrays["into"], arrays["back"], files, None
        self._others = [packing.unpacked(found) for found in others if found]
        return self

    def _unpacked(self, files: dict[str, np.ndarray]) -> Recommender:
        scorer = packing.unpacked(files)
        self._made = scorer, made_table(scorer)
        if len(self._into) != (width := self._made[1].vectors.shape[1]):
            raise ModelFolderError(
                f"the item scorer in the model folder has vectors of width {width}, the matrices {len(self._into)}"
            )
        return scorer


def _run_folder(context: EventContext, number: int = 0) -> Path | None:
    """Where checkpoints and logs of a scorer go, 0 for the first."""
    name = f"item_scorer-{number + 1}" if number else "item_scorer"
    return None if context.folder is None else context.folder / name


def _prefix(number: int) -> str:
    """Before the names of the files of a further scorer, 1 for the second."""
    return f"{number}:{FILE}"


def _encoder_of(network: nn.Module, recipe: Recipe) -> HistoryEncoder:
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, HistoryEncoder):
        raise RecipeError(
            f"the item scorer's network {recipe.model.name!r} has no history encoder that another could begin with; set "
            "model.start=drawn"
        )
    kind: type = type(network)
    if not lacks(kind, DenoisesVectors):
        raise RecipeError(
            f"the item scorer's network {recipe.model.name!r} makes more of a history than its encoder does, so that the "
            "encoder is no place to begin; set model.name=sasrec in it, or model.start=drawn"
        )
    if Comparison.of(recipe.item_loss) != Comparison():
        raise RecipeError(
            "the item scorer compares by item_loss.cosine or item_loss.temperature, so that its vectors are no place to "
            "begin; leave them out of it, or set model.start=drawn"
        )
    return encoder


def _moment(table: ItemTable, train: Ragged) -> np.ndarray:
    """[d, d] mean of u u^T over the users' vectors u before every training event but a user's first."""
    network = contract(table.network, ScoresItems)
    total, count = np.zeros((table.vectors.shape[1],) * 2), 0
    with torch.no_grad(), evaluating(table.network):
        for batch in TrainingBatches(train, network.max_len, USERS_AT_ONCE, 0, network.causal):
            vectors = table.vectors[batch.histories.items]
            users = users_of(table.network, table.comparison, batch, vectors).cpu().double().numpy()
            total, count = total + users.T @ users, count + len(users)
    return total / max(count, 1)


def _root(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square root of a second moment [d, d], and its inverse: v root is as long as v's scores are large."""
    variances, directions = np.linalg.eigh(moment)
    size = np.sqrt(np.maximum(variances, SMALLEST * max(variances.max(), 1e-12)))
    into, back = (directions * size) @ directions.T, (directions / size) @ directions.T
    return into.astype(np.float32), back.astype(np.float32)
