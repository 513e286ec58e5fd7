"""The events of an interaction table as integers; those of large parquet tables stay in the cache folder.

Their name there says which files, columns and items they are of, and which version of this code made them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.blocks import EventRows, Rows
from diffgrm.data.coding import Events, Unknown, code_events, marks_of, refuse_unknown
from diffgrm.data.event_columns import value_column
from diffgrm.data.ids import IdMap
from diffgrm.data.marks import PLAIN
from diffgrm.data.reading import ReadingReport
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, OutputError
from diffgrm.foundation.storage import cache_folder, digest, file_digest, note_use, read_parquet, write_parquet

logger = logging.getLogger(__name__)


def read_events(
    rows: Rows,
    items: IdMap,
    columns: Mapping[str, str] | None = None,
    time_format: str | None = None,
    unknown: Unknown = "refuse",
    settings: EventSettings = PLAIN,
) -> Events:
    """The events of a table.

    Args:
        items: the catalogue.
        columns, time_format: see :func:`diffgrm.data.tables.read_interactions`.
        unknown: events of items that the catalogue does not have.
        settings: which rows are events, and what is known of them.

    Raises:
        DataError: an unusable table, see :func:`diffgrm.data.tables.read_interactions`; or unknown items, where they are
            refused.
    """
    events = EventRows.of(rows, columns or {}, time_format, settings)
    home = cache_folder()
    if events.rows.height <= mapped.IN_MEMORY or not (stamps := rows.stamps()) or home is None:
        return code_events(events, items, unknown)
    code = [file_digest(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    read_by = settings.model_dump(mode="json")
    facts = [stamps, dict(events.columns), read_by, time_format, items.dtype, items.series.hash(0).to_numpy()]
    folder = home / "events" / digest([*facts, len(items), pl.__version__, *code])[:32]
    found = _load(folder, items, settings)
    if found is None:
        found = _make(folder, events, items, unknown)
    else:
        note_use(folder)
        logger.info("The events come from the cache: %s", folder)
    if unknown == "refuse":
        refuse_unknown(found.strange)
    return found


# ---- the cache -------------------------------------------------------------------------------------------------------


def _make(folder: Path, events: EventRows, items: IdMap, unknown: Unknown) -> Events:
    """Code the events, and keep them in a folder of the cache; where that cannot be written, only for now."""
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        logger.warning("The events could not be cached in %s: %s", folder.parent, error)
        return code_events(events, items, unknown)
    try:
        _save(code_events(events, items, unknown, partial(_stored, temporary)), temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker, and has the same
                raise
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{folder} could not be written: {error.strerror or error}; make room, or name a folder on another disk in "
            "DIFFGRM_CACHE"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = _load(folder, items, events.settings)
    if found is None:
        raise OutputError(
            f"{folder} has just been written and cannot be read; name a folder on another disk in DIFFGRM_CACHE"
        )
    return found


def _stored(folder: Path, name: str, length: int, kind: Any) -> np.ndarray:
    return mapped.stored(folder / name, length, kind)


def _save(events: Events, folder: Path) -> None:
    """Put what is not there yet beside the arrays, which were made there."""
    write_parquet(events.users.to_frame("id"), folder / "users.parquet")
    write_parquet(events.strange, folder / "strange.parquet")
    events.offsets.tofile(folder / "offsets")
    times = events.times
    (folder / "times.json").write_text(json.dumps(None if times is None else times.dtype.str))
    write_parquet(pl.DataFrame(schema={} if times is None else {"time": events.time_type}), folder / "times.parquet")
    (folder / "report.json").write_text(json.dumps(None if events.report is None else events.report.to_dict()))
    marks = {"types": events.marks.types, "weights": events.marks.weights}
    marks |= {value_column(number): array for number, array in enumerate(events.marks.values)}
    for name, array in {"items": events.items, "times": times, **marks}.items():
        if isinstance(array, np.memmap):
            array.flush()
            os.truncate(folder / name, array.nbytes)  # of repeated events that were dropped


def _load(folder: Path, items: IdMap, settings: EventSettings) -> Events | None:
    """What :func:`_make` kept; None where nothing is, or was, for it is damaged."""
    if not folder.is_dir():
        return None
    try:
        users = read_parquet(folder / "users.parquet")["id"]
        offsets = np.fromfile(folder / "offsets", np.int64)
        if len(offsets) != len(users) + 1:
            raise ValueError(f"there are {len(users)} users and {len(offsets)} offsets")
        length, kind = int(offsets[-1]), json.loads((folder / "times.json").read_text())
        report = ReadingReport.from_dict(json.loads((folder / "report.json").read_text()))
        kinds = {"items": np.int64} | ({} if kind is None else {"times": kind})
        kinds |= {} if settings.event is None else {"types": np.int16}
        kinds |= {} if settings.weight is None else {"weights": np.float32}
        kinds |= {value_column(number): np.int16 for number in range(len(settings.event_columns))}
        arrays = {name: mapped.read(folder / name, length, dtype) for name, dtype in kinds.items()}
        time_type = None if kind is None else read_parquet(folder / "times.parquet").schema["time"]
        return Events(
            items,
            users,
            offsets,
            arrays["items"],
            arrays.get("times"),
            time_type,
            read_parquet(folder / "strange.parquet"),
            marks_of(settings, arrays, time_type),
            report,
        )
    except (DataError, OSError, ValueError, TypeError, KeyError, pl.exceptions.PolarsError) as error:
        logger.warning("The cached events %s are damaged (%s); making them again.", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
