"""Load on a running server: closed and open loop on loopback, every answer compared with the offline one.

Used by ``python benchmarks/run.py serve``. The load comes from the same machine, so it takes a part of its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

import diffgrm
from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe
from diffgrm.recommenders.base import Recommender

K = 10
TIE = 1e-4  # scores nearer than this are equal but for rounding, which goes by who else is in the batch


def synthetic_model(folder: Path, items: int, seed: int = 0) -> Path:
    """A model of the small Beauty sizes with random semantic IDs over many items, trained for one step or so."""
    generator = np.random.default_rng(seed)
    words = generator.integers(0, 300, (items, 3))  # few enough that all are known from the training items
    names = [f"item-{number:07d}" for number in range(items)]
    table = pl.DataFrame({"item_id": names, "text": [" ".join(f"word{w}" for w in row) for row in words]})
    users, length = 400, 8
    chosen = generator.integers(0, items, users * length)
    events = pl.DataFrame(
        {
            "user_id": np.repeat([f"user-{number}" for number in range(users)], length),
            "item_id": [names[item] for item in chosen],
            "timestamp": np.tile(np.arange(length), users),
        }
    )
    recipe = Recipe(
        recommender="diffgrm",
        embedding={"name": "lsa", "width": 16},
        tokenizer={"name": "random", "n_digits": 4, "codebook_size": 256},
        model={
            "width": 128,
            "heads": 4,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "feed_forward": 512,
        },
        training={"epochs": 1, "batch_size": 256, "validate_every": 1, "validation_users": 1},
        decoding={"name": "any_order_beam", "beam": 64},
    )
    dataset = InteractionDataset.from_tables(events, table, name=f"synthetic-{items}")
    return DiffGRMRecommender(recipe).fit(dataset, progress=False).save(folder)


class Expected:
    """Histories, and the offline answers to them.

    Args:
        width: how far is searched, a setting of the decoding such as ``{"beam": 64}``; empty: as the model does.
    """

    def __init__(self, recommender: Recommender, histories: list[list[Any]], width: Mapping[str, int]) -> None:
        self.width, self.histories = width, histories
        asked = recommender.variant([f"decoding.{name}={value}" for name, value in width.items()])
        found = asked.recommend(self.histories, K)
        self.largest_gap = 0.0  # between a score of an answer and the one at its place offline
        self.lists: list[list[tuple[str, float]]] = [[] for _ in self.histories]
        for user, item, score in found.select("user_id", "item_id", "score").iter_rows():
            self.lists[user].append((str(item), score))

    def check(self, number: int, answer: list[dict[str, Any]]) -> str:
        """equal; tied (equal but for items whose scores tie, which changed places or took the last one); or different."""
        expected, got = self.lists[number], [(str(item["item_id"]), item["score"]) for item in answer]
        if len(expected) != len(got):
            return "different"
        self.largest_gap = max([self.largest_gap, *(abs(a[1] - b[1]) for a, b in zip(expected, got, strict=True))])
        if any(abs(a[1] - b[1]) > TIE for a, b in zip(expected, got, strict=True)):
            return "different"
        if [item for item, _ in expected] == [item for item, _ in got]:
            return "equal"
        known, last = dict(expected), expected[-1][1]
        return "tied" if all(abs(score - known.get(item, last)) <= TIE for item, score in got) else "different"


class Load:
    """Clients of one server, and what they saw."""

    def __init__(self, url: str, expected: Expected, seed: int = 0) -> None:
        self.url, self.expected, self.generator = url, expected, np.random.default_rng(seed)
        self.milliseconds: list[float] = []
        self.counts = {"equal": 0, "tied": 0, "different": 0, "failed": 0}

    async def ask(self, client: httpx.AsyncClient) -> None:
        """One request for one history drawn at random."""
        number = int(self.generator.integers(len(self.expected.histories)))
        body = {"histories": [self.expected.histories[number]], "k": K, **self.expected.width}
        started = time.perf_counter()
        try:
            response = await client.post(f"{self.url}/recommend", json=body)
        except httpx.HTTPError:
            self.counts["failed"] += 1
            return
        self.milliseconds.append(1e3 * (time.perf_counter() - started))
        if response.status_code != 200:
            self.counts["failed"] += 1
        else:
            self.counts[self.expected.check(number, response.json()["lists"][0]["items"])] += 1

    async def closed(self, client: httpx.AsyncClient, clients: int, seconds: float) -> None:
        """So many clients, each of which asks again as soon as it has its answer."""
        until = time.perf_counter() + seconds

        async def one() -> None:
            while time.perf_counter() < until:
                await self.ask(client)

        await asyncio.gather(*(one() for _ in range(clients)))

    async def open(self, client: httpx.AsyncClient, rate: float, seconds: float) -> None:
        """Requests that come at random times (Poisson), so many a second, whatever the server does."""
        tasks, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until:
            tasks.append(asyncio.create_task(self.ask(client)))
            await asyncio.sleep(self.generator.exponential(1 / rate))
        await asyncio.gather(*tasks)

    def result(self, seconds: float) -> dict[str, Any]:
        """Throughput, latency and counts."""
        p50, p95, p99 = np.percentile(self.milliseconds or [np.nan], [50, 95, 99])
        return {
            "requests_per_second": round(len(self.milliseconds) / seconds, 1),
            **{f"p{q}_ms": round(float(v), 1) for q, v in ((50, p50), (95, p95), (99, p99))},
            "answers": self.counts,
            "largest_score_gap": float(f"{self.expected.largest_gap:.2g}"),
        }


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[tuple[str, int]]:
    """A server process of a model; its address and its number."""
    command = [sys.executable, "-m", "diffgrm", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = ""
    for line in process.stderr:
        if "running on" in line:
            url = line.split("running on ")[1].split()[0]
            break
    try:
        yield url, process.pid
    finally:
        process.terminate()
        process.communicate()


async def measure(
    model: Path, seconds: float, clients: Sequence[int], rates: Sequence[float], beams: Sequence[int], pool: int = 100
) -> list[dict[str, Any]]:
    """All cases for one model.

    Args:
        seconds: of each case.
        clients: of closed loops, one case each; rates: requests a second of open loops.
        beams: of models that search with a beam; others search as far as they are set to.
        pool: histories that are asked for, drawn from the catalogue's most frequent items.
    """
    recommender = diffgrm.load(model)
    generator, frequent = np.random.default_rng(0), np.argsort(-recommender.item_counts, kind="stable")[:5000]
    histories = [recommender.items.ids(generator.choice(frequent, generator.integers(2, 12))) for _ in range(pool)]
    cases: list[dict[str, Any]] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with serving(model) as (url, _), httpx.AsyncClient(limits=limits, timeout=30) as client:
        for width in [{"beam": beam} for beam in beams] if _has_beam(recommender) else [{}]:
            runs: list[tuple[dict[str, Any], Callable[[Load], Awaitable[None]]]] = [
                ({"loop": "closed", "clients": n}, lambda load, n=n: load.closed(client, n, seconds)) for n in clients
            ]
            runs += [({"loop": "open", "rate": r}, lambda load, r=r: load.open(client, r, seconds)) for r in rates]
            await Load(url, Expected(recommender, histories, width)).closed(client, 4, 1)  # warm
            for case, run in runs:
                load, started = Load(url, Expected(recommender, histories, width)), time.perf_counter()
                await run(load)
                found = load.result(time.perf_counter() - started)
                facts = {"recommender": recommender.recipe.recommender, "items": len(recommender.items)}
                cases.append({**facts, **width, **case, **found})
                print(cases[-1], flush=True)
    return cases


def serve(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All cases of the given model, else of random semantic IDs of 10^4 items, then of 10^6."""
    models = [arguments.model] if arguments.model else [synthetic_model(folder / str(n), n) for n in (10_000, 1_000_000)]
    load = arguments.seconds, arguments.clients, arguments.rates, arguments.beams
    return [case for model in models for case in asyncio.run(measure(model, *load))]


def _has_beam(recommender: Recommender) -> bool:
    recipe = recommender.recipe
    return "decoding" in recipe.sections and "beam" in recipe.decoding.options
