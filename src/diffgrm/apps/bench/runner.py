"""Runs a suite: every dataset, run and seed once, resumable, test looked at once.

OUT/models/DIGEST/            a fitted model, shared by runs that differ only in decoding and in weights of item scorers
OUT/models/DIGEST-LATE/       the same with the late settings of one run, where another uses it
OUT/models/DIGEST.run/        its checkpoints while it trains, its logs afterwards
OUT/models/DIGEST.json        what it is worth on validation, where choices were made by it
OUT/runs/DATASET/RUN/seed-0/  result.json and ranks.parquet, written when all of it is done
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm.apps.bench.checks import slug
from diffgrm.apps.bench.late import fitted_settings, late_overrides
from diffgrm.apps.bench.peers import Lists, run_peer
from diffgrm.apps.bench.suite import Run, Suite
from diffgrm.apps.bench.world import World
from diffgrm.apps.choosing import validation_score
from diffgrm.apps.semantic_ids import semantic_ids_of
from diffgrm.data.marks import PLAIN
from diffgrm.evaluation.kinds import with_kinds
from diffgrm.evaluation.metrics import evaluate
from diffgrm.evaluation.protocol import sentences
from diffgrm.foundation import registry
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.outputs import held_folder
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.run_folder import drop_checkpoints, holds_checkpoint
from diffgrm.foundation.schema import DataError, DiffGRMError
from diffgrm.foundation.sections import EvaluationSettings
from diffgrm.foundation.storage import atomic_file, digest, read_parquet, write_parquet
from diffgrm.recommenders.base import Recommender, load
from diffgrm.semantic_ids.embeddings.base import EventContext, embed_items

logger = logging.getLogger(__name__)

RESULT, RANKS, LOCK = "result.json", "ranks.parquet", "suite.lock"
RESULT_KEYS = {"dataset", "run", "seed", "identity", "metrics", "facts", "users", "ms_per_list"}
OBSERVED = 1000  # validation users whose fill order is looked at


@dataclass(frozen=True)
class Cell:
    """One dataset, run and seed.

    Attributes:
        folder: where its result stands.
        identity: of everything the result depends on.
    """

    dataset: str
    run: str
    seed: int
    recipe: Recipe | None
    folder: Path
    identity: str

    @property
    def place(self) -> tuple[str, str, int]:
        """Where it stands in the suite."""
        return self.dataset, self.run, self.seed

    def taken_over(self) -> bool:
        """Whether the result is there, whole and of this very recipe and data; it then goes by this cell's name."""
        try:
            content, _ = result_of(self.folder)
        except DataError:
            return False
        if content["identity"] != self.identity:
            return False
        if content["run"] != self.run:  # names that differ in capitals or signs have one folder
            write_result(self, content)
        return True


