"""Batch jobs on a Ray of this machine's: workers that die, a job that is killed. Few tests, for each starts processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import Recipe
from diffgrm.apps.batch_jobs import embed_batch, recommend_batch, recommending
from diffgrm.apps.batch_jobs.engine import Pool
from diffgrm.apps.batch_jobs.user_events import buckets_of
from diffgrm.foundation.schema import DataError, DiffGRMError
from helpers.batch_jobs import check_same_lists, lists, write_parts
from parts.fragile import Fragile

pytest.importorskip("ray.data")
TESTS = Path(__file__).parents[1]
TRUST = ["parts.fragile:Fragile"]
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_AUTH_MODE": "disabled"}
PATIENCE = 120  # seconds


@pytest.fixture(scope="module", autouse=True)
def flags(tmp_path_factory):
    """The folder of the files that tell :class:`Fragile` what to do; and a Ray."""
    folder = tmp_path_factory.mktemp("flags")
    patch = pytest.MonkeyPatch()
    for name, value in QUIET.items():
        patch.setenv(name, value)
    patch.setenv("FRAGILE", str(folder))
    patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]))  # of workers
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield folder
    ray.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def fragile(toy, tmp_path_factory):
    model = Fragile(Recipe(recommender=Fragile.name)).fit(toy, progress=False)
    return model.save(tmp_path_factory.mktemp("models") / "fragile")


def with_users(events, *users):
    """Events, and one more of each of some users."""
    more = pl.DataFrame({"user_id": list(users), "item_id": ["item 1"] * len(users), "timestamp": [0] * len(users)})
    return pl.concat([events, more.cast(events.schema)])


def marks(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "_job" / "parts").glob("*.json")}


def test_two_workers_give_the_lists_of_one_process(toy, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(recommending, "PIECE", 300)
    table = write_parts(tmp_path / "events", toy.event_table(), [400, 200])
    done = recommend_batch(saved, table, tmp_path / "out", 5, partitions=4, pool=Pool(concurrency=2), progress=False)
    assert done["users"] == 120 and done["rows"] == 600
    check_same_lists(lists(tmp_path / "out"), diffgrm.load(saved).recommend(table, 5))
    with pytest.raises(DataError, match="is connected to a Ray already; leave the address 'auto' out"):
        recommend_batch(saved, table, tmp_path / "new", 5, pool=Pool("auto"), progress=False)


def test_dead_workers_are_replaced_and_a_partition_that_kills_them_is_given_up(toy, fragile, flags, tmp_path):
    out, dangers = tmp_path / "out", ["die once: once", "die until: later", "no memory until: later"]
    assert buckets_of(pl.Series(dangers), 12).n_unique() == 3
    events = with_users(toy.event_table(), *dangers)
    events.write_parquet(tmp_path / "events.parquet")

    def recommend(workers):
        pool = Pool(concurrency=workers)
        return recommend_batch(
            fragile, tmp_path / "events.parquet", out, 5, partitions=12, pool=pool, trust_code=TRUST, progress=False
        )

    with pytest.raises(DiffGRMError) as error:
        recommend(2)
    told = str(error.value)
    assert (flags / "once").exists()
    assert "2 of 12 partitions are not done; the others are kept" in told
    assert "3 workers died at it, most likely for want of memory; lower --batch-size (it is 10,000)" in told
    assert "there was not memory enough (MemoryError)" in told and "or --concurrency (it is 2)" in told
    before = marks(out)
    assert len(before) == 10
    (flags / "later").touch()
    assert recommend(1)["users"] == 123
    assert before.items() <= marks(out).items() and len(marks(out)) == 12  # nothing was done twice
    check_same_lists(lists(out), diffgrm.load(fragile, trust_code=TRUST).recommend(events, 5))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed_goes_on_where_it_stopped(toy, fragile, flags, tmp_path, number):
    """On a Ray of its own, as the command has without an address."""
    out = tmp_path / "out"
    gate = f"gate {int(number)}"
    events = with_users(toy.event_table(), f"wait for: {gate}")
    events.write_parquet(tmp_path / "events.parquet")
    arguments = ["recommend-batch", fragile, "--interactions", tmp_path / "events.parquet", "--out", out, "--k", 5]
    arguments += ["--partitions", 6, "--concurrency", 2, "--trust-code", "--quiet"]
    command = subprocess.Popen(
        [sys.executable, "-m", "diffgrm", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + PATIENCE
        while len(marks(out)) < 5:
            assert command.poll() is None, command.stderr.read().decode()
            assert time.monotonic() < end
            time.sleep(0.1)
        command.send_signal(number)
        told = command.stderr.read().decode() if number == signal.SIGTERM else ""
        command.wait(PATIENCE)
        if number == signal.SIGTERM:
            assert command.returncode == 143, told
            assert "Ended by SIGTERM. What is done so far stands in" in told and "Traceback" not in told
        assert not (out / "_manifest.json").exists()
    finally:
        with suppress(ProcessLookupError):  # what is left of its Ray, which would end within a minute
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        command.stderr.close()
    before = marks(out)
    assert len(before) == 5
    (flags / gate).touch()
    done = recommend_batch(
        fragile,
        tmp_path / "events.parquet",
        out,
        5,
        partitions=6,
        pool=Pool(concurrency=1),
        trust_code=True,
        progress=False,
    )
    assert done["users"] == 121 and before.items() <= marks(out).items() and not list(out.rglob(".*.tmp"))
    check_same_lists(lists(out), diffgrm.load(fragile, trust_code=TRUST).recommend(events, 5))


def test_texts_are_embedded_by_workers(toy, tmp_path):
    recipe = Recipe.from_dict({"embedding": {"name": "lsa", "width": 16}})
    toy.item_table.write_parquet(tmp_path / "items.parquet")
    pool = Pool(concurrency=1)
    done = embed_batch(tmp_path / "items.parquet", tmp_path / "out", recipe=recipe, partitions=4, pool=pool, progress=False)
    assert done["rows"] == 480
    direct = recipe.embedding.build(seed=recipe.seed).fit(toy.item_table).encode(toy.item_table)
    found = pl.read_parquet(tmp_path / "out" / "part-*.parquet")
    assert found["item_id"].equals(toy.item_table["item_id"])
    assert np.stack(found["embedding"].to_list()) == pytest.approx(direct, abs=1e-6)
