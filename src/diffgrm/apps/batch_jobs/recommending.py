"""Recommendations for all users of a table of any size."""

from __future__ import annotations

import datetime
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from diffgrm.apps.batch_jobs.engine import Engine, Pool, Work, engine, require_ray
from diffgrm.apps.batch_jobs.job_folder import JobFolder, Parts, check_arguments, job_folder
from diffgrm.apps.batch_jobs.parquet import Footers, Plan, cut, planned
from diffgrm.apps.batch_jobs.ranking import WITH_PROFILE, Question, Ranking
from diffgrm.apps.batch_jobs.user_events import BringTogether, EventTable
from diffgrm.data.asking import NOW, moment_of
from diffgrm.data.categories import unnamed_problem
from diffgrm.data.ids import id_list
from diffgrm.data.profiles import profile_table, read_profiles
from diffgrm.data.reading import Dropped, ReadingReport
from diffgrm.foundation import model_folder
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import Columns, DataError, DiffGRMError
from diffgrm.foundation.storage import atomic_file, digest, write_parquet
from diffgrm.ranking.rules import Rules, read_rules

if TYPE_CHECKING:
    from diffgrm.recommenders import Recommender

logger = logging.getLogger(__name__)

PIECE = 2**22  # events that a worker holds at once while they are brought together
PARTITION = 2**18  # events of a partition, about
FEWEST = 8  # partitions, so that a small job too is shared out and goes on in the middle
QUICKER = 100_000  # users below which one process is done before Ray and its workers have started
COUNTS = ("users", "users_without_known_item", "events", "events_of_unknown_items", "rows")
COUNTED = 20 * QUICKER  # events up to which users are counted beforehand


def recommend_batch(
    model: str | Path,
    interactions: str | Path,
    out: str | Path,
    k: int = 10,
    *,
    overrides: Iterable[str] = (),
    exclude_seen: bool = True,
    only: Any = None,
    without: Any = None,
    rules: Any = None,
    at: Any = None,
    profiles: Any = None,
    columns: Mapping[str, str] | None = None,
    time_format: str | None = None,
    pool: Pool | None = None,
    batch_size: int = 10_000,
    partitions: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    precision: Literal["32", "bf16"] = "32",
    trust_code: Trust = False,
    progress: bool = True,
) -> dict[str, Any]:
    """The k best items for every user of a table, on Ray Data; the lists are those of :meth:`Recommender.recommend`.

    Users without an item that the model knows get no list and are counted. A job that was killed goes on where it stopped
    when it is called again with the same arguments; ``pool``, ``batch_size`` and ``on_error`` may be others.

    Args:
        model: folder of the model, which workers read; it must not change meanwhile.
        interactions: a parquet file, a folder or a pattern of them, or an address of a file or folder for fsspec: user_id,
            item_id, timestamp, and what the recipe's section ``events`` names.
        out: a folder that all workers see, new or empty or of the same job: part-00000.parquet and so on, with user_id,
            item_id, score, rank, all lists of a user in one part; and ``_manifest.json``.
        k, exclude_seen, only, without, rules: see :meth:`Recommender.recommend`.
        at: of models that are told of times: one time for all, see :func:`diffgrm.data.asking.seconds_of`; ``"now"`` is
            when the job began, also when it goes on later. None: each user's newest event.
        profiles: see :meth:`Recommender.recommend`.
        overrides: settings of decoding and scoring for this job.
        columns, time_format: see :func:`diffgrm.data.tables.read_interactions`. Times in text need a format.
        pool: where to compute; None is a Ray of this machine's with a worker a CPU.
        batch_size: users that a worker ranks for at once; fewer need less memory.
        partitions: parts in which users are done and written; None is by the number of events.
        on_error: damaged files, and rows that cannot be used: ``"stop"`` before anything is recommended, or ``"skip"`` and
            count them.
        precision: see :meth:`Recommender.to`.
        trust_code: see :meth:`Recommender.load`.
        progress: show progress bars.

    Returns:
        What ``_manifest.json`` holds: the model's version, counts and seconds.

    Raises:
        MissingExtraError: Ray Data is not installed.
        DataError: unusable tables or arguments, an output folder of another job, no such Ray.
        ModelFolderError: no model, or another one than the job began with.
        DiffGRMError: partitions failed; what is done is kept, and the same call goes on.
    """
    from diffgrm.recommenders import load  # and PyTorch, which not all workers need

    require_ray("recommend_batch")
    check_arguments(on_error, batch_size=batch_size, partitions=partitions)
    folder, target, pool = Path(model).absolute(), Path(out).absolute(), pool or Pool()
    given = {"only": only, "without": without}
    recommender, overrides = load(folder, trust_code=trust_code), tuple(overrides)
    told = recommender.recipe.events
    table, footers = EventTable.at(interactions, columns or {}, time_format, told)
    moment = None if at is None else moment_of(at, told)
    people = None if profiles is None else _people(profiles, told)
    filters = {name: id_list(ids, Columns.ITEM, name) for name, ids in given.items() if ids is not None}
    wanted = read_rules(rules)
    _check_lists(recommender.override(overrides), k, filters, wanted)
    version = model_folder.fingerprint(folder)
    noted = {} if people is None else {"profiles": digest(people.rows())}
    settings = {
        "job": "recommend",
        "model": version,
        "overrides": overrides,
        "k": k,
        "exclude_seen": exclude_seen,
        **{name: digest([sorted(map(str, ids))]) for name, ids in filters.items()},
        **({} if wanted is None else {"rules": wanted.to_json()}),
        **({} if moment is None else {"at": NOW if at == NOW else moment.isoformat()}),
        **noted,
        "interactions": digest(table.files.stamps()),
        **footers.left_out,
        "columns": table.columns,
        "time_format": time_format,
        "precision": precision,
        "partitions": partitions,
    }
    with job_folder(target, settings, partial(_plan, footers, partitions, moment)) as job:
        if (done := job.finished()) is not None:
            logger.info("The job in %s was finished before.", target)
            return done
        _tell_if_small(table, footers)
        paths = _kept_tables(job, filters, people)
        if moment is not None:  # that of the plan, which a job that goes on has from before
            moment = datetime.datetime.fromisoformat(job.plan["at"])
            noted["at"] = job.plan["at"]
        question = Question(
            folder,
            version,
            overrides,
            k,
            exclude_seen,
            **paths,
            rules=wanted,
            at=moment,
            precision=precision,
            trust_code=trust_code,
        )
        return _Job(job, table, footers, question, noted, on_error, batch_size, not progress).run(pool)


