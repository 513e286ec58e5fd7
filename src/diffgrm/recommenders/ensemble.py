"""An ensemble: recommenders that were fitted apart, and a weighted sum of their scores."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.evaluation.metrics import accuracy, selection_score
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.run_folder import holds_checkpoint
from diffgrm.foundation.schema import DataError, ModelFolderError, RecipeError
from diffgrm.foundation.storage import State
from diffgrm.ranking.query import Query, top_k_of_scores
from diffgrm.ranking.score_fusion import ScoreFusion, highest_probability
from diffgrm.recommenders import inner, packing
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.fitting import check_context
from diffgrm.recommenders.parts import Beside, FitTask, ItemChange, LearntPart, check_model, part_of

WEIGHTS = "weights.safetensors"
AT_ONCE = 2**21  # scores (users x items) of a member that are held at once while weights are chosen


class Members(LearntPart):
    """The recommenders of an ensemble: read from their folders or fitted first, all on the same training events.

    Attributes:
        recommenders: in order; there once they are fitted or loaded.
    """

    reads_context = True  # each of them does

    def __init__(self) -> None:
        self.recommenders: list[Recommender] = []

    def check(self, task: FitTask) -> None:
        """See :meth:`LearntPart.check`; folders are read, and recipes of members that are fitted first are checked.

        Raises:
            DataError: folders that hold no model, or one that was fitted on other events or items.
            RecipeError: recipes or weights that cannot be.
        """
        named = task.recipe.model.options["members"]
        if named is None:
            raise RecipeError(
                "model.members is null, which says that a saved model holds them; name folders of fitted recommenders, or "
                "recipes, to fit an ensemble"
            )
        fusion(task.recipe).check(len(named))
        self.recommenders = [
            inner.read(Path(member), task.split, "model.members")
            if isinstance(member, str)
            else inner.planned(member, task.recipe, "model.members")
            for member in named
        ]
        folders = {number for number, member in enumerate(named) if isinstance(member, str)}
        self.recommendable = inner.taken_over([self.recommenders[number] for number in sorted(folders)])
        for number, recommender in enumerate(self.recommenders):
            if number not in folders:  # those of folders have been fitted with the same events
                check_context(recommender.recipe, recommender.new_parts())

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        named = task.recipe.model.options["members"]
        for number, (member, recommender) in enumerate(zip(named, self.recommenders, strict=True)):
            if not isinstance(member, str):
                run = None if task.run_folder is None else task.run_folder / f"member_{number}"
                resume = task.resume and run is not None and holds_checkpoint(run)
                recommender.fit(task.split, run_folder=run, resume=resume, progress=task.progress)
        task.facts["members"] = [member.recipe.recommender for member in self.recommenders]
        sizes = [member.facts.get("parameters") or 0 for member in self.recommenders]
        task.facts["parameters"] = sum(sizes) or None

    def items_changed(self, change: ItemChange) -> Self:
        """See :meth:`LearntPart.items_changed`."""
        if change.new:
            return self._with([member.add_items(change.rows) for member in self.recommenders])
        return self._with([member.update_items(change.rows, "move") for member in self.recommenders])

    def to(self, device: str, precision: Literal["32", "bf16"]) -> Self:
        """See :meth:`LearntPart.to`."""
        return self._with([copy.copy(member).to(device, precision) for member in self.recommenders])

    def compile(self) -> bool:
        """See :meth:`LearntPart.compile`."""
        found = [part.compile() for member in self.recommenders for part in member.parts.values()]
        for member in self.recommenders:
            member.take(member.parts, member.catalogue, member.facts)
        return any(found)

    def _with(self, recommenders: list[Recommender]) -> Self:
        changed = copy.copy(self)
        changed.recommenders = recommenders
        return changed

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`: whole copies, a file each."""
        for number, member in enumerate(self.recommenders):
            State(packing.packed(member)).save(folder / member_file(number))

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load` and :func:`diffgrm.recommenders.inner.loaded`."""
        paths: list[Path] = []
        while (path := folder / member_file(len(paths))).exists():
            paths.append(path)
        if len(paths) < 2:
            raise ModelFolderError(f"{folder} holds {len(paths)} members of an ensemble; expected two or more")
        self.recommenders = [inner.loaded(path, beside.n_items) for path in paths]


class Weights(LearntPart):
    """The weights of an ensemble's members, the best on validation where the recipe does not say them.

    Attributes:
        chosen: see :meth:`ScoreFusion.choices`.
    """

    chosen: np.ndarray

    def fit(self, task: FitTask) -> None:
        """See :meth:`LearntPart.fit`."""
        how, members = fusion(task.recipe), part_of(task.parts, "members", Members).recommenders
        choices = list(how.choices(len(members)))
        self.chosen = choices[0]
        if len(choices) > 1:
            users = task.split.validation.sample(how.validation_users, task.recipe.seed)
            metrics = _on_validation(how, members, choices, users)
            best = int(np.argmax([selection_score(m["ndcg@10"], m["recall@10"]) for m in metrics]))
            self.chosen = choices[best]
            found = {f"val_{name}": metrics[best][name] for name in ("ndcg@10", "recall@10")}
            score = selection_score(metrics[best]["ndcg@10"], metrics[best]["recall@10"])
            task.facts["validation"] = {**found, "val_score": score}
        task.facts["weights"] = self.chosen.tolist()

    def save(self, folder: Path) -> None:
        """See :meth:`LearntPart.save`."""
        State({"chosen": self.chosen}).save(folder / WEIGHTS)

    def load(self, folder: Path, recipe: Recipe, beside: Beside) -> None:
        """See :meth:`LearntPart.load`."""
        found = State.load(folder / WEIGHTS).arrays["chosen"]
        count = len(part_of(beside.parts, "members", Members).recommenders)
        expected = (2,) if fusion(recipe).weighting == "certainty" else (count,)
        if found.shape != expected or found.dtype != np.float64 or not (np.isfinite(found) & (found >= 0)).all():
            raise ModelFolderError(
                f"{folder / WEIGHTS} holds {found.dtype} numbers of the shape {found.shape}; expected float64 of "
                f"{expected}, finite and from 0"
            )
        self.chosen = found


class EnsembleRecommender(Recommender):
    """Several recommenders that were fitted apart, ranked by a weighted sum of their scores (:class:`ScoreFusion`).

    Every member is asked through its own door for its list of all items, whatever the filters are, so that filters do not
    change the order of what is left. A member of weight 0 is not asked, and one of weight 1 gives its own list and scores.

    Example:
        >>> from diffgrm import Recipe, toy_world
        >>> members = [{"recommender": "item_knn"}, {"recommender": "text_knn"}]
        >>> recipe = Recipe(recommender="ensemble", model={"members": members})
        >>> recommender = EnsembleRecommender(recipe).fit(toy_world(users=50, seed=1).dataset, progress=False)
        >>> recommender.recommend(users=["user 0"], k=3).columns
        ['user_id', 'item_id', 'score', 'rank']
    """

    name = "ensemble"
    sections: ClassVar[tuple[str, ...]] = ("model",)

    def new_parts(self) -> dict[str, LearntPart]:
        """See :meth:`Recommender.new_parts`."""
        check_model(self.recipe, "scaled", "choices")
        return {"members": Members(), "weights": Weights()}

    @property
    def members(self) -> list[Recommender]:
        """The recommenders, in order."""
        return part_of(self.parts, "members", Members).recommenders

    @property
    def weights(self) -> np.ndarray:
        """[m] the members' weights, or [2] q and tau where those follow certainty."""
        return part_of(self.parts, "weights", Weights).chosen

    @property
    def takes_new_items(self) -> bool:
        """Whether all members do."""
        return all(member.takes_new_items for member in self.members)

    def _rank(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        how, chosen = fusion(self.recipe), self.weights
        if (only := self._only_member) is not None:
            return only._rank(query)
        return top_k_of_scores(query, lambda rows: _fused(how, self.members, chosen, query.histories.rows(rows), query.k))

    @property
    def takes_offsets(self) -> bool:
        """Whether the sum does, or the one member that is asked."""
        only = self._only_member
        return only is None or only.takes_offsets

    @property
    def _only_member(self) -> Recommender | None:
        """The member of which the list is, where the others have no weight."""
        chosen = self.weights
        alone = fusion(self.recipe).weighting == "constant" and np.count_nonzero(chosen) == 1
        return self.members[int(chosen.argmax())] if alone else None

    def _similarity(self, position: int, others: np.ndarray | None = None) -> np.ndarray:
        """What the first member finds similar."""
        return self.members[0]._similarity(position, others)


def fusion(recipe: Recipe) -> ScoreFusion:
    """How a recipe sums scores."""
    found = recipe.model.build()
    assert isinstance(found, ScoreFusion)
    return found


def member_file(number: int) -> str:
    """The file of a member.

    >>> member_file(0)
    'member-0.safetensors'
    """
    return f"member-{number}.safetensors"


def _lists(how: ScoreFusion, members: list[Recommender], histories: Ragged, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each member's best items [U, M], -1 after the last, and their scores [U, M]."""
    n_items = len(members[0].items)
    depth = n_items if how.depth is None else min(max(how.depth, k), n_items)
    return [member._rank(Query(histories, depth, exclude_seen=False)) for member in members]


def _fused(how: ScoreFusion, members: list[Recommender], chosen: np.ndarray, histories: Ragged, k: int) -> np.ndarray:
    """[U, I] the weighted sum of what members say of all items; those of weight 0 are not asked."""
    asked = [number for number in range(len(members)) if how.weighting != "constant" or chosen[number]]
    lists = _lists(how, [members[number] for number in asked], histories, k)
    weights = how.user_weights(chosen, highest_probability(*lists[0]))[:, asked]
    n_items = len(members[0].items)
    scaled = (how.scaled(*found, n_items) for found in lists)
    return sum(weight[:, None] * scores for weight, scores in zip(weights.T.astype(np.float32), scaled, strict=True))


def _on_validation(
    how: ScoreFusion, members: list[Recommender], choices: list[np.ndarray], validation: EvaluationSet
) -> list[dict[str, float]]:
    """The metrics of every choice of weights on validation, by item, history filtered.

    Raises:
        DataError: nobody is held out for validation.
    """
    if len(validation) == 0:
        raise DataError("nobody is held out for validation, by which weights are chosen; say model.weights")
    n_items, ranks = len(members[0].items), [list[np.ndarray]() for _ in choices]
    for rows in np.array_split(np.arange(len(validation)), 1 + len(validation) * n_items // AT_ONCE):
        histories, targets = validation.histories.rows(rows), validation.targets.rows(rows)
        lists = _lists(how, members, histories, 1)
        scaled, first = [how.scaled(*found, n_items) for found in lists], highest_probability(*lists[0])
        for choice, found in zip(choices, ranks, strict=True):
            weights = how.user_weights(choice, first).T.astype(np.float32)
            total = sum(weight[:, None] * scores for weight, scores in zip(weights, scaled, strict=True))
            found.append(_ranks(total, histories, targets))
    return [accuracy(Ragged(np.concatenate(found), validation.targets.offsets), (10,)) for found in ranks]


def _ranks(scores: np.ndarray, histories: Ragged, targets: Ragged) -> np.ndarray:
    """[T] ranks of targets among all items but those of the history; equal scores are in order of item position.

    >>> _ranks(np.array([[3.0, 2.0, 2.0, 9.0]]), Ragged.from_lists([[3]]), Ragged.from_lists([[2, 3]])).tolist()
    [3, 0]
    """
    seen = histories.seen()
    scores[np.repeat(np.arange(len(seen)), seen.lengths), seen.values] = -np.inf
    user = np.repeat(np.arange(len(targets)), targets.lengths)
    rows = scores if (targets.lengths == 1).all() else scores[user]
    own = scores[user, targets.values]
    ranks = 1 + (rows > own[:, None]).sum(1)
    row, column = np.nonzero(rows == own[:, None])
    ranks += np.bincount(row[column < targets.values[row]], minlength=len(ranks))
    return np.where(own > -np.inf, ranks, 0)
