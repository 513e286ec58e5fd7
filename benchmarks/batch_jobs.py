"""Does ``diffgrm recommend-batch`` give the lists of ``recommend``, also where it is killed, or one of its workers?

    python benchmarks/batch_jobs.py MODEL DATA/amazon-beauty/interactions.parquet --workers 2 --json batch.json

Each job is the command in a process of its own, with a Ray of its own, and is compared with ``recommend`` in this process
for all users: ``plain``, nothing happens; ``killed``, SIGKILL when half of the partitions are done, and the same command
again; ``worker``, SIGKILL for one of the workers then. Lists may differ only where scores do by less than ``TIE``, which
depends on who is asked at once. Exits with 1 where anything else differs, or a partition was done twice. MODEL is any model
folder:

    diffgrm fit --interactions DATA/amazon-beauty/interactions.parquet --items DATA/amazon-beauty/items.parquet --out MODEL
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

import diffgrm
from diffgrm.apps.machine import machine

TIE = 1e-4
BY = ["user_id", "rank"]
PAUSE = 0.05  # seconds between two looks at what is done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()

    start = time.perf_counter()
    wanted = diffgrm.load(arguments.model).recommend(arguments.interactions, arguments.k, on_empty="skip").sort(BY)
    result: dict[str, Any] = {"users": wanted["user_id"].n_unique(), "recommend_seconds": time.perf_counter() - start}
    with tempfile.TemporaryDirectory() as folder:
        for how, run in (("plain", plain), ("killed", killed), ("worker", worker_killed)):
            out = Path(folder) / how
            start = time.perf_counter()
            kept = run(command(arguments, out), out, arguments.partitions)
            result[how] = {"seconds": time.perf_counter() - start, **compared(out, wanted), "kept": kept}
            print(how, json.dumps(result[how]), flush=True)
    result["machine"] = machine()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    wrong = [how for how in ("plain", "killed", "worker") if result[how]["differ"] or result[how]["kept"] is False]
    if wrong:
        sys.exit(f"not as 'recommend' says: {', '.join(wrong)}")


def command(arguments: argparse.Namespace, out: Path) -> list[str]:
    """The job as a command."""
    options = {"interactions": arguments.interactions, "out": out, "k": arguments.k}
    options |= {"concurrency": arguments.workers, "partitions": arguments.partitions}
    given = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "diffgrm", "recommend-batch", str(arguments.model), *given, "--quiet"]


def plain(call: list[str], out: Path, partitions: int) -> None:
    """Nothing happens."""
    subprocess.run(call, check=True)


def killed(call: list[str], out: Path, partitions: int) -> bool:
    """The command is killed in the middle and given again; whether nothing was done twice."""
    job = subprocess.Popen(call)
    half_done(job, out, partitions)
    job.kill()
    job.wait()
    before = marks(out)
    subprocess.run(call, check=True)
    return before.items() <= marks(out).items()


def worker_killed(call: list[str], out: Path, partitions: int) -> bool:
    """A worker is killed in the middle; whether nothing was done twice."""
    job = subprocess.Popen(call)
    half_done(job, out, partitions)
    before = marks(out)
    os.kill(workers_of(job.pid)[0], signal.SIGKILL)
    if job.wait():
        sys.exit("the job failed")
    return before.items() <= marks(out).items()


def half_done(job: subprocess.Popen[bytes], out: Path, partitions: int) -> None:
    """Wait until half of the partitions are done."""
    while len(marks(out)) < partitions // 2:
        if job.poll() is not None:
            sys.exit("the job ended before half of it was done; give it more --partitions")
        time.sleep(PAUSE)


def marks(out: Path) -> dict[str, int]:
    """The partitions that are done, and when they were."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "_job" / "parts").glob("*.json")}


def workers_of(ancestor: int) -> list[int]:
    """The processes of Ray Data's actors below a process."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_text()
        except (OSError, ValueError):  # it has ended meanwhile
            continue

    def below(pid: int) -> bool:
        return pid == ancestor or (pid in parents and below(parents[pid]))

    return [pid for pid, name in names.items() if "MapWorker" in name and below(pid)]


def compared(out: Path, wanted: pl.DataFrame) -> dict[str, Any]:
    """How many users have other lists than they should: in all, and by more than ties."""
    found = pl.read_parquet(f"{out}/part-*.parquet").sort(BY)
    if not found.select(BY).equals(wanted.select(BY)):
        return {"other_lists": None, "differ": "other users or lengths of lists"}
    both = found.with_columns(wanted_item=wanted["item_id"], gap=(found["score"] - wanted["score"]).abs())
    other = both.filter(pl.col("item_id") != pl.col("wanted_item"))
    differ = other.filter(pl.col("gap") > TIE)["user_id"].n_unique()
    return {"other_lists": other["user_id"].n_unique(), "differ": differ, "largest_gap": both["gap"].max()}


if __name__ == "__main__":
    main()
