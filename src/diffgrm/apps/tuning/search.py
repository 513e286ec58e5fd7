"""Search for the settings that do best on validation; trials never see a test event.

OUT/search.json                          what the search is about
OUT/trials.log                           Optuna's journal, from which a killed search goes on
OUT/trials.json, trials.csv, best.yaml   what has been found, written anew after every trial
OUT/report.html                          the same as a page with figures, at the end
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffgrm.apps.choosing import as_overrides, validation_score
from diffgrm.apps.machine import machine
from diffgrm.apps.reporting.figures import check_matplotlib
from diffgrm.apps.tuning.page import write_page
from diffgrm.apps.tuning.plan import Plan, Pruning
from diffgrm.apps.tuning.tables import best_of, write_tables
from diffgrm.apps.tuning.trials import Trial, Trials, optuna_or_hint
from diffgrm.data.dataset import EvaluationSet, InteractionDataset, Ragged, Split
from diffgrm.data.splits import make_split
from diffgrm.foundation import registry
from diffgrm.foundation.outputs import check_own_folder, held_folder
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import DataError, DiffGRMError, RecipeError, TokenizerError, TrainingError, bullet_list
from diffgrm.foundation.storage import atomic_file, digest
from diffgrm.semantic_ids.embeddings.base import EventContext

SEARCH, LOCK = "search.json", "search.lock"
OWN_FAULTS = (RecipeError, TokenizerError, TrainingError)  # of a trial's settings, not of the data or the machine


@dataclass(frozen=True)
class TuningResult:
    """What a search found.

    Attributes:
        recipe: the best on validation.
        score: what it has there, 0.8 NDCG@10 + 0.2 Recall@10, history filtered.
        trials: all that have ended.
    """

    recipe: Recipe
    score: float
    trials: list[Trial]


def tune(
    recipe: Recipe,
    dataset: InteractionDataset,
    space: Mapping[str, Any],
    trials: int,
    *,
    out: str | Path,
    seed: int = 0,
    pruning: Pruning = "median",
    startup: int = 5,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> TuningResult:
    """Try settings of a recipe, and choose by validation; the same call goes on where a killed one stopped.

    Proposals are those of a tree-structured Parzen estimator (Optuna's TPE); they follow from ``seed`` and earlier trials.

    Args:
        space: dotted setting -> a list of values, or a range such as ``{"min": 1e-4, "max": 1e-2, "log": True}``; numbers
            of a range are whole where all that is said of it is.
        trials: how many in all, with those that the folder holds already.
        out: folder of the search: ``best.yaml``, ``trials.csv``, ``trials.json``, ``report.html``.
        pruning: ``"median"``: a trial whose validation is below the median of the earlier ones at that epoch is given up.
        startup: so many trials are drawn at random, and none is given up before as many have ended.
        progress: show the progress bars of single fits.
        say: told what has been done, a line each time.

    Raises:
        RecipeError: a space that cannot be searched. DataError: the folder holds another search, one at work, or other
            files. DiffGRMError: no trial came to its end. MissingExtraError: Optuna or matplotlib is not installed.
    """
    return search(Plan.of(recipe, space, seed, pruning, startup), dataset, trials, Path(out), progress, say)


def search(
    plan: Plan, dataset: InteractionDataset, trials: int, out: Path, progress: bool, say: Callable[[str], None]
) -> TuningResult:
    """The same from a checked plan."""
    if trials < 1:
        raise DataError(f"trials is {trials}; expected a whole number from 1 on")
    check_matplotlib("diffgrm tune", "tune")  # before hours of trials, not after
    optuna_or_hint()
    check_place(out)
    split = without_test(plan.recipe, dataset)
    with held_folder(out, LOCK, "search"):
        _begin(out, plan, split)
        found = Trials(out, plan)
        try:
            started, made_on = time.perf_counter(), machine()
            while (count := len(found.ended())) < trials:
                _try_one(found, plan, split, progress)
                ended = found.ended()
                write_tables(out, plan, ended, made_on)
                say(_line(ended, trials, time.perf_counter() - started, count))
            ended = found.ended()
            if (best := best_of(ended)) is None:
                reasons = bullet_list(dict.fromkeys(trial.facts.get("why", trial.state) for trial in ended))
                raise DiffGRMError(f"none of {len(ended)} trials came to its end:\n{reasons}")
            write_tables(out, plan, ended, made_on)
            write_page(out, plan, ended, made_on)
        finally:
            found.close()
    assert best.score is not None
    return TuningResult(plan.trial_recipe(best.settings), best.score, ended)


def check_place(out: Path) -> None:
    """Make sure that a search may be begun in a folder, or went on with there, before its tables are read.

    Raises:
        DataError: it holds files of something else, or one may not write there.
    """
    check_own_folder(out, "a search for settings", (SEARCH, LOCK))


def without_test(recipe: Recipe, dataset: InteractionDataset) -> Split:
    """The recipe's split of a dataset as trials are given it: training events, validation, and no trace of test.

    Nothing of what trials learn from or are measured by holds a test event, nor tells how many there are.
    """
    split = make_split(dataset, recipe.data)
    nobody, none = split.validation.user_ids[:0], Ragged(np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
    known = replace(dataset, events=split.train, timestamps=None, time_type=None)
    return replace(split, dataset=known, test=EvaluationSet(nobody, none, none), facts={})


def _try_one(found: Trials, plan: Plan, split: Split, progress: bool) -> None:
    """One trial, from its proposal to its end."""
    optuna = optuna_or_hint()
    trial, settings = found.propose()
    started = time.perf_counter()
    try:
        recipe = plan.trial_recipe(settings)
        recommender = registry.resolve("recommender", recipe.recommender)(recipe)
        recommender.fit(split, progress=progress, watch=lambda epoch, score: found.watch(trial, epoch, score))
        score = validation_score(recommender, split)
    except optuna.TrialPruned:
        found.end(trial, "pruned", seconds=_since(started))
    except OWN_FAULTS as error:
        found.end(trial, "failed", why=str(error), seconds=_since(started))
    else:
        facts = {key: recommender.facts[key] for key in ("epochs", "parameters") if key in recommender.facts}
        found.end(trial, "done", score, seconds=_since(started), **facts)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)


def _line(ended: list[Trial], trials: int, seconds: float, before: int) -> str:
    """What is said of the newest trial."""
    newest, best = ended[-1], best_of(ended)
    result = newest.facts["why"].splitlines()[0] if newest.score is None and "why" in newest.facts else newest.state
    if newest.state == "done":
        result = f"{newest.score:.4f} on validation"
    ahead = "" if best is None else f" (best: {best.score:.4f}, trial {best.number})"
    settings = ", ".join(as_overrides(newest.settings))
    return f"[{before + 1}/{trials}, {seconds / 60:.0f} min] trial {newest.number}: {settings}: {result}{ahead}"


def _begin(out: Path, plan: Plan, split: Split) -> None:
    """Note what the search is about, or make sure that it is what the folder is about.

    Raises:
        DataError: it is not.
    """
    data = EventContext(split, plan.recipe.data.model_dump(), plan.recipe.seed).identity()
    about = {**plan.identity, "recipe": plan.recipe.by_content()}
    about["data"] = digest([data, split.dataset.item_table.hash_rows().sum()])
    about = json.loads(json.dumps(about))
    path = out / SEARCH
    if not path.is_file():
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); search in another folder") from error
    other = [key for key, value in about.items() if not isinstance(before, dict) or before.get(key) != value]
    if other:
        raise DataError(
            f"{out} holds a search with another {', '.join(other)}; go on with what it began with, or search in another "
            f"folder. What it began with stands in {path.name}"
        )
