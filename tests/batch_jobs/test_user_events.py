"""Events brought together by user, a piece at a time, against the table read at once."""

from __future__ import annotations

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffgrm.apps.batch_jobs.job_folder import Parts
from diffgrm.apps.batch_jobs.parquet import ParquetFiles, cut, planned
from diffgrm.apps.batch_jobs.user_events import BringTogether, EventTable, buckets_of, events_of_bucket
from diffgrm.data.tables import read_interactions
from helpers.batch_jobs import write_parts


@st.composite
def worlds(draw):
    """Users, times with many ties or none at all, sizes of files, and numbers of pieces and buckets."""
    rows = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=60))
    sizes = draw(st.lists(st.integers(1, 20), max_size=4))
    return rows, draw(st.booleans()), sizes, draw(st.integers(1, 25)), draw(st.integers(1, 5))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(worlds())
def test_histories_are_those_of_the_whole_table_however_it_is_cut(tmp_path_factory, world):
    rows, timed, sizes, cuts, buckets = world
    folder = tmp_path_factory.mktemp("world")
    table = pl.DataFrame(
        {"user_id": [u for u, _ in rows], "item_id": range(len(rows)), "timestamp": [t for _, t in rows]}
    ).drop([] if timed else ["timestamp"])
    events, footers = EventTable.at(write_parts(folder / "events", table, sizes), {}, None)
    pieces, parts = planned(cut(footers.rows, cuts)), Parts(folder, folder / "marks")
    write = BringTogether(events, pieces, buckets, False, parts).ready()
    for number in range(len(pieces)):
        write(number)
    assert sum(parts.counts(number)["rows"] for number in range(len(pieces))) == len(rows)
    whole = read_interactions(table)
    wanted = {user: rows["item_id"].to_list() for (user,), rows in whole.group_by("user_id", maintain_order=True)}
    found = {}
    for bucket in range(buckets):
        mine = events_of_bucket(parts, len(pieces), bucket, as_text=False)
        histories = {user: rows["item_id"].to_list() for (user,), rows in mine.group_by("user_id", maintain_order=True)}
        assert not found.keys() & histories.keys()  # no user is in two buckets
        assert list(histories) == [user for user in wanted if user in histories]  # in order of their first event
        found |= histories
    assert found == wanted


def test_buckets_are_the_same_on_every_machine_and_for_numbers_and_texts():
    users = [0, 7, 41, 10**12]
    assert buckets_of(pl.Series(users), 1000).to_list() == buckets_of(pl.Series(list(map(str, users))), 1000).to_list()
    assert buckets_of(pl.Series(["user 1", "ü", ""]), 1000).to_list() == [18, 525, 756]  # for jobs that go on later
    many = buckets_of(pl.Series(range(10_000)), 10).value_counts()["count"]
    assert many.len() == 10 and many.min() > 900  # about 1000 each


def test_a_pattern_is_the_files_that_it_fits(tmp_path):
    write_parts(tmp_path / "parts", pl.DataFrame({"user_id": range(9)}), [4])
    (tmp_path / "parts" / "_mark.parquet").touch()
    files = ParquetFiles.at(tmp_path / "par*" / "*.parquet", "table")
    assert files.names == ParquetFiles.at(tmp_path / "parts", "table").names
    assert sum(files.footers().rows) == 9
