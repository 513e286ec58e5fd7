"""What a peer script reads and writes (see src/diffgrm/bench/peers.py). Needs pandas, pyarrow and NumPy, not diffgrm."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


class Exchange:
    """The folder that a peer is given.

    Attributes:
        settings: of the suite, with ``seed`` and ``k``.
        items: item ids in order of position.
        train, validation, histories: item positions of each user, oldest first.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = Path(folder or sys.argv[1])
        self.settings: dict[str, Any] = json.loads((self.folder / "settings.json").read_text())
        self.item_table = pd.read_parquet(self.folder / "items.parquet")
        self.items = self.item_table["item_id"].tolist()
        self.position = {item: number for number, item in enumerate(self.items)}
        self.train = self._rows("train")
        self.validation = {user: rows[-1] for user, rows in self._rows("validation").items()}
        self.histories = self._rows("histories")
        self.started = time.perf_counter()

    def _rows(self, name: str) -> dict[Any, list[int]]:
        table = pd.read_parquet(self.folder / f"{name}.parquet")
        positions = table["item_id"].map(self.position)
        return {user: rows.tolist() for user, rows in positions.groupby(table["user_id"], sort=False)}

    @property
    def codes(self) -> np.ndarray:
        """[I, n] digits of semantic IDs."""
        return self.item_table.filter(regex=r"^digit_\d+$").to_numpy()

    @property
    def vectors(self) -> np.ndarray:
        """[I, e] item vectors."""
        return np.load(self.folder / "vectors.npy")

    def write(self, filtered: dict[Any, list[int]], unfiltered: dict[Any, list[int]], **facts: Any) -> None:
        """The lists of every user of ``histories``, best first, and facts such as ``parameters``."""
        for name, lists in (("filtered", filtered), ("unfiltered", unfiltered)):
            rows = [
                (user, self.items[item], rank)
                for user, found in lists.items()
                for rank, item in enumerate(found[: self.settings["k"]], start=1)
            ]
            table = pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])
            table.to_parquet(self.folder / f"{name}.parquet")
        (self.folder / "facts.json").write_text(json.dumps(facts))


def best(scores: np.ndarray, without: list[int], k: int, lowest: float = -1e9) -> list[int]:
    """The k best positions of scores [I], leaving some out, none at or below ``lowest``."""
    scores = scores.copy()
    scores[without] = lowest
    order = np.argsort(-scores, kind="stable")[:k]
    return order[scores[order] > lowest].tolist()