class Runner:
    """Works through a suite.

    Args:
        say: told what has been done, a line each time.
        progress: show progress bars of single fits.
    """

    def __init__(self, suite: Suite, out: Path, say: Callable[[str], None], progress: bool = True) -> None:
        self.suite, self.out, self.say, self.progress = suite, out, say, progress
        self.worlds: dict[EventSettings, World] = {}  # of one dataset, by how its events are read
        self.chosen: dict[tuple[str, str], dict[str, Any]] = {}
        self.done: dict[tuple[str, str, int], Cell] = {}  # by dataset, run and seed
        self.started, self.finished = time.perf_counter(), 0

    def run(self) -> dict[str, str]:
        """Everything that is not done yet; what failed, and why.

        Raises:
            DataError: somebody else runs a suite in the same folder.
        """
        with held_folder(self.out, LOCK, "suite"):
            return self._run()

    def _run(self) -> dict[str, str]:
        failed: dict[str, str] = {}
        for name in self.suite.datasets:
            failed |= self._load(name)
            for run, seed in self._order():
                if self.suite.events(run, name) not in self.worlds:  # which has been told
                    continue
                label = f"{name}, {run}, seed {seed}"
                try:
                    self._cell(name, run, seed, label)
                except DiffGRMError as error:
                    failed[label] = str(error)
                    self.say(f"{label}: {error}")
        return failed

    def _load(self, name: str) -> dict[str, str]:
        """Read a dataset, once for each section events of its runs; what failed, and why."""
        failed: dict[str, str] = {}
        self.worlds = {}
        for events in dict.fromkeys(self.suite.events(run, name) for run in self.suite.runs):
            label = name if events == PLAIN else f"{name}, events {json.dumps(events.said)}"
            try:
                world = World.load(self.suite, name, events)
            except DiffGRMError as error:
                failed[label] = str(error)
                self.say(f"{label}: {error}")
                continue
            self.worlds[events] = world
            read = [] if events == PLAIN else [f"{label}: {world.dataset.report}."]
            self.say("\n".join([f"{world.dataset!r}", *read, *sentences(world.protocol)]))
        return failed

    def _world(self, name: str, run: str) -> World:
        """A dataset as a run reads it.

        Raises:
            DataError: it could not be read so.
        """
        if (found := self.worlds.get(self.suite.events(run, name))) is None:
            raise DataError(f"{name} could not be read by the section events of the run {run!r}, which this one goes by")
        return found

    def _order(self) -> Iterator[tuple[str, int]]:
        """Runs that others are like come first."""
        names = sorted(self.suite.runs, key=lambda name: self.suite.base(name) != name)
        for name in names:
            for seed in self.suite.runs[name].seeds or self.suite.seeds:
                yield name, seed

    def results(self) -> list[tuple[dict[str, Any], pl.DataFrame]]:
        """The results of all cells that are done, as the suite says them now, in its order, each with its ranks.

        What lies in the folder of an earlier version of the suite, or of a run that failed now, is not among them.

        Raises:
            DataError: there are none.
        """
        cells = [
            self.done[place]
            for dataset in self.suite.datasets
            for run, spec in self.suite.runs.items()
            for seed in spec.seeds or self.suite.seeds
            if (place := (dataset, run, seed)) in self.done
        ]
        if not cells:
            raise DataError(f"{self.out} holds no results of the suite {self.suite.name}")
        return [result_of(cell.folder) for cell in cells]

    # ---- one cell -----------------------------------------------------------------------------------------------

    def _cell(self, name: str, run: str, seed: int, label: str) -> None:
        spec, world = self.suite.runs[run], self._world(name, run)
        folder = self.out / "runs" / world.name / slug(run) / f"seed-{seed}"
        recipe = fit = None
        if spec.peer is not None:
            script = self.suite.path(spec.peer).read_text(encoding="utf-8")
            owners = self.suite.owners(run, name).values()
            given = [fitted_settings(self._recipe(name, owner, self._choice(name, owner), seed)) for owner in owners]
            settings = [seed, spec.model_dump_json(exclude={"backbone"}), script, *given]
        else:
            choice = self._choice(name, run)
            recipe = self._recipe(name, run, choice, seed)
            fit = self._recipe(name, self.suite.fitted_by(run), choice, seed)
            settings = [recipe.by_content(), fit.by_content()]
        identity = digest([world.identity, self.suite.test_users, *settings])
        cell = Cell(world.name, run, seed, recipe, folder, identity)
        if cell.taken_over():
            self.done[cell.place] = cell
            self.finished += 1
            self.say(f"[{self._count()}] {label}: done before")
            return
        recommender = self._peer(world, spec, seed) if fit is None else self._fitted(world, fit, cell.recipe)
        content, ranks = measure(recommender, world)
        if fit is not None:
            assert isinstance(recommender, Recommender)
            model = self._model_folder(world, fit)
            content |= {"model": model.name} | observe(recommender, world, model.with_suffix(".run"))
        content |= {"choice": self.chosen.get((world.name, self.suite.base(run)), {}), "peer": cell.recipe is None}
        write(cell, content, ranks)
        self.done[cell.place] = cell
        self.finished += 1
        metric = content["metrics"]["ndcg@10"]
        self.say(f"[{self._count()}] {label}: NDCG@10 {metric:.4f} ({content['facts'].get('fit_seconds', 0):.0f} s to fit)")

    def _peer(self, world: World, spec: Run, seed: int) -> Lists:
        settings, codes, vectors = {**spec.changes, **spec.only_on.get(world.name, {}), "seed": seed}, None, None
        settings.pop("events", None)  # by which the world was read
        if (owner := settings.pop("semantic_ids_of", None)) is not None:
            recipe = self._recipe(world.name, owner, self._choice(world.name, owner), seed)
            sids = semantic_ids_of(self._fitted(self._world(world.name, owner), recipe))
            assert sids is not None  # the recipe has a tokenizer
            codes = sids.codes
        if (owner := settings.pop("vectors_of", None)) is not None:
            recipe = self._recipe(world.name, owner, self._choice(world.name, owner), seed)
            encoder = recipe.embedding.build(seed=seed)
            read = self._world(world.name, owner)
            data, context = read.dataset, EventContext(read.split, recipe.data.model_dump(), seed)
            in_training = read.split.item_counts > 0
            vectors = embed_items(encoder, data.item_table, in_training, context=context, given=data.given)
        assert spec.peer is not None
        python = self.suite.path(spec.python or Path(".venv/bin/python"))
        return run_peer(self.suite.path(spec.peer), python, world.dataset, world.split, settings, codes, vectors)

    def _count(self) -> str:
        cells = len(list(self._order())) * len(self.suite.datasets)
        elapsed = time.perf_counter() - self.started
        return f"{self.finished}/{cells}, {elapsed / 60:.0f} min"

    def _recipe(self, name: str, run: str, choice: dict[str, Any], seed: int) -> Recipe:
        """The recipe of a run; what it uses of other runs are their folders, which are fitted now or before."""
        recipe, found = self.suite.recipe(run, name, choice, seed), []
        for setting, used in self.suite.uses(run).items():
            folders = [self._folder_used(name, other, seed) for other in used]
            found.append(f"model.{setting}={json.dumps(folders if setting == 'members' else folders[0])}")
        return recipe.override(found) if found else recipe

    def _folder_used(self, name: str, run: str, seed: int) -> str:
        """Where the fitted model of a run lies, with the late settings of that very run, for another that uses it."""
        world, recipe = self._world(name, run), self._recipe(name, run, self._choice(name, run), seed)
        folder, saved = self._model_folder(world, recipe), self._saved(world, recipe)
        as_said = saved.variant(late_overrides(recipe, saved.recipe))
        if as_said.recipe != saved.recipe:  # it was fitted for a run that decodes otherwise
            folder = folder.with_name(f"{folder.name}-{digest([as_said.recipe.by_content()])[:8]}")
            if not folder.is_dir():
                as_said.save(folder)
        return str(folder.resolve())

    def _choice(self, name: str, run: str) -> dict[str, Any]:
        """The settings of a run that do best on validation, by the first seed. Test is not looked at."""
        base = self.suite.base(run)
        choices = self.suite.choices(base)
        if len(choices) > 1 and (name, base) not in self.chosen:
            scores, world = [], self._world(name, base)
            recipes = [self._recipe(name, base, choice, self.suite.seeds[0]) for choice in choices]
            share_fits = len({self._model_folder(world, recipe) for recipe in recipes}) < len(recipes)
            for choice, recipe in zip(choices, recipes, strict=True):
                scores.append(self._validation_score(world, recipe, share_fits))
                self.say(f"{name}, {base}: {choice} has {scores[-1]:.4f} on validation")
            self.chosen[name, base] = choices[int(np.argmax(scores))]
        return self.chosen.get((name, base), choices[0])

    def _validation_score(self, world: World, recipe: Recipe, anew: bool) -> float:
        """See :func:`validation_score`; found once and kept."""
        identity = digest([world.identity, recipe.by_content()])[:16]
        kept = self.out / "models" / f"{identity}.json" if anew else self._model_folder(world, recipe).with_suffix(".json")
        with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged: found now
            return float(json.loads(kept.read_text(encoding="utf-8"))["val_score"])
        score = validation_score(self._fitted(world, recipe), world.split, anew)
        with atomic_file(kept) as path:
            path.write_text(json.dumps({"val_score": score}) + "\n", encoding="utf-8")
        return score

    def _fitted(self, world: World, recipe: Recipe, used_as: Recipe | None = None) -> Recommender:
        """The recommender, fitted now or before, with its late settings or those of another recipe."""
        saved = self._saved(world, recipe)
        return saved.override(late_overrides(used_as or recipe, saved.recipe))

    def _saved(self, world: World, recipe: Recipe) -> Recommender:
        """The recommender as its folder has it, fitted now or before; a fit that was killed goes on where it stopped."""
        folder = self._model_folder(world, recipe)
        if not folder.is_dir():
            run = folder.with_suffix(".run")
            resume = holds_checkpoint(run)
            if not resume and run.is_dir():
                shutil.rmtree(run)
            recommender = registry.resolve("recommender", recipe.recommender)(recipe)
            recommender.fit(world.dataset, run_folder=run, resume=resume, progress=self.progress)
            recommender.save(folder)
            drop_checkpoints(run)
        return load(folder, trust_code=self.suite.own_classes).to("auto")

    def _model_folder(self, world: World, recipe: Recipe) -> Path:
        return self.out / "models" / digest([world.identity, fitted_settings(recipe)])[:16]


