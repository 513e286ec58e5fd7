"""Events of many users brought together by user: a pass over parquet files of any size, in bounded memory.

A bucket is what a hash of the user's id says, so that no user is in two. Each worker reads some of the rows, writes them in
order of their bucket into one file, and whoever wants a bucket reads its row groups of all those files. Rows that are alike
in time stay in the order in which they were given, as they do where one process reads all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from diffgrm.apps.batch_jobs.job_folder import Parts
from diffgrm.apps.batch_jobs.parquet import Footers, ParquetFiles, Plan, Slice, read_slices
from diffgrm.data.blocks import WHAT, EventRows, FrameRows
from diffgrm.data.categories import spelled_values
from diffgrm.data.coding import Events, check_timed, marks_of, physical
from diffgrm.data.context import check_years
from diffgrm.data.event_columns import OWNER, SESSION, SessionOwners, value_column
from diffgrm.data.folding import folded
from diffgrm.data.ids import IdMap
from diffgrm.data.marks import PLAIN, RowFacts
from diffgrm.data.profiles import Profiles
from diffgrm.data.ragged import Ragged
from diffgrm.data.reading import Dropped
from diffgrm.data.tables import OF_EVENTS, OURS, refuse, renamings_for
from diffgrm.data.times import in_seconds
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError

BUCKET = "bucket"
OTHERS = 1000  # values of a column that nobody named, of which the first are told
GROUP = 2**16  # rows of a row group, of which a bucket's reader reads only those that hold it


class PartOfTable(NamedTuple):
    """What stands in some rows of a table.

    Attributes:
        events: in order of time, as :meth:`diffgrm.data.blocks.EventRows.checked` gives them.
        dropped: the rows that are none.
        values: of each of ``events.event_columns`` what it holds, named or not.
    """

    events: pl.DataFrame
    dropped: Dropped
    values: dict[str, list[str]]


@dataclass(frozen=True)
class EventTable:
    """Events in parquet files.

    Attributes:
        files: where they lie.
        columns: how the library's names are called in them, those that they have.
        time_format: see :func:`diffgrm.data.tables.read_interactions`.
        settings: what is known of events besides.
    """

    files: ParquetFiles
    columns: dict[str, str]
    time_format: str | None
    settings: EventSettings = PLAIN

    @classmethod
    def at(
        cls, source: str | Path, columns: Mapping[str, str], time_format: str | None, settings: EventSettings = PLAIN
    ) -> tuple[EventTable, Footers]:
        """The table, and what its files say of themselves.

        Args:
            settings: those of the model.

        Raises:
            DataError: no files, missing columns, columns that differ, or times that can only be read where all are seen.
        """
        files = ParquetFiles.at(source, "interaction table")
        footers = files.footers()
        asked = settings.of_histories(tuple(footers.row.columns))
        renamings_for(columns, footers.row, what=f"the {files.what}", ours=OF_EVENTS, known=OURS)
        rows = EventRows.of(FrameRows(footers.row), columns, time_format, asked)
        check_timed(rows)
        ours = dict(rows.columns)
        footers.check_same([*ours.values(), *asked.columns], f"{files.what} {files.place}")
        text = (pl.String, pl.Categorical, pl.Enum)
        if rows.timed and footers.row.schema[ours[Columns.TIMESTAMP]] in text and time_format is None:
            raise DataError(
                f"the times of {files.place} are texts, whose format cannot be told from a part of them; name it with "
                "time_format= (command line: --time-format), or write numbers or date-times"
            )
        return cls(files, ours, time_format, asked), footers

    def read(self, part: Slice) -> PartOfTable:
        """Some rows, checked.

        Raises:
            DataError: a damaged file, or rows that cannot be used.
        """
        frame = self.files.read(part, list(dict.fromkeys([*self.columns.values(), *self.settings.columns])))
        try:
            rows = EventRows(FrameRows(frame), self.columns, self.time_format, self.settings)
            events = pl.concat(rows.checked(), how="vertical_relaxed")
            if self.settings.time_inputs:
                check_years(in_seconds(*physical(events[Columns.TIMESTAMP]), self.settings.time_unit), self.settings)
        except DataError as error:
            where = f"{self.files.names[part.file]}, rows {part.start} to {part.stop - 1}"
            raise DataError(f"{where}: {error}") from error
        events = events.sort(Columns.TIMESTAMP, maintain_order=True) if rows.timed else events
        values = {name: _values(frame[name], named) for name, named in self.settings.event_columns.items()}
        return PartOfTable(events, rows.dropped, values)


def _values(column: pl.Series, named: Sequence[str]) -> list[str]:
    """What a column holds: all values that are named, and the first ones of the others."""
    found = spelled_values(column).drop_nulls().unique().sort()
    known = found.is_in(list(named))
    return [*found.filter(known), *found.filter(~known)[:OTHERS]]


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
        found: list[PartOfTable] = []

        def read(part: Slice) -> pl.DataFrame:
            found.append(self.table.read(part))
            return found[-1].events

        settings = self.table.settings
        frames, skipped = read_slices(self.pieces[number], read, self.skip)
        events = pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame(schema={Columns.USER: pl.Int64})
        ordered = events.with_columns(buckets_of(events[Columns.USER], self.buckets)).sort(BUCKET, maintain_order=True)
        as_text = events.schema[Columns.USER] == pl.String
        counts = {
            "rows": ordered.height,
            "dropped": asdict(Dropped.sum([part.dropped for part in found])),
            "values": {name: sorted({v for part in found for v in part.values[name]}) for name in settings.event_columns},
            "as_text": as_text,
            "skipped": skipped,
        }
        self.parts.write(number, ordered, counts, GROUP)


def buckets_of(users: pl.Series, buckets: int) -> pl.Series:
    """The bucket of every user [N], the same for an id as number and as text, on every machine."""
    texts = users.cast(pl.String).rename("user").to_frame()
    known = texts["user"].unique()
    hashes = [int.from_bytes(blake2b(user.encode(), digest_size=8).digest(), "little") % buckets for user in known]
    table = pl.DataFrame({"user": known, BUCKET: pl.Series(hashes, dtype=pl.Int64)})
    return texts.join(table, on="user", how="left", maintain_order="left")[BUCKET]


def events_of_bucket(
    parts: Parts, pieces: int, bucket: int, as_text: bool, settings: EventSettings = PLAIN
) -> pl.DataFrame:
    """The events of a bucket's users as :meth:`EventTable.read` gives them, the rows of a user one after the other and in
    order of time, or of their sessions; without those that others stand for (``events.repeats``).

    Users stand in the order of their first event.

    Args:
        pieces: how many files there are.
        as_text: user ids are texts; else whole numbers.
        settings: by which they were read.

    Raises:
        DataError: a session is of several users.
    """
    frames = []
    for number in range(pieces):
        scan = pl.scan_parquet(parts.path(number), glob=False)  # of a path, only the row groups that it needs are read
        frames.append(scan.filter(pl.col(BUCKET) == bucket).drop(BUCKET).collect())
    events = pl.concat([frame for frame in frames if frame.width > 1], how="vertical_relaxed")
    if Columns.TIMESTAMP in events.columns:
        events = events.sort(Columns.TIMESTAMP, maintain_order=True)
    events = events.with_columns(pl.col(Columns.USER).cast(pl.String if as_text else pl.Int64))
    if OWNER in events.columns:
        owners = SessionOwners(str(settings.session))
        owners.add(events[Columns.USER], events[OWNER])
        refuse(owners.faults(), events.height, WHAT)
    rows = events.with_row_index("row")
    rows = rows.sort(pl.col("row").min().over(Columns.USER), maintain_order=True).drop("row", OWNER, strict=False)
    return rows if settings.repeats == "keep" and SESSION not in rows.columns else rows[_kept(rows, settings)]


def _kept(events: pl.DataFrame, settings: EventSettings) -> np.ndarray:
    """Places of the events that stay, in order."""
    owners = events[Columns.USER].rle_id().to_numpy()
    items = events[Columns.ITEM].rank("dense").to_numpy()
    types, sessions = (events[name].to_numpy() if name in events.columns else None for name in (Columns.EVENT, SESSION))
    return folded(owners, items, types, sessions, settings)


def histories_of(events: pl.DataFrame, items: IdMap, settings: EventSettings, profiles: Profiles | None) -> Events:
    """Events of users, as the one door takes them.

    Args:
        events: of items that are all known, as :func:`events_of_bucket` gives them.
        settings: how they were read.
        profiles: what is known of users; None: networks are told nothing of them.
    """
    runs = events[Columns.USER].rle().struct.unnest()
    users = runs["value"].alias(Columns.USER)
    offsets = np.concatenate([[0], np.cumsum(runs["len"].to_numpy(), dtype=np.int64)])
    arrays, kind = {name: events[name].to_numpy() for name in map(value_column, range(len(settings.event_columns)))}, None
    if settings.event is not None:
        arrays["types"] = events[Columns.EVENT].to_numpy()
    if settings.time_inputs:
        arrays["times"], kind = physical(events[Columns.TIMESTAMP])
    facts = RowFacts(columns=None if profiles is None else profiles.of(users))
    rows = Ragged(items.positions(events[Columns.ITEM]), offsets, marks_of(settings, arrays, kind), facts)
    return Events.known(items, users, rows)
