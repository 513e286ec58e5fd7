"""What a worker of a batch job does: load the model once, and rank for one bucket of users after the other."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from diffgrm.apps.batch_jobs.job_folder import Parts
from diffgrm.apps.batch_jobs.user_events import events_of_bucket, histories_of
from diffgrm.data.profiles import Profiles, read_profiles
from diffgrm.foundation import model_folder
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import Columns, ModelFolderError
from diffgrm.ranking.rules import Rules

WITH_PROFILE = "users_with_profile"

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
        at: when they are asked for; None: at each user's newest event.
        profiles: a table of users, or None.
    """

    model: Path
    version: str
    overrides: tuple[str, ...]
    k: int
    exclude_seen: bool
    only: Path | None
    without: Path | None
    rules: Rules | None
    at: datetime.datetime | None
    profiles: Path | None
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
        settings: how the events were read.
        batch_size: users that are ranked for at once.
        device: of PyTorch.
        parts: what is written.
    """

    question: Question
    events: Parts
    pieces: int
    as_text: bool
    settings: EventSettings
    batch_size: int
    device: str
    parts: Parts

    def ready(self) -> Callable[[int], None]:
        """See :class:`diffgrm.apps.batch_jobs.engine.Task`."""
        from diffgrm.recommenders import load  # and PyTorch, which workers of other tasks need not wait for

        recommender = load(self.question.model, trust_code=self.question.trust_code).override(self.question.overrides)
        recommender = recommender.to(self.device, self.question.precision)
        return partial(self._write, recommender, *self._profiles(recommender))

    def _profiles(self, recommender: Recommender) -> tuple[Profiles | None, Profiles | None]:
        """What is known of users; and what of it the job was given."""
        kept, table = recommender.profiles, self.question.profiles
        if kept is None or table is None:
            return kept, None
        given = read_profiles(table, recommender.recipe.events)
        return kept.with_newer(given), given

    def _write(self, recommender: Recommender, profiles: Profiles | None, given: Profiles | None, number: int) -> None:
        started = time.perf_counter()
        self.question.check_model()
        events = events_of_bucket(self.events, self.pieces, number, self.as_text, self.settings)
        known = events.filter(pl.Series(recommender.items.positions(events[Columns.ITEM]) >= 0))
        kinds = {Columns.USER: known.schema[Columns.USER], Columns.ITEM: recommender.items.dtype}
        none = pl.DataFrame(schema={**kinds, Columns.SCORE: pl.Float32, Columns.RANK: pl.Int32})
        found = pl.concat([none, *(self._lists(recommender, users, profiles) for users in self._batches(known))])
        users = known[Columns.USER].unique()
        count = len(users)
        counts = {
            "users": count,
            "users_without_known_item": events[Columns.USER].n_unique() - count,
            "events": events.height,
            "events_of_unknown_items": events.height - known.height,
            "rows": found.height,
            **({} if given is None else {WITH_PROFILE: int((given.users.positions(users) >= 0).sum())}),
            "seconds": round(time.perf_counter() - started, 3),
        }
        self.parts.write(number, found, counts)

    def _batches(self, events: pl.DataFrame) -> list[pl.DataFrame]:
        if not events.height:
            return []
        batch = events[Columns.USER].rle_id() // self.batch_size  # the rows of a user stand together
        return events.with_columns(batch.alias("batch")).partition_by("batch", maintain_order=True, include_key=False)

    def _lists(self, recommender: Recommender, events: pl.DataFrame, profiles: Profiles | None) -> pl.DataFrame:
        """The lists of some users. The door cuts histories itself, and gets all of them, for some methods read all."""
        asked = self.question
        histories = histories_of(events, recommender.items, self.settings, profiles)
        return recommender.recommend(
            histories,
            asked.k,
            exclude_seen=asked.exclude_seen,
            only=asked.only,
            without=asked.without,
            rules=asked.rules,
            at=asked.at,
        )
