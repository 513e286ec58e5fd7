"""The folder of a batch job: what it was asked, what is done, and its parts, of which none is ever half there.

OUT/part-00003.parquet        the rows of a partition
OUT/_manifest.json            written when all of it is done
OUT/_job/plan.json            what the job was asked, and how it is cut into partitions
OUT/_job/parts/00003.json     the mark that partition 3 is done, with what is counted of it

Names that begin with ``_`` or ``.`` are passed over by :func:`diffgrm.read_table`, Spark and pyarrow; polars and DuckDB are
given ``OUT/*.parquet``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from diffgrm.apps.batch_jobs.engine import Problem, is_count
from diffgrm.apps.batch_jobs.parquet import first_problems
from diffgrm.foundation.outputs import check_own_folder, held_folder
from diffgrm.foundation.schema import DataError, DiffGRMError, bullet_list, first_few
from diffgrm.foundation.storage import atomic_file, write_parquet

MANIFEST, JOB = "_manifest.json", "_job"
FORMAT, FORMAT_VERSION = "diffgrm-batch-job", 1


@dataclass(frozen=True)
class Parts:
    """Numbered parquet files, each with a mark that it is whole. Any worker may write any of them, also twice.

    Attributes:
        folder: of the files.
        marks: folder of the marks.
    """

    folder: Path
    marks: Path

    def path(self, number: int) -> Path:
        """Where the rows of a partition stand."""
        return self.folder / f"part-{number:05}.parquet"

    def write(self, number: int, table: pl.DataFrame, counts: Mapping[str, Any], group: int | None = None) -> None:
        """Write the rows of a partition, then its mark.

        Args:
            group: rows of a row group; None: polars chooses.

        Raises:
            OutputError: the disk is full, say; the partition is not done then.
        """
        with atomic_file(self.path(number)) as temporary:
            write_parquet(table, temporary, group)
        size = self.path(number).stat().st_size
        with atomic_file(self._mark(number)) as temporary:
            temporary.write_text(json.dumps({**counts, "bytes": size}) + "\n", encoding="utf-8")

    def counts(self, number: int) -> dict[str, Any] | None:
        """What was counted of a partition; None where it is not done, or its file is not the one that was written."""
        try:
            found = json.loads(self._mark(number).read_text(encoding="utf-8"))
            return found if self.path(number).stat().st_size == found["bytes"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def missing(self, partitions: int) -> list[int]:
        """The partitions that are still to do."""
        return [number for number in range(partitions) if self.counts(number) is None]

    def check_done(self, partitions: int, problems: Mapping[int, Problem], what: str = "partition") -> None:
        """Make sure that all partitions are done.

        Args:
            problems: of those that failed.
            what: how messages call one.

        Raises:
            DiffGRMError: some are not, with the reasons.
        """
        if missing := self.missing(partitions):
            alike: dict[str, list[int]] = {}
            for number in sorted(problems):
                alike.setdefault(problems[number].told, []).append(number)
            told = first_problems([f"{what} {first_few(which)}: {why}" for why, which in alike.items()])
            raise DiffGRMError(
                f"{len(missing)} of {partitions} {what}s are not done; the others are kept in {self.folder}, and the same "
                f"command goes on:\n{told}"
            )

    def _mark(self, number: int) -> Path:
        return self.marks / f"{number:05}.json"


@dataclass(frozen=True)
class JobFolder:
    """A job's folder, held by this process.

    Attributes:
        folder: absolute.
        plan: how the job is cut, as it was when it began.
        made: the folder was not there before.
    """

    folder: Path
    plan: dict[str, Any]
    made: bool = False

    @property
    def parts(self) -> Parts:
        """The job's result."""
        return Parts(self.folder, self.own / "parts")

    @property
    def own(self) -> Path:
        """Where the job keeps what is not its result."""
        return self.folder / JOB

    def counts(self) -> list[dict[str, Any]]:
        """What was counted of every partition that is done."""
        found = (self.parts.counts(number) for number in range(self.plan["partitions"]))
        return [counts for counts in found if counts is not None]

    def finished(self) -> dict[str, Any] | None:
        """The manifest, where the job is over; where parts of it have gone since, the manifest goes too."""
        try:
            found: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if self.parts.missing(self.plan["partitions"]):
            (self.folder / MANIFEST).unlink()
            return None
        return found

    def given_up(self, why: DataError) -> DataError:
        """The error with which a job ends that no other run will bring to an end; nothing of it stays."""
        self.remove()
        return why

    def remove(self) -> None:
        """Remove all that the job has written, and the folder, if it was made for it just now."""
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for part in self.folder.glob("part-*.parquet"):
            part.unlink(missing_ok=True)
        shutil.rmtree(self.own, ignore_errors=True)  # but for the lock, which Windows keeps while it is held
        if self.made:
            with suppress(OSError):  # somebody has put something there meanwhile
                self.folder.rmdir()

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest; the job is over."""
        manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **facts}
        with atomic_file(self.folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return manifest


def check_arguments(on_error: str, **numbers: int | None) -> None:
    """Make sure of what all jobs are given.

    Args:
        numbers: by name, of things of which there is at least one.

    Raises:
        DataError: an unknown way to go on, or numbers that count nothing.
    """
    wrong = {name: value for name, value in numbers.items() if value is not None and not is_count(value)}
    problems = [f"{name} is {value!r}; expected a whole number from 1" for name, value in wrong.items()]
    if on_error not in ("stop", "skip"):
        problems.append(f"on_error is {on_error!r}; expected 'stop' or 'skip'")
    if problems:
        raise DataError("\n".join(problems))


@contextmanager
def job_folder(out: Path, settings: Mapping[str, Any], plan: Callable[[], dict[str, Any]]) -> Iterator[JobFolder]:
    """Begin a job in a new or empty folder, or go on with the one that was begun there with the same settings.

    Where the data of a job that begins turn out to be none that it can be done with, or no plan can be made, nothing of it
    stays. What an earlier run has done is kept, and so is what a kill or a failed partition leaves.

    Args:
        settings: JSON-able; all that decides what the job writes.
        plan: makes the plan of a new job.

    Raises:
        DataError: the folder holds something else, or another job's result; or another process works in it.
    """
    out = out.absolute()
    check_own_folder(out, "a batch job", (f"{JOB}/plan.json", f"{JOB}/lock"))
    own, made = out / JOB, not out.is_dir()
    with held_folder(out, f"{JOB}/lock", "process"):
        for left_over in (*out.glob(".*.tmp"), *own.rglob(".*.tmp")):  # of workers that were killed
            left_over.unlink(missing_ok=True)
        path, job = own / "plan.json", JobFolder(out, {}, made)
        goes_on = path.is_file()
        try:
            yield replace(job, plan=_plan(path, json.loads(json.dumps(settings)), plan))
        except BaseException as error:
            if not goes_on and (isinstance(error, DataError) or not path.is_file()):
                job.remove()
            raise


def _plan(path: Path, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.is_file():
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": settings, "plan": make()}
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        return json.loads(json.dumps(content["plan"]))  # as whoever goes on reads it
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before, plan, version = content["settings"], content["plan"], content["format_version"]
        if content["format"] != FORMAT or not isinstance(before, dict) or not isinstance(plan, dict):
            raise ValueError("it is no plan")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); choose another folder, or delete this one") from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} was written by another diffgrm (format {version}, this one has {FORMAT_VERSION}); choose another "
            "folder"
        )
    if different := [name for name in sorted({*before, *settings}) if before.get(name) != settings.get(name)]:
        told = bullet_list(f"{name} was {_short(before.get(name))}, is {_short(settings.get(name))}" for name in different)
        raise DataError(
            f"{path.parents[1]} holds the result of another job; choose another folder, or delete that one:\n{told}"
        )
    return plan


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
