"""What a worker of a batch job does: load the model once, and rank for one bucket of users after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from diffgrm.apps.batch_jobs.job_folder import Parts
from diffgrm.apps.batch_jobs.user_events import events_of_bucket
from diffgrm.foundation import model_folder
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import Columns, ModelFolderError
from diffgrm.ranking.rules import Rules

if TYPE_CHECKING:
    from diffgrm.recommenders import Recommender


@dataclass(frozen=True)
class Question:
    """What is asked of the model for every user; paths are absolute, and every worker sees them.

    Attributes:
        model: its folder.
        version: :func:`diffgrm.foundation.model_folder.fingerprint` of that.
        only, without: tables of item ids, or None.
        rules: of the lists.
    """

    model: Path
    version: str
    overrides: tuple[str, ...]
    k: int
    exclude_seen: bool
    only: Path | None
    without: Path | None
    rules: Rules | None
    precision: Literal["32", "bf16"]
    trust_code: Trust

    def check_model(self) -> None:
        """Make sure that the folder still holds the model that the job began with.

        Raises:
            ModelFolderError: it does not.
        """
        try:
            found = model_folder.fingerprint(self.model)
        except OSError as error:
            raise ModelFolderError(f"the model folder {self.model} cannot be read any more: {error}") from error
        if found != self.version:
            raise ModelFolderError(
                f"the model folder {self.model} holds model {found} now, and the job began with {self.version}; put that "
                "back and go on, or begin anew in another folder"
            )


@dataclass(frozen=True)
class Ranking:
    """Writes the lists of each bucket of users.

    Attributes:
        events: by bucket, in ``pieces`` files; as_text: see :func:`events_of_bucket`.
        batch_size: users that are ranked for at once.
        device: of PyTorch.
        parts: what is written.
    """

    question: Question
    events: Parts
    pieces: int
    as_text: bool
    batch_size: int
    device: str
    parts: Parts

    def ready(self) -> Callable[[int], None]:
        """See :class:`diffgrm.apps.batch_jobs.engine.Task`."""
        from diffgrm.recommenders import load  # and PyTorch, which workers of other tasks need not wait for

        recommender = load(self.question.model, trust_code=self.question.trust_code).override(self.question.overrides)
        return partial(self._write, recommender.to(self.device, self.question.precision))

    def _write(self, recommender: Recommender, number: int) -> None:
        started = time.perf_counter()
        self.question.check_model()
        events = events_of_bucket(self.events, self.pieces, number, self.as_text)
        known = events.filter(pl.Series(recommender.items.positions(events[Columns.ITEM]) >= 0))
        kinds = {Columns.USER: known.schema[Columns.USER], Columns.ITEM: recommender.items.dtype}
        none = pl.DataFrame(schema={**kinds, Columns.SCORE: pl.Float32, Columns.RANK: pl.Int32})
        found = pl.concat([none, *(self._lists(recommender, users) for users in self._batches(known))])
        count = known[Columns.USER].n_unique()
        counts = {
            "users": count,
            "users_without_known_item": events[Columns.USER].n_unique() - count,
            "events": events.height,
            "events_of_unknown_items": events.height - known.height,
            "rows": found.height,
            "seconds": round(time.perf_counter() - started, 3),
        }
        self.parts.write(number, found, counts)

    def _batches(self, events: pl.DataFrame) -> list[pl.DataFrame]:
        if not events.height:
            return []
        batch = events[Columns.USER].rle_id() // self.batch_size  # the rows of a user stand together
        return events.with_columns(batch.alias("batch")).partition_by("batch", maintain_order=True, include_key=False)

    def _lists(self, recommender: Recommender, events: pl.DataFrame) -> pl.DataFrame:
        """The lists of some users. The door cuts histories itself, and gets all of them, for some methods read all."""
        asked = self.question
        return recommender.recommend(
            events, asked.k, exclude_seen=asked.exclude_seen, only=asked.only, without=asked.without, rules=asked.rules
        )
