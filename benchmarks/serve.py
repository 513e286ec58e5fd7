"""Load on a running server: closed and open loop on loopback, every answer compared with the offline one.

Used by ``python benchmarks/run.py serve``. The load comes from the same machine, so it takes a part of its cores.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
CLOSE = 1e-3  # of scores: what batching and rounding may change
CONCURRENCY, RATES, BEAMS = (1, 4, 16, 64), (5, 10, 20, 40), (32, 64, 128)


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
        beam: of the decoder.
        pool: how many different histories are asked for.
    """

    def __init__(self, recommender: Recommender, histories: list[list[Any]], beam: int, pool: int) -> None:
        self.beam, self.histories = beam, histories[:pool]
        found = recommender.variant([f"decoding.beam={beam}"]).recommend(self.histories, K)
        self.lists: list[list[tuple[str, float]]] = [[] for _ in self.histories]
        for user, item, score in found.select("user_id", "item_id", "score").iter_rows():
            self.lists[user].append((str(item), score))

    def check(self, number: int, answer: list[dict[str, Any]]) -> str:
        """equal; close (the same scores, but items whose scores tie stand otherwise); or wrong."""
        expected, got = self.lists[number], [(str(item["item_id"]), item["score"]) for item in answer]
        if len(expected) != len(got) or any(abs(a[1] - b[1]) > CLOSE for a, b in zip(expected, got, strict=True)):
            return "wrong"
        return "equal" if [item for item, _ in expected] == [item for item, _ in got] else "close"


class Load:
    """Clients of one server, and what they saw."""

    def __init__(self, url: str, expected: Expected, seed: int = 0) -> None:
        self.url, self.expected, self.generator = url, expected, np.random.default_rng(seed)
        self.milliseconds: list[float] = []
        self.counts = {"equal": 0, "close": 0, "wrong": 0, "failed": 0}

    async def ask(self, client: httpx.AsyncClient) -> None:
        """One request for one history drawn at random."""
        number = int(self.generator.integers(len(self.expected.histories)))
        body = {"histories": [self.expected.histories[number]], "k": K, "beam": self.expected.beam}
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
        }


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[str]:
    """A server process of a model; its address."""
    command = [sys.executable, "-m", "diffgrm", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = ""
    for line in process.stderr:
        if "running on" in line:
            url = line.split("running on ")[1].split()[0]
            break
    try:
        yield url
    finally:
        process.terminate()
        process.communicate()


async def measure(model: Path, seconds: float, pool: int = 100) -> list[dict[str, Any]]:
    """All cases for one model.

    Args:
        seconds: of each case.
        pool: histories that are asked for, drawn from the catalogue's most frequent items.
    """
    recommender = diffgrm.load(model)
    generator, frequent = np.random.default_rng(0), np.argsort(-recommender.item_counts, kind="stable")[:5000]
    histories = [recommender.items.ids(generator.choice(frequent, generator.integers(2, 12))) for _ in range(pool)]
    cases: list[dict[str, Any]] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with serving(model) as url, httpx.AsyncClient(limits=limits, timeout=30) as client:
        for beam in BEAMS:
            expected = Expected(recommender, histories, beam, pool)
            runs: list[tuple[dict[str, Any], Callable[[Load], Awaitable[None]]]] = [
                ({"loop": "closed", "clients": n}, lambda load, n=n: load.closed(client, n, seconds)) for n in CONCURRENCY
            ]
            runs += [({"loop": "open", "rate": r}, lambda load, r=r: load.open(client, r, seconds)) for r in RATES]
            await Load(url, expected).closed(client, 4, 1)  # warm
            for case, run in runs:
                load, started = Load(url, expected), time.perf_counter()
                await run(load)
                found = load.result(time.perf_counter() - started)
                cases.append({"items": len(recommender.items), "beam": beam, **case, **found})
                print(cases[-1], flush=True)
    return cases
