"""Recommender: fit, recommend, save and load, the same for every method (floor 5).

The base class checks, maps ids and builds tables once; a method implements ``_fit``, ``_rank`` and its own files.
"""

from __future__ import annotations

import copy
import datetime
import logging
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import polars as pl

from diffgrm.data.dataset import IdMap, InteractionDataset, Ragged, Split, make_split
from diffgrm.data.histories import read_histories
from diffgrm.foundation import model_folder, registry
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, DataError, DiffGRMError, ModelFolderError, RecipeError, first_few
from diffgrm.ranking.query import Query
from diffgrm.recommenders.answers import allowed_items, answer_table
from diffgrm.recommenders.card import model_card
from diffgrm.recommenders.living_catalogue import LivingCatalogue

logger = logging.getLogger(__name__)

ITEMS, RECIPE, COUNT, OFFERED = "items.parquet", "recipe.yaml", "training_events", "_offered"


class Recommender(LivingCatalogue, ABC):
    """The one door: ``fit`` on a dataset, ``recommend`` for histories, ``save`` and ``load``.

    Args:
        recipe: settings; None is the method's defaults.

    Raises:
        RecipeError: the recipe is for another method.
    """

    name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]] = ()  # recipe sections that the method uses besides the common ones
    # Settings that differ from the recipe's defaults, by section: {"model": {"name": "sasrec"}}.
    defaults: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, recipe: Recipe | None = None) -> None:
        self.recipe = recipe or Recipe(recommender=self.registered_name())
        if not isinstance(self, registry.resolve("recommender", self.recipe.recommender)):
            raise RecipeError(
                f"the recipe is for the recommender {self.recipe.recommender!r}, not for {type(self).__name__}; write "
                f"recommender: {self.registered_name()}"
            )
        self._fitted_split: Split | None = None
        self.facts: dict[str, Any] = {}

    @classmethod
    def registered_name(cls) -> str:
        """The name under which recipes know this class."""
        return cls.__dict__.get("name") or f"{cls.__module__}:{cls.__qualname__}"

    # ---- fit ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        dataset: InteractionDataset,
        *,
        run_folder: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> Self:
        """Learn from the training part of the recipe's split; validation chooses, test is not looked at.

        Args:
            dataset: users, items and events.
            run_folder: where checkpoints and logs of methods that train go; None is a temporary folder.
            resume: go on from the last checkpoint in ``run_folder``.
            progress: show progress bars.

        Raises:
            DataError: data that cannot be split or learnt from.
        """
        started = time.perf_counter()
        split = make_split(
            dataset,
            self.recipe.data.split,
            validation_share=self.recipe.data.validation_share,
            test_share=self.recipe.data.test_share,
        )
        self._items, self._offered = None, None  # until all has gone well
        self._item_counts = split.item_counts
        self.facts = {
            "dataset": dataset.name,
            "users": dataset.n_users,
            "items": dataset.n_items,
            "events": len(dataset.events.values),
            "training_events": len(split.train.values),
            "split": split.name,
        }
        self._fit(split, Path(run_folder) if run_folder is not None else None, resume, progress)
        self.facts |= {
            "fit_seconds": round(self.facts.pop("earlier_seconds", 0) + time.perf_counter() - started, 1),
            "fitted_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "versions": {package: _version(package) for package in ("diffgrm", "torch", "faiss-cpu", "polars")},
        }
        self._items, self._item_table, self._fitted_split = dataset.items, dataset.item_table, split
        return self

    def variant(self, overrides: Iterable[str]) -> Self:
        """The same fitted recommender with other decoding or evaluation settings; this one stays as it is.

        Both share what has been learnt and the tables of the catalogue.

        Raises:
            RecipeError: see :meth:`override`.
        """
        return copy.copy(self).override(overrides)

    def override(self, overrides: Iterable[str]) -> Self:
        """Change how a fitted recommender decodes or is evaluated, for example ``["decoding.beam=256"]``.

        Raises:
            RecipeError: overrides of settings that fitting has used up.
        """
        overrides = list(overrides)
        if late := [o for o in overrides if not o.startswith(("decoding.", "evaluation."))]:
            raise RecipeError(f"only decoding and evaluation settings can change after fit, not {first_few(late)}")
        before, self.recipe = self.recipe, self.recipe.override(overrides)
        try:
            self._recipe_changed()
        except DiffGRMError:
            self.recipe = before
            raise
        return self

    def _recipe_changed(self) -> None:
        """Forget what was made from the recipe's late settings."""

    @abstractmethod
    def _fit(self, split: Split, run_folder: Path | None, resume: bool, progress: bool) -> None: ...

    def to(self, device: str, precision: Literal["32", "bf16"] = "32") -> Self:
        """Move what computes to a torch device, ``"auto"`` being a GPU if there is one; returns the recommender.

        Args:
            precision: of the network in use: ``"32"``; or ``"bf16"``, faster on GPUs and on CPUs with matrix units (AMX),
                with scores that differ in the second or third decimal, so that now and then neighbours in a list change
                places. What is saved stays in 32 bits.
        """
        if precision not in ("32", "bf16"):
            raise DiffGRMError(f"precision is {precision!r}; expected '32' or 'bf16'")
        return self

    # ---- recommend ----------------------------------------------------------------------------------------------

    def recommend(
        self,
        histories: Any = None,
        k: int = 10,
        *,
        users: Iterable[Any] | None = None,
        exclude_seen: bool = True,
        only: Iterable[Any] | None = None,
        without: Iterable[Any] | None = None,
        on_empty: Literal["error", "skip"] = "error",
        progress: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        """The k best items for each history.

        Args:
            histories: a table (path or frame) of user_id, item_id and perhaps timestamp; a mapping user -> item ids,
                oldest first; a list of item-id lists; or one list of item ids.
            k: items for each user.
            users: instead of histories, user ids of the dataset this recommender was fitted on in this process; their
                history is everything the dataset has of them.
            exclude_seen: leave out what is in the user's history.
            only: item ids that may be recommended; None is all.
            without: item ids that may not be recommended.
            on_empty: users without a known item: ``"error"``, or ``"skip"`` them.
            progress: called with the number of users done since the last call.

        Returns:
            user_id, item_id, score, rank (from 1), best first; fewer than k rows where fewer items are possible.

        Raises:
            DataError: k out of range, unusable histories, unknown users, or filters that leave no item.
        """
        self._check_fitted()
        allowed = self._allowed(k, only, without)
        user_ids, positions = self._histories(histories, users, on_empty)
        items, scores = self._rank(Query(positions, k, exclude_seen, allowed, progress))
        return answer_table(user_ids, self.items, items, scores)

    @abstractmethod
    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k], best first, -1 after the last, and their scores [U, k]."""

    def similar_items(self, item: Any, k: int = 10) -> pl.DataFrame:
        """The items most like one, by the vectors the method has of items (cosine), best first.

        Returns:
            item_id, score, rank (from 1), without the item itself and removed ones.

        Raises:
            DataError: k out of range, or an unknown item.
            DiffGRMError: the method knows no likeness of items.
        """
        position = int(self.items.positions([item])[0])
        if position < 0:
            raise DataError(f"the item {item!r} is not in the catalogue")
        allowed = self._allowed(k, None, None)
        scores = self._likeness(position).astype(np.float32)
        scores[position] = -np.inf
        if allowed is not None:
            scores[~allowed] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[scores[best] > -np.inf]
        return pl.DataFrame(
            {
                Columns.ITEM: self.items.gather(best),
                Columns.SCORE: scores[best],
                Columns.RANK: np.arange(1, len(best) + 1, dtype=np.int32),
            }
        )

    def _likeness(self, position: int) -> np.ndarray:
        """[I] how like each item is to one."""
        raise DiffGRMError(f"{self.recipe.recommender!r} knows no likeness of items")

    def _allowed(self, k: int, only: Iterable[Any] | None, without: Iterable[Any] | None) -> np.ndarray | None:
        return allowed_items(self.items, self._offered, k, only, without)

    def _histories(self, histories: Any, users: Iterable[Any] | None, on_empty: str) -> tuple[pl.Series, Ragged]:
        if (histories is None) == (users is None):
            raise DataError("give either histories or users")
        if users is None:
            return read_histories(histories, self.items, on_empty)
        if self._fitted_split is None:
            raise DataError("a loaded model does not keep the users' histories: pass histories= instead of users=")
        dataset, wanted = self._fitted_split.dataset, list(users)
        rows = dataset.users.positions(wanted)
        if (rows < 0).any():
            unknown = [user for user, row in zip(wanted, rows, strict=True) if row < 0]
            raise DataError(f"unknown users: {first_few(unknown)}; pass their histories=")
        return dataset.users.gather(rows), dataset.events.rows(rows)

    # ---- save and load ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the model folder, whole or not at all; a model that was there is replaced.

        Raises:
            ModelFolderError: the place is taken by something else, or writing failed (nothing is lost then).
        """
        self._check_fitted()
        folder = Path(folder)
        facts = {"recommender": self.recipe.recommender, "facts": self.facts}
        with model_folder.writing(folder, facts) as new:
            (new / RECIPE).write_text(self.recipe.to_yaml(), encoding="utf-8")
            columns = pl.Series(COUNT, self.item_counts), pl.Series(OFFERED, self.offered)
            self.item_table.with_columns(columns).write_parquet(new / ITEMS)
            self._save_files(new)
            card = model_card(type(self).__name__, self.facts, self.recipe.to_yaml(), self.items.ids([0])[0])
            (new / "README.md").write_text(card, encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a model folder.

        Raises:
            ModelFolderError: not a model folder, one of another method, or one that is not whole.
        """
        folder = Path(folder)
        return model_folder.read(folder, lambda manifest: cls._read(folder, manifest))

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any]) -> Self:
        recipe = Recipe.from_yaml(folder / RECIPE)
        found = registry.resolve("recommender", recipe.recommender)
        if not issubclass(found, cls):
            raise ModelFolderError(f"{folder} holds a {found.__name__}, not a {cls.__name__}; use diffgrm.load(folder)")
        recommender = found(recipe)
        table = pl.read_parquet(folder / ITEMS)
        recommender._item_counts = table[COUNT].to_numpy()
        if OFFERED in table.columns and not table[OFFERED].all():
            recommender._offered = table[OFFERED].to_numpy()
        recommender._item_table = table.drop(COUNT, OFFERED, strict=False)
        recommender._items = IdMap(table[Columns.ITEM])
        recommender.facts = manifest["facts"]
        recommender._load_files(folder)
        return recommender

    def _save_files(self, folder: Path) -> None:
        """Write the method's own files."""

    def _load_files(self, folder: Path) -> None:
        """Read the method's own files."""

    def save_pretrained(self, folder: str | Path) -> Path:
        """The same as :meth:`save`, by the name Hugging Face users expect."""
        return self.save(folder)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, token: str | None = None) -> Self:
        """Load from a folder, or download a repository of the Hugging Face hub and load that.

        Raises:
            ModelFolderError: neither a folder nor a repository that the hub gives, or not a model.
        """
        if Path(name).is_dir():
            return cls.load(name)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return cls.load(snapshot_download(str(name), revision=revision, token=token))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise ModelFolderError(f"{name} is neither a model folder nor a repository the hub gives: {error}") from error

    def push_to_hub(
        self, repository: str, *, private: bool = False, token: str | None = None, message: str = "Upload model"
    ) -> str:
        """Upload the model folder to a repository of the Hugging Face hub, made if it is not there; returns its URL.

        Raises:
            ModelFolderError: the hub refuses (no token, no right to write, wrong name).
        """
        import tempfile

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save(Path(temporary) / "model")
            try:
                made = api.create_repo(repository, private=private, exist_ok=True)
                api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message)
            except (HfHubHTTPError, HFValidationError) as error:
                raise ModelFolderError(f"the hub did not take the model as {repository!r}: {error}") from error
        return str(made)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree, or a build of another name
        return "unknown"


def load(folder: str | Path) -> Recommender:
    """Load a saved recommender of any method from its folder.

    Raises:
        ModelFolderError: not a model folder, or one that is not whole.
    """
    return Recommender.load(folder)