def _check_lists(recommender: Recommender, k: int, filters: Mapping[str, list[Any]], wanted: Rules | None) -> None:
    """Make sure that lists of k items can be made, before a job begins; errors as of :meth:`Recommender.recommend`."""
    ruled = recommender.item_rules(wanted)
    candidates = recommender.candidates(k, filters.get("only"), filters.get("without"), ruled)
    if ruled is not None:
        ruled.check_k(k, candidates)


def _kept_tables(job: JobFolder, filters: Mapping[str, list[Any]], people: pl.DataFrame | None) -> dict[str, Path | None]:
    """The tables of the question where all workers see them, by the name of the argument; filters by the ids' spelling."""
    tables = {name: pl.DataFrame({Columns.ITEM: list(map(str, ids))}) for name, ids in filters.items()}
    tables |= {} if people is None else {"profiles": people}
    return {name: _kept(job, name, tables.get(name)) for name in ("only", "without", "profiles")}


def _plan(footers: Footers, partitions: int | None, moment: datetime.datetime | None) -> dict[str, Any]:
    """How a new job is cut, and when it asks."""
    rows = sum(footers.rows)
    number = partitions or max(FEWEST, ceil(rows / PARTITION))
    asked = {} if moment is None else {"at": moment.isoformat()}
    return {"partitions": number, "pieces": planned(cut(footers.rows, ceil(rows / PIECE))), **asked}


def _people(source: Any, settings: EventSettings) -> pl.DataFrame:
    """What is told of users, as a table in their order."""
    found = read_profiles(source, settings)
    return profile_table(found.users.series, found.numbers, settings).sort(Columns.USER)


