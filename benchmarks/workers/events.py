"""A worker that reads a folder of events, splits it, fits and recommends, and tells what memory each of these took."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from protocol import serve

from diffgrm.data.dataset import InteractionDataset, Split, leave_one_out
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.by_blocks import recommend_blocks

EVERY = 0.02  # seconds between two looks at the memory


def held(name: str, process: int | str = "self") -> float:
    """MiB of a process by the name that Linux has for a kind of memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")) / 2**10


def watched(work: Callable[[], Any]) -> dict[str, Any]:
    """Do something; most MiB that this process held meanwhile.

    ``own_mb`` is memory that only this process can give back (RssAnon, looked at every 20 ms). ``resident_mb`` counts pages
    of mapped files too (VmHWM), which Linux drops when others need the room.
    """
    Path("/proc/self/clear_refs").write_text("5")  # begin VmHWM anew
    own, done = [held("RssAnon")], threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            own.append(held("RssAnon"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        facts = work()
    finally:
        done.set()
        watcher.join()
    return {"own_mb": round(max(own), 1), "resident_mb": round(held("VmHWM"), 1), **(facts or {})}


class Events:
    """What a user does with a large table, one stage after the other."""

    def load(self, workload: str) -> dict[str, Any]:
        """Take a folder with ``events`` and ``items.parquet``."""
        self.folder = Path(workload)
        self.dataset: InteractionDataset
        self.split: Split
        return {"own_mb": round(held("RssAnon"), 1)}

    def read(self) -> dict[str, Any]:
        """Read the table; the second time it comes from the cache."""

        def work() -> dict[str, Any]:
            self.dataset = InteractionDataset.from_tables(
                self.folder / "events", pl.read_parquet(self.folder / "items.parquet")
            )
            return {"events": len(self.dataset.events.values), "users": self.dataset.n_users}

        return watched(work)

    def part(self) -> dict[str, Any]:
        """Leave one out, and the fingerprint."""

        def work() -> dict[str, Any]:
            self.split = leave_one_out(self.dataset)
            return {"fingerprint": self.split.fingerprint[:12]}

        return watched(work)

    def fit(self, name: str) -> dict[str, Any]:
        """Fit a recommender, which splits once more."""

        def work() -> None:
            self.recommender: Recommender = resolve("recommender", name)(Recipe(recommender=name))
            self.recommender.fit(self.dataset, progress=False)

        return watched(work)

    def recommend(self, k: int = 10) -> dict[str, Any]:
        """Lists for all users of the folder, a block of users at a time."""

        def work() -> dict[str, Any]:
            return {"rows": sum(table.height for table in recommend_blocks(self.recommender, self.folder / "events", k))}

        return watched(work)


if __name__ == "__main__":
    worker = Events()
    handlers = ("load", "read", "part", "fit", "recommend")
    serve({name: getattr(worker, name) for name in handlers})
