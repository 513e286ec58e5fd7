"""Recommender: fit, recommend, save and load, the same for every method.

The door checks, maps ids and builds tables once; a method says what it learns (``new_parts``) and how it ranks (``_rank``).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import polars as pl

from diffgrm.data.asking import with_moments, with_profiles
from diffgrm.data.context import EVENTS_FROM, check_clock
from diffgrm.data.dataset import InteractionDataset, Ragged, Split
from diffgrm.data.frames import is_list
from diffgrm.data.histories import histories_of, read_histories
from diffgrm.data.ids import IdMap
from diffgrm.data.profiles import Profiles
from diffgrm.foundation import registry
from diffgrm.foundation.after_fit import changed_after_fit
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import DataError, DiffGRMError, ModelFolderError, RecipeError
from diffgrm.ranking.item_rules import ItemRules
from diffgrm.ranking.query import Query
from diffgrm.ranking.ruled import rank_by_rules
from diffgrm.ranking.rules import read_rules
from diffgrm.recommenders import fitting, saving
from diffgrm.recommenders.answers import answer_table, candidate_items, similar_table
from diffgrm.recommenders.changing_items import ChangesItems
from diffgrm.recommenders.going_on import GoesOn
from diffgrm.recommenders.hub import OnTheHub
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.parts import LearntPart
from diffgrm.recommenders.user_profiles import USERS, UserProfiles, user_parts


class Recommender(OnTheHub, GoesOn, ChangesItems):
    """The one door: ``fit`` on a dataset, ``recommend`` for histories, ``save`` and ``load``.

    Args:
        recipe: settings; None is the method's defaults.

    Attributes:
        parts: what is learnt, by name, in the order in which it is.
        facts: what the model card tells of the fit.

    Raises:
        RecipeError: the recipe is for another method.
    """

    name: ClassVar[str]
    takes_read_histories: ClassVar[bool] = True  # of evaluation
    sections: ClassVar[tuple[str, ...]] = ()  # recipe sections that the method uses besides the common ones

    def __init__(self, recipe: Recipe | None = None) -> None:
        self.recipe = recipe or Recipe(recommender=self.registered_name())
        if not isinstance(self, registry.resolve("recommender", self.recipe.recommender)):
            raise RecipeError(
                f"the recipe is for the recommender {self.recipe.recommender!r}, not for {type(self).__name__}; write "
                f"recommender: {self.registered_name()}"
            )
        self.parts: dict[str, LearntPart] = {}
        self.facts: dict[str, Any] = {}
        self._catalogue: ItemCatalogue | None = None
        self._fitted_split: Split | None = None
        self._ruled: tuple[ItemCatalogue, ItemRules] | None = None  # the last rules that were asked for

    @classmethod
    def registered_name(cls) -> str:
        """The name under which recipes know this class."""
        return cls.__dict__.get("name") or f"{cls.__module__}:{cls.__qualname__}"

    # ---- what a method says -------------------------------------------------------------------------------------

    def new_parts(self) -> dict[str, LearntPart]:
        """What the recipe's method learns, not yet fitted, in the order in which it is learnt."""
        return {}

    @property
    def takes_new_items(self) -> bool:
        """Whether the method can say something of items without events."""
        return True

    @abstractmethod
    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k], best first, -1 after the last, and their scores [U, k]."""

    @property
    def takes_offsets(self) -> bool:
        """Whether ``_rank`` adds what :attr:`Query.offsets` says to the scores of all items."""
        return False

    def _similarity(self, position: int, others: np.ndarray | None = None) -> np.ndarray:
        """How similar others (positions [M]; None: all items) are to one item."""
        raise DiffGRMError(f"{self.recipe.recommender!r} knows no similarity of items")

    def _forget(self) -> None:
        """Drop what was made from the parts, the catalogue or the recipe for use."""

    def _recipe_changed(self) -> None:
        """Drop what was made from the recipe's late settings."""
        self._forget()

    # ---- the catalogue ------------------------------------------------------------------------------------------

    @property
    def catalogue(self) -> ItemCatalogue:
        """The items that are known.

        Raises:
            DiffGRMError: not fitted.
        """
        if self._catalogue is None:
            raise DiffGRMError(f"this {type(self).__name__} is not fitted: call fit(dataset) or load(folder) first")
        return self._catalogue

    @property
    def items(self) -> IdMap:
        """Item ids and their positions."""
        return self.catalogue.ids

    @property
    def item_table(self) -> pl.DataFrame:
        """The item table; row i is item position i."""
        return self.catalogue.table

    @property
    def item_counts(self) -> np.ndarray:
        """[I] training events of every item."""
        return self.catalogue.counts

    @property
    def recommendable(self) -> np.ndarray:
        """[I] bool, items that may be recommended: all but removed ones."""
        found = self.catalogue.recommendable
        return np.ones(len(self.items), dtype=bool) if found is None else found

    def fit(
        self,
        dataset: InteractionDataset | Split,
        *,
        run_folder: str | Path | None = None,
        resume: bool = False,
        progress: bool = True,
        watch: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Learn from the training part of the recipe's split; validation chooses, test is not looked at.

        Args:
            dataset: users, items and events; or the recipe's split of them, which may lack test events.
            run_folder: where checkpoints and logs of methods that train go; None is a temporary folder.
            resume: go on from the last checkpoint in ``run_folder``.
            progress: show progress bars.
            watch: told the epoch and the score of every validation of a network; what it raises ends the training.

        Raises:
            DataError: data that cannot be split or learnt from.
            RecipeError: settings that do nothing beside the others, parts that do not go together, or another split.
        """
        self.recipe.refuse_idle()
        self._catalogue, self.parts = None, {}  # until all has gone well
        self._forget()
        parts, folder = user_parts(self.recipe) | self.new_parts(), Path(run_folder) if run_folder is not None else None
        learnt = fitting.learn(self.recipe, parts, dataset, folder, resume, progress, watch)
        self._fitted_split = learnt.split
        self.take(parts, learnt.catalogue, learnt.facts)
        return self

    def variant(self, overrides: Iterable[str]) -> Self:
        """The same fitted recommender with other decoding or evaluation settings; this one stays as it is.

        Both share what has been learnt and the tables of the catalogue.

        Raises:
            RecipeError: see :meth:`override`.
        """
        changed = copy.copy(self)
        changed.recipe, changed._ruled = changed_after_fit(self.recipe, overrides), None
        changed.parts = {name: part.recipe_changed(changed.recipe) for name, part in self.parts.items()}
        changed._recipe_changed()
        return changed

    def override(self, overrides: Iterable[str]) -> Self:
        """Change how a fitted recommender decodes, weighs or is evaluated: ``["decoding.beam=256", "data.target=last"]``.

        Raises:
            RecipeError: overrides of settings that fitting has used up, or that do nothing beside the others; nothing has
                changed then.
        """
        vars(self).update(vars(self.variant(overrides)))
        return self

    def to(self, device: str, precision: Literal["32", "bf16"] = "32") -> Self:
        """Move what computes to a torch device, ``"auto"`` being a GPU if there is one; returns the recommender.

        Args:
            precision: of the network in use, not of what is saved: ``"32"``; or ``"bf16"``, faster on GPUs and on CPUs with
                matrix units (AMX), with scores that differ in the second or third decimal.

        Raises:
            DiffGRMError: not fitted, another precision, or a device that is not there.
        """
        from diffgrm.recommenders.checks import usable_device  # which needs PyTorch

        usable_device(device, precision)
        self.take({name: part.to(device, precision) for name, part in self.parts.items()}, self.catalogue, self.facts)
        return self

    def compile(self) -> Self:
        """Run the network's layers through ``torch.compile`` in this process: minutes at first use, pays on GPUs only.

        Raises:
            DiffGRMError: not fitted, or without a network.
        """
        catalogue = self.catalogue
        if not any([part.compile() for part in self.parts.values()]):  # a list: each of them
            raise DiffGRMError(f"{self.recipe.recommender!r} has no network to compile")
        self.take(self.parts, catalogue, self.facts)
        return self

    def recommend(
        self,
        histories: Any = None,
        k: int = 10,
        *,
        users: Any = None,
        exclude_seen: bool = True,
        only: Any = None,
        without: Any = None,
        rules: Any = None,
        on_empty: Literal["error", "skip"] = "error",
        at: Any = None,
        profiles: Any = None,
        progress: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        """The k best items for each history.

        Args:
            histories: a table (path or frame) of user_id, item_id and perhaps timestamp; or item ids, oldest first: of
                one user, a list of such lists, or a mapping user -> item ids.
            k: items for each user.
            users: instead of histories, users of the dataset it was fitted on in this process, by id: all it has of them.
            exclude_seen: leave out what is in the user's history.
            only: items that may be recommended: an id, a list, set, array or series of ids, a table with ``item_id``, or
                the ``Path`` of one; None is all.
            without: items that may not be recommended.
            rules: what is wanted besides: :class:`diffgrm.Rules`, a mapping of them, or the path of a YAML file.
            on_empty: users without a known item: ``"error"``, or ``"skip"`` them; where nobody is left, the table is empty.
            at: of models that are told of times: when the lists are asked for, a time (see
                :func:`diffgrm.data.asking.seconds_of`) or a mapping user -> time; None: at each user's newest event.
            profiles: of models that are told of columns of users: a table of ``user_id`` and them, or a mapping user ->
                column -> value; others are as they were at fit, and nothing is known of users who were not there.
            progress: called with the number of users done since the last call.

        Returns:
            user_id, item_id, score, rank (from 1), best first; fewer than k rows where fewer items are possible. Scores
            less than some 1e-5 apart may change places with the number of users asked at once. With rules, scores need not
            fall, and are null of items that no search scored beside the others.

        Raises:
            DataError: k out of range, unusable histories or rules, unknown users, or filters that know or leave no item.
        """
        candidates = self.candidates(k, only, without, ruled := self.item_rules(rules))
        user_ids, positions = self.read_histories(histories, users, on_empty, at, profiles)
        query = Query(positions, k, exclude_seen, candidates, progress)
        items, scores = rank_by_rules(self._rank, query, ruled, len(self.items), self.takes_offsets)
        return answer_table(user_ids, self.items, items, scores)

    def similar_items(self, item: Any, k: int = 10) -> pl.DataFrame:
        """The items most similar to one, by the vectors the method has of items (cosine), best first.

        Returns:
            item_id, score, rank (from 1), without the item itself and removed ones.

        Raises:
            DataError: k out of range, or an unknown item.
            DiffGRMError: the method knows no similarity of items.
        """
        if (position := int(self.items.positions([item])[0])) < 0:
            raise DataError(f"the item {item!r} is not in the catalogue")
        return similar_table(self.items, position, self._similarity(position), self.candidates(k, None, None), k)

    def item_rules(self, rules: Any) -> ItemRules | None:
        """Rules as the catalogue understands them; None: there are none. Argument and errors as of :meth:`recommend`."""
        if (found := read_rules(rules)) is None:
            return None
        kept = self._ruled  # read once, since several threads may ask for rules
        if kept is None or kept[0] is not self.catalogue or kept[1].rules != found:
            kept = self._ruled = self.catalogue, ItemRules.of(found, self.items, self.item_table, self._similarity)
        return kept[1]

    def candidates(self, k: int, only: Any, without: Any, rules: ItemRules | None = None) -> np.ndarray | None:
        """[I] bool, what may be recommended to a question; None is all. Arguments and errors as of :meth:`recommend`."""
        where = None if rules is None else rules.where
        return candidate_items(self.items, self.catalogue.recommendable, k, only, without, where)

    def read_histories(
        self, histories: Any, users: Any = None, on_empty: str = "error", at: Any = None, profiles: Any = None
    ) -> tuple[pl.Series, Ragged]:
        """User ids [U] and item positions of every user, oldest first; arguments and errors as of :meth:`recommend`."""
        if (histories is None) == (users is None):
            raise DataError("give either histories or users")
        if users is None:
            ids, rows = read_histories(histories, self.items, on_empty, self.recipe.events)
        elif self._fitted_split is None:
            raise DataError("a loaded model does not keep the users' histories: pass histories= instead of users=")
        else:
            ids, rows = histories_of(self._fitted_split.dataset, users)
        check_clock(rows.marks.times, self.recipe.events, self.facts.get(EVENTS_FROM))
        numbered = users is None and is_list(histories)
        return ids, with_profiles(ids, with_moments(ids, rows, at), profiles, self.profiles, not numbered)

    @property
    def profiles(self) -> Profiles | None:
        """What is kept of users; None where networks are told nothing of them."""
        part = self.parts.get(USERS)
        return part.profiles if isinstance(part, UserProfiles) else None

    def save(self, folder: str | Path) -> Path:
        """Write the model folder, whole or not at all; a model that was there is replaced.

        Raises:
            ModelFolderError: the place is taken by something else, or writing failed (nothing is lost then).
        """
        return saving.write(self, Path(folder))

    @classmethod
    def _unloaded(cls, recipe: Recipe) -> Self:
        found = registry.resolve("recommender", recipe.recommender)
        if not issubclass(found, cls):
            raise ModelFolderError(f"the folder holds a {found.__name__}, not a {cls.__name__}; use diffgrm.load(folder)")
        return found(recipe)

    @classmethod
    def load(cls, folder: str | Path, *, trust_code: Trust = False) -> Self:
        """Read a model folder. Nothing that it names is run but diffgrm's own parts.

        Args:
            trust_code: True also imports classes of others that its recipe names as ``module:Class``; or their names.

        Raises:
            ModelFolderError: not a model folder, of another method, not whole, or with code that is not trusted.
        """
        return saving.read(Path(folder), cls._unloaded, trust_code)

    def take(self, parts: dict[str, LearntPart], catalogue: ItemCatalogue, facts: dict[str, Any]) -> None:
        """Go over to learnt parts, their catalogue, and what their fit noted."""
        self.parts, self._catalogue, self.facts = parts, catalogue, facts
        self._forget()


def load(folder: str | Path, *, trust_code: Trust = False) -> Recommender:
    """Load a saved recommender of any method from its folder; arguments and errors as of :meth:`Recommender.load`."""
    return Recommender.load(folder, trust_code=trust_code)