@dataclass(frozen=True)
class _Job:
    """The two passes of a job, of whatever is not done yet."""

    job: JobFolder
    table: EventTable
    footers: Footers
    question: Question
    noted: dict[str, str]  # of the question, for the manifest
    on_error: str
    batch_size: int
    quiet: bool

    def run(self, pool: Pool) -> dict[str, Any]:
        started = time.perf_counter()
        if self.footers.problems and self.on_error == "stop":
            raise self.table.files.unusable(self.footers.problems)
        with engine(pool) as workers:
            self._bring_together(workers)
            read = self._read()
            self._rank(workers, any(counts["as_text"] for counts in read))
        self.question.check_model()
        return self._finish(read, time.perf_counter() - started)

    @property
    def _events(self) -> Parts:
        return Parts(self.job.own / "events", self.job.own / "events")

    @property
    def _pieces(self) -> Plan:
        pieces: Plan = self.job.plan["pieces"]
        return pieces

    def _bring_together(self, workers: Engine) -> None:
        pieces = len(self._pieces)
        work = Work(
            what="Bringing events of users together",
            task=BringTogether(
                self.table, self._pieces, self.job.plan["partitions"], self.on_error == "skip", self._events
            ),
            numbers=self._events.missing(pieces),
            total=pieces,
            own=self.job.own,
            hint="lower --concurrency, or write files with smaller row groups",
            quiet=self.quiet,
        )
        problems = work.here() if pieces == 1 else workers.do(work)  # for one piece, no pool need start
        if unusable := [problem.told for problem in problems.values() if problem.of_data]:
            raise self.table.files.unusable(list(dict.fromkeys(unusable)))
        self._events.check_done(pieces, problems, "piece")

    def _read(self) -> list[dict[str, Any]]:
        """What was counted of every piece of the events."""
        counts = [self._events.counts(number) for number in range(len(self._pieces))]
        found = [entry for entry in counts if entry is not None]
        if not sum(entry["rows"] for entry in found):
            if (report := _report(found, 0, self.table.settings)).rows:
                raise self.job.given_up(report.no_event(self.table.files.what))
            raise self.table.files.unusable(
                [problem for entry in found for _, problem in entry["skipped"]] or self.footers.problems
            )
        told = all("values" in entry for entry in found)  # jobs that an earlier version began tell none
        for name, named in self.table.settings.event_columns.items() if told else ():
            there = {value for entry in found for value in entry["values"][name]}
            if problem := unnamed_problem(
                pl.Series(name, sorted(there), pl.String), "events.event_columns", named, "event"
            ):
                logger.warning("Of the histories, %s", problem)
        return found

    def _rank(self, workers: Engine, as_text: bool) -> None:
        partitions, device = self.job.plan["partitions"], "cuda" if workers.pool.gpus_per_worker else "cpu"
        work = Work(
            what="Recommending",
            task=Ranking(
                self.question,
                self._events,
                len(self._pieces),
                as_text,
                self.table.settings,
                self.batch_size,
                device,
                self.job.parts,
            ),
            numbers=self.job.parts.missing(partitions),
            total=partitions,
            own=self.job.own,
            hint=f"lower --batch-size (it is {self.batch_size:,}) or --concurrency (it is {workers.workers}), or begin "
            f"anew with more --partitions (they are {partitions:,})",
            quiet=self.quiet,
        )
        self.job.parts.check_done(partitions, workers.do(work))

    def _finish(self, read: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        counts = self.job.counts()

        def total(name: str) -> Any:
            return sum(entry[name] for entry in counts)

        if not total("users"):
            why = "users has an item that the model knows; give ids of the kind that it was fitted on"
            raise self.job.given_up(DataError(f"none of {total('users_without_known_item'):,} {why}"))
        report = _report(read, total("events"), self.table.settings)
        if report.dropped:
            logger.warning("Of the histories, %s", report)
        asked = self.question
        if asked.profiles is not None and not total(WITH_PROFILE):
            why = "profiles are of users without a history; give those of the users of these events"
            raise self.job.given_up(DataError(why))
        manifest = {
            "job": "recommend",
            "model": {"folder": str(asked.model), "version": asked.version},
            "k": asked.k,
            **self.noted,
            "partitions": self.job.plan["partitions"],
            **{name: total(name) for name in (*COUNTS, *([] if asked.profiles is None else [WITH_PROFILE]))},
            **({"dropped": report.dropped} if report.dropped else {}),
            "skipped": self.footers.skipped([entry for found in read for entry in found["skipped"]]),
            "seconds": {"last_run": round(seconds, 3), "workers": round(total("seconds"), 3)},
        }
        written = self.job.finish(manifest)
        shutil.rmtree(self.job.own / "events")  # as large as the input
        return written


def _report(read: Sequence[Mapping[str, Any]], events: int, settings: EventSettings) -> ReadingReport:
    """What was read of pieces of a table, of which so many events are left."""
    kept = sum(counts["rows"] for counts in read)
    told = [counts["dropped"] for counts in read if "dropped" in counts]  # jobs that an earlier version began tell none
    dropped = Dropped.sum(Dropped(**counts) for counts in told)
    rows = kept + sum(dropped.types.values()) + dropped.unrated + dropped.low
    kinds = {} if kept else dict.fromkeys(settings.types, 0)
    return ReadingReport.of(rows, dropped, kept - events, kinds, settings)


def _kept(job: JobFolder, name: str, table: pl.DataFrame | None) -> Path | None:
    """A table of the question where all workers see it."""
    if table is None:
        return None
    path = job.own / f"{name}.parquet"
    with atomic_file(path) as temporary:
        write_parquet(table, temporary)
    return path


def _tell_if_small(table: EventTable, footers: Footers) -> None:
    if sum(footers.rows) > COUNTED:
        return
    column = [table.columns[Columns.USER]]
    try:
        users = pl.concat([table.files.read(part, column) for piece in cut(footers.rows, 1) for part in piece])
    except (DiffGRMError, MemoryError):  # of which the job itself will tell
        return
    if (count := users.to_series().n_unique()) < QUICKER:
        logger.info(
            "%s users are few: below some %s, 'diffgrm recommend' (Recommender.recommend) is done before Ray has started",
            f"{count:,}",
            f"{QUICKER:,}",
        )
