"""A recommender that does what its users' ids say: ``die once: FILE``, ``wait for: FILE``...; files of $FRAGILE."""

from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl

from diffgrm import PopularityRecommender


class Fragile(PopularityRecommender):
    """Popularity; a user's id may end the process, wait, or raise an error, until a file is there."""

    name = "parts.fragile:Fragile"

    def recommend(self, histories, *arguments, **settings):
        table = isinstance(histories, pl.DataFrame)  # a job in batches has its own form
        for user in histories["user_id"].unique(maintain_order=True) if table else histories.users:
            what, _, path = user.partition(": ")
            file = Path(os.environ["FRAGILE"], path)
            if what == "die once" and not file.exists():
                file.touch()
                os._exit(1)
            if what == "die until" and not file.exists():
                os._exit(1)
            if what == "no memory until" and not file.exists():
                raise MemoryError
            while what == "wait for" and not file.exists():
                time.sleep(0.05)
        return super().recommend(histories, *arguments, **settings)
