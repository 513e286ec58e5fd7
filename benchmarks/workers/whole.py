"""A worker that goes the whole way at a recommender's door: tables, fit, save; load, lists, evaluation; a server."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from events import held, watched
from protocol import serve as answer_requests

sys.path.insert(0, str(Path(__file__).parents[1]))
from diffgrm import InteractionDataset, Recipe, evaluate, leave_one_out, load
from diffgrm.foundation.registry import resolve
from diffgrm.recommenders.base import Recommender
from serve import Expected, Load, serving
from storefront import write_storefront


class Whole:
    """One folder of generated tables, and the models that are made of them."""

    def load(self, workload: str, items: int) -> dict[str, Any]:
        """Take a folder, and generate the tables where they are missing."""
        self.folder = Path(workload)
        if not (self.folder / "events").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_storefront(self.folder, items)
        return {}

    def read(self) -> dict[str, Any]:
        """Tables to integers; a large table comes from the cache the second time."""

        def work() -> dict[str, Any]:
            self.dataset = InteractionDataset.from_tables(self.folder / "events", self.folder / "items.parquet")
            return {"events": len(self.dataset.events.values), "users": self.dataset.n_users}

        return _measured(work)

    def fit(self, model: str, recipe: str, changes: list[str]) -> dict[str, Any]:
        """Fit a recommender; ``parts`` says what each of its parts took."""
        chosen, parts = Recipe.preset(recipe, changes), dict[str, Any]()
        self.recommender: Recommender = resolve("recommender", chosen.recommender)(chosen)
        new_parts = self.recommender.new_parts

        def timed() -> dict[str, Any]:
            made = new_parts()
            for name, part in made.items():
                vars(part)["fit"] = _timed(name, part.fit, parts)
            return made

        vars(self.recommender)["new_parts"] = timed
        found = _measured(lambda: self.recommender.fit(self.dataset, progress=False))
        for part in (self.recommender, *self.recommender.parts.values()):
            for name in ("new_parts", "fit"):
                vars(part).pop(name, None)
        found["resident_mb"] = max(found["resident_mb"], *(part["resident_mb"] for part in parts.values()))
        known = ("training_events", "steps", "epochs", "parameters", "validation")
        return {**found, "parts": parts, **{name: self.recommender.facts[name] for name in known}}

    def save(self, model: str) -> dict[str, Any]:
        """Write the model folder."""
        found = _measured(lambda: self.recommender.save(self.folder / model))
        return {**found, "folder_mb": round(sum(f.stat().st_size for f in (self.folder / model).iterdir()) / 2**20, 1)}

    def load_model(self, model: str) -> dict[str, Any]:
        """Read the model folder."""

        def work() -> None:
            self.recommender = load(self.folder / model)

        return _measured(work)

    def first_list(self, model: str) -> dict[str, Any]:
        """The first list of the model that was read, with its tables and the index."""
        asked = self._histories(1)
        return _measured(lambda: self._listed(asked))

    def lists(self, model: str, users: int = 100) -> dict[str, Any]:
        """More lists, one user at a time; and, where an index is used, what some of them share with the exact ones."""
        histories, seconds, used = self._histories(users), list[float](), list[float]()

        def work() -> None:
            for history in histories:
                started, before = time.perf_counter(), time.process_time()
                self._listed([history])
                seconds.append(time.perf_counter() - started)
                used.append(time.process_time() - before)

        found = _measured(work) | {"seconds": float(np.median(seconds)), "cpu_seconds": float(np.median(used))}
        for name, values in (("p99_ms", seconds), ("p99_cpu_ms", used)):
            found[name] = round(1e3 * float(np.percentile(values, 99)), 1)
        if "retrieval" not in self.recommender.recipe.sections:
            return found
        exact = self.recommender.variant(["retrieval.index=exact"])
        ours, theirs = (one.recommend(histories[:50], k=10)["user_id", "item_id"] for one in (self.recommender, exact))
        return {**found, "share_of_exact": round(ours.join(theirs, on=["user_id", "item_id"]).height / theirs.height, 4)}

    def evaluate(self, model: str, users: int) -> dict[str, Any]:
        """Lists of some test users, with and without their history filtered out, and the metrics."""
        split = leave_one_out(self.dataset)
        sample = split.test.sample(users, seed=0)

        def work() -> dict[str, Any]:
            found = evaluate(self.recommender, sample, self.dataset.items, split.item_counts, ks=(10,))
            return {"evaluated": found.n_users, **{name: found.metrics[name] for name in ("recall@10", "ndcg@10")}}

        return _measured(work)

    def serve(self, model: str, rate: float, seconds: float) -> dict[str, Any]:
        """A server process: its start, then requests that come at random times, each for a list of ten items."""
        return asyncio.run(self._served(self.folder / model, rate, seconds))

    async def _served(self, folder: Path, rate: float, seconds: float) -> dict[str, Any]:
        expected = Expected(self.recommender, self._histories(100), {})
        started = time.perf_counter()
        async with serving(folder) as (url, process), httpx.AsyncClient(timeout=30) as client:
            ready = time.perf_counter() - started
            await Load(url, expected).closed(client, 1, 2)  # warm
            asked, begun, used = Load(url, expected), time.perf_counter(), _used(process)
            await asked.open(client, rate, seconds)
            memory = {"own_mb": held("RssAnon", process), "resident_mb": held("VmHWM", process)}
            found = asked.result(time.perf_counter() - begun)
            found["cpu_ms_per_request"] = round(1e3 * (_used(process) - used) / max(1, sum(asked.counts.values())), 1)
        return {
            "seconds": ready,
            "cpu_seconds": used,
            **{name: round(value, 1) for name, value in memory.items()},
            "rate": rate,
            **found,
        }

    def _histories(self, count: int) -> list[list[Any]]:
        """Whole histories of the first users of the tables."""
        if not hasattr(self, "dataset"):
            self.read()
        return [self.dataset.items.ids(self.dataset.events[user]) for user in range(count)]

    def _listed(self, histories: list[list[Any]]) -> None:
        self.recommender.recommend(histories, k=10)


def _measured(work: Callable[[], Any]) -> dict[str, Any]:
    """Do something; its seconds (of the clock, and of processors), its memory (``events.watched``) and what it tells."""

    def told() -> dict[str, Any]:
        facts = work()
        return facts if isinstance(facts, dict) else {}

    started, used = time.perf_counter(), time.process_time()
    found = watched(told)
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used, **found}


def _used(process: int) -> float:
    """Seconds of processors that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _timed(name: str, fit: Any, parts: dict[str, Any]) -> Any:
    def work(task: Any) -> None:
        parts[name] = _measured(lambda: fit(task))

    return work


if __name__ == "__main__":
    worker = Whole()
    stages = ("read", "fit", "save", "load_model", "first_list", "lists", "evaluate", "serve")
    answer_requests({name: getattr(worker, name) for name in ("load", *stages)})