# ---- measuring --------------------------------------------------------------------------------------------------------


def measure(recommender: Any, world: World) -> tuple[dict[str, Any], pl.DataFrame]:
    """Test metrics, facts and times; and the ranks of every held-out event with what tables are broken down by."""
    split, started = world.split, time.perf_counter()
    said = recommender.recipe.evaluation if isinstance(recommender, Recommender) else EvaluationSettings.model_validate({})
    texts = world.texts if said.diversity else None
    found = evaluate(recommender, split.test, world.dataset.items, split.item_counts, ks=said.ks, texts=texts)
    seconds = time.perf_counter() - started
    content = {
        "metrics": found.metrics,
        "facts": recommender.facts,
        "recipe": recommender.recipe.to_dict() if isinstance(recommender, Recommender) else None,
        "users": found.n_users,
        "lists": found.n_lists,
        "protocol": world.protocol,
        "events": world.dataset.event_settings.said,
        "asked": digest([split.test.user_ids.to_list(), split.test.targets.values, split.test.targets.offsets]),
        "evaluation_seconds": round(seconds, 2),
        "ms_per_list": round(1e3 * seconds / (2 * found.n_lists), 3),
    }
    return content, with_kinds(found.per_user, split.test, split.train, split.item_counts)


def observe(recommender: Recommender, world: World, run_folder: Path) -> dict[str, Any]:
    """What pictures are drawn of: the use of codes, the order in which digits are filled, their difficulty in training."""
    found: dict[str, Any] = {}
    if (sids := semantic_ids_of(recommender)) is not None:
        found["code_counts"] = [
            np.bincount(column, minlength=size).tolist()
            for column, size in zip(sids.codes.T, sids.codebook_sizes, strict=True)
        ]
    if hasattr(recommender, "fill_order"):
        users = np.arange(min(OBSERVED, len(world.split.validation)))
        found["fill_order"] = recommender.fill_order(world.split.validation.histories.rows(users)).tolist()
    paths = sorted(run_folder.glob("logs/part_*/metrics.csv"))
    logs = [pl.read_csv(path.read_bytes(), infer_schema_length=None) for path in paths]
    if logs:
        table = pl.concat(logs, how="diagonal_relaxed")
        names = [name for name in table.columns if name.startswith("val_")]
        if names:
            curve = table.filter(pl.col("val_score").is_not_null()).unique("epoch", keep="last").sort("epoch")
            found["curves"] = {"epoch": curve["epoch"].to_list(), **{name: curve[name].to_list() for name in names}}
    return found


def write(cell: Cell, content: dict[str, Any], ranks: pl.DataFrame) -> None:
    """The result of a cell; ``result.json`` comes last, so that it vouches for the rest."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(cell.folder / RANKS) as path:
        write_parquet(ranks, path)
    write_result(cell, content)


def write_result(cell: Cell, content: dict[str, Any]) -> None:
    """``result.json`` of a cell, under the cell's name."""
    header = {"dataset": cell.dataset, "run": cell.run, "seed": cell.seed, "identity": cell.identity}
    with atomic_file(cell.folder / RESULT) as path:
        path.write_text(json.dumps({**header, **content, **header}, indent=1, default=str) + "\n", encoding="utf-8")


def result_of(folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """What :func:`write` has written into the folder of a cell.

    Raises:
        DataError: some of it is gone or damaged.
    """
    path, anew = folder / RESULT, "run the suite again, which measures it anew"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {anew}") from error
    if not isinstance(content, dict) or not content.keys() >= RESULT_KEYS:
        raise DataError(f"{path} is no result of a run: expected a mapping with {', '.join(sorted(RESULT_KEYS))}; {anew}")
    try:
        return content, read_parquet(folder / RANKS)
    except DataError as error:
        raise DataError(f"{error}; {anew}") from error
