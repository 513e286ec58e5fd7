"""Batch jobs: tables for them, their results, and the same without Ray."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import fsspec

import diffgrm

BY = ["user_id", "rank"]


def lists(out):
    """The lists that a job wrote, ordered by user and rank."""
    return diffgrm.read_table(out).sort(BY)


def check_same_lists(found, wanted):
    """Two tables of recommendations hold the same lists; scores may differ in the last bits with who is asked at once."""
    found, wanted = found.sort(BY), wanted.sort(BY)
    assert found.drop("score").equals(wanted.drop("score"))
    assert (found["score"] - wanted["score"]).abs().max() < 1e-5


@contextmanager
def in_this_process(pool):
    """What stands for :func:`diffgrm.apps.batch_jobs.engine.engine` where Ray is not what is tested."""
    yield SimpleNamespace(pool=pool, workers=1, do=lambda work: work.here())


@contextmanager
def failing(error, name, after=0):
    """Files of a name cannot be opened while the block lasts, after so many times."""
    system, opened = type(fsspec.filesystem("file")), []

    def fails(self, path, *arguments, **settings):
        opened.extend([path] * str(path).endswith(name))
        if str(path).endswith(name) and len(opened) > after:
            raise error
        return whole(self, path, *arguments, **settings)

    whole, system.open = system.open, fails
    try:
        yield
    finally:
        system.open = whole


def write_parts(folder, table, sizes):
    """A table as a folder of parquet files with so many rows each; what is left goes into one more."""
    folder.mkdir()
    start = 0
    for number, size in enumerate([*sizes, table.height]):
        part = table.slice(start, size)
        if part.height:
            part.write_parquet(folder / f"{number:03}.parquet", row_group_size=7)
        start += size
    return folder
