"""Events of many users brought together by user: a pass over parquet files of any size, in bounded memory.

A bucket is what a hash of the user's id says, so that no user is in two. Each worker reads some of the rows, writes them in
order of their bucket into one file, and whoever wants a bucket reads its row groups of all those files. Rows that are alike
in time stay in the order in which they were given, as they do where one process reads all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import polars as pl

from diffgrm.apps.batch_jobs.job_folder import Parts
from diffgrm.apps.batch_jobs.parquet import Footers, ParquetFiles, Plan, Slice, read_slices
from diffgrm.data.tables import read_interactions, read_table
from diffgrm.foundation.schema import Columns, DataError

BUCKET = "bucket"
GROUP = 2**16  # rows of a row group, of which a bucket's reader reads only those that hold it


@dataclass(frozen=True)
class EventTable:
    """Events in parquet files.

    Attributes:
        files: where they lie.
        columns: how the library's names are called in them, those that they have.
        time_format: see :func:`diffgrm.data.tables.read_interactions`.
    """

    files: ParquetFiles
    columns: dict[str, str]
    time_format: str | None

    @classmethod
    def at(cls, source: str | Path, columns: Mapping[str, str], time_format: str | None) -> tuple[EventTable, Footers]:
        """The table, and what its files say of themselves.

        Raises:
            DataError: no files, missing columns, columns that differ, or times that can only be read where all are seen.
        """
        files = ParquetFiles.at(source, "interaction table")
        footers = files.footers()
        row = read_table(footers.row, columns, required=(Columns.USER, Columns.ITEM), what=files.what)
        wanted = [name for name in (Columns.USER, Columns.ITEM, Columns.TIMESTAMP) if name in row.columns]
        ours = {name: columns.get(name, name) for name in wanted}
        footers.check_same(list(ours.values()), f"{files.what} {files.place}")
        if row.schema.get(Columns.TIMESTAMP) in (pl.String, pl.Categorical, pl.Enum) and time_format is None:
            raise DataError(
                f"the times of {files.place} are texts, whose format cannot be told from a part of them; name it with "
                "time_format= (command line: --time-format), or write numbers or date-times"
            )
        return cls(files, ours, time_format), footers

    def read(self, part: Slice) -> pl.DataFrame:
        """Some rows, checked, in order of time.

        Raises:
            DataError: a damaged file, or rows that cannot be used.
        """
        frame = self.files.read(part, tuple(self.columns.values()))
        try:
            return read_interactions(frame, self.columns, self.time_format)
        except DataError as error:
            where = f"{self.files.names[part.file]}, rows {part.start} to {part.stop - 1}"
            raise DataError(f"{where}: {error}") from error


@dataclass(frozen=True)
class BringTogether:
    """Writes the rows of each piece of the events in order of their bucket.

    Attributes:
        pieces: slices of the files, as the plan has them, by number of the partition.
        skip: count and pass over what cannot be read; else that is an error.
        parts: what is written.
    """

    table: EventTable
    pieces: Plan
    buckets: int
    skip: bool
    parts: Parts

    def ready(self) -> Callable[[int], None]:
        """See :class:`diffgrm.apps.batch_jobs.engine.Task`."""
        return self._write

    def _write(self, number: int) -> None:
        frames, skipped = read_slices(self.pieces[number], self.table.read, self.skip)
        events = pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame(schema={Columns.USER: pl.Int64})
        ordered = events.with_columns(buckets_of(events[Columns.USER], self.buckets)).sort(BUCKET, maintain_order=True)
        as_text = events.schema[Columns.USER] == pl.String
        self.parts.write(number, ordered, {"rows": ordered.height, "as_text": as_text, "skipped": skipped}, GROUP)


def buckets_of(users: pl.Series, buckets: int) -> pl.Series:
    """The bucket of every user [N], the same for an id as number and as text, on every machine."""
    texts = users.cast(pl.String).rename("user").to_frame()
    known = texts["user"].unique()
    hashes = [int.from_bytes(blake2b(user.encode(), digest_size=8).digest(), "little") % buckets for user in known]
    table = pl.DataFrame({"user": known, BUCKET: pl.Series(hashes, dtype=pl.Int64)})
    return texts.join(table, on="user", how="left", maintain_order="left")[BUCKET]


def events_of_bucket(parts: Parts, pieces: int, bucket: int, as_text: bool) -> pl.DataFrame:
    """user_id and item_id of a bucket's users, the rows of a user one after the other and in order of time.

    Users stand in the order of their first event.

    Args:
        pieces: how many files there are.
        as_text: user ids are texts; else whole numbers.
    """
    frames = []
    for number in range(pieces):
        scan = pl.scan_parquet(parts.path(number), glob=False)  # of a path, only the row groups that it needs are read
        frames.append(scan.filter(pl.col(BUCKET) == bucket).drop(BUCKET).collect())
    events = pl.concat([frame for frame in frames if frame.width > 1], how="vertical_relaxed")
    if Columns.TIMESTAMP in events.columns:
        events = events.sort(Columns.TIMESTAMP, maintain_order=True)
    events = events.with_columns(pl.col(Columns.USER).cast(pl.String if as_text else pl.Int64))
    rows = events.with_row_index("row")
    return rows.sort(pl.col("row").min().over(Columns.USER), maintain_order=True).select(Columns.USER, Columns.ITEM)
