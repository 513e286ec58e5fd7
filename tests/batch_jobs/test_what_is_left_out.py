"""What a batch job leaves out: damage alone, the same in all its runs; and what it is given that counts nothing."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import polars as pl
import pyarrow
import pytest

import diffgrm
from diffgrm import PopularityRecommender, Recipe
from diffgrm.apps.batch_jobs import embed_batch, engine, recommend_batch, recommending
from diffgrm.apps.batch_jobs.engine import Pool, Worker
from diffgrm.apps.batch_jobs.parquet import ParquetFiles, Slice, read_slices
from diffgrm.foundation.schema import DataError, DiffGRMError
from helpers.batch_jobs import check_same_lists, failing, in_this_process, lists, write_parts

UNREADABLE = OSError(5, "Input/output error")


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    monkeypatch.setattr(recommending, "engine", in_this_process)


@pytest.fixture(scope="module")
def model(toy, tmp_path_factory):
    recipe = Recipe(recommender="popularity")
    return PopularityRecommender(recipe).fit(toy, progress=False).save(tmp_path_factory.mktemp("models") / "popularity")


@pytest.fixture
def table(toy, tmp_path):
    return write_parts(tmp_path / "events", toy.event_table(), [200])


def recommend(model, table, out, **settings):
    return recommend_batch(model, table, out, 5, partitions=3, on_error="skip", progress=False, **settings)


@pytest.mark.parametrize("after", range(3))  # times: its footer, the users counted beforehand, the events
@pytest.mark.parametrize("error", [UNREADABLE, PermissionError(13, "Permission denied"), ConnectionError("reset by peer")])
def test_what_cannot_be_read_now_is_no_damage(model, table, tmp_path, error, after):
    out, whole = tmp_path / "out", diffgrm.read_table(table)
    with failing(error, "001.parquet", after), pytest.raises(DiffGRMError, match="could not be read: .*it may be") as told:
        recommend(model, table, out)
    assert not isinstance(told.value, DataError)
    done = recommend(model, table, out)
    assert done["events"] == whole.height and done["skipped"] == {"files": 0, "rows": 0, "problems": []}
    check_same_lists(lists(out), diffgrm.load(model).recommend(whole, 5))


def test_want_of_memory_is_no_damage_and_says_what_to_lower(model, table, tmp_path):
    out, none = tmp_path / "out", pyarrow.ArrowMemoryError("malloc of size 8 failed")
    with failing(none, "001.parquet", 1), pytest.raises(DiffGRMError, match="not memory enough .*smaller row groups"):
        recommend(model, table, out)
    assert recommend(model, table, out)["events"] == diffgrm.read_table(table).height


def test_a_job_goes_on_with_the_files_that_it_began_with(model, table, tmp_path, monkeypatch):
    """Also where the file that was damaged takes the size and time of the one that comes in its place."""
    out, bad = tmp_path / "out", table / "001.parquet"
    whole, rank = bad.read_bytes(), Worker.do
    bad.write_bytes(b"x" * len(whole))
    monkeypatch.setattr(ParquetFiles, "stamps", lambda self: [])

    def ends(self, number):
        if "Ranking" in str(self._do):
            raise KeyboardInterrupt
        return rank(self, number)

    monkeypatch.setattr(Worker, "do", ends)
    with pytest.raises(KeyboardInterrupt):
        recommend(model, table, out)
    monkeypatch.setattr(Worker, "do", rank)
    bad.write_bytes(whole)
    with pytest.raises(DataError, match=r'(?s)another job; choose another folder.*damaged was \["001.parquet"\], is null'):
        recommend(model, table, out)
    bad.write_bytes(b"x" * len(whole))
    assert recommend(model, table, out)["skipped"]["files"] == 1


def test_a_file_of_which_polars_panics_is_damaged(tmp_path, monkeypatch):
    def panics(_table):
        raise pl.exceptions.PanicException("called `Result::unwrap()` on an `Err` value: Utf8Error")

    pl.DataFrame({"user_id": ["a"]}).write_parquet(tmp_path / "x.parquet")
    monkeypatch.setattr(pl, "from_arrow", panics)
    with pytest.raises(DataError, match=r"x\.parquet is damaged, or no parquet file: .*Utf8Error"):
        ParquetFiles.at(tmp_path / "x.parquet", "table").footers()


def test_an_address_of_a_file_here_is_its_path(tmp_path):
    path = tmp_path / "x.parquet"
    pl.DataFrame({"user_id": [1, 2, 3]}).write_parquet(path)
    files = ParquetFiles.at(f"file://{path}", "table")
    assert files == ParquetFiles.at(path, "table") and files.place == str(path)
    ((frame,), _) = read_slices([[0, 1, 3]], files.read, False)
    assert frame["user_id"].to_list() == [2, 3] == files.read(Slice(0, 1, 3))["user_id"].to_list()


@pytest.mark.parametrize("value", [2.5, "4", True, 0])
def test_numbers_that_count_nothing_are_refused(model, table, tmp_path, value):
    def refused(job, *arguments, **settings):
        with pytest.raises(DataError, match=rf"is {value!r}; expected a (whole number|number of workers) from 1"):
            job(*arguments, tmp_path / "out", progress=False, **settings)

    refused(recommend_batch, model, table, partitions=value)
    refused(recommend_batch, model, table, batch_size=value)
    refused(embed_batch, table, partitions=value)
    with pytest.raises(DataError, match=f"concurrency is {value!r}; expected"):
        Pool(concurrency=value)
    if value in ("4", True):
        with pytest.raises(DataError, match=f"gpus_per_worker is {value!r}; expected 0"):
            Pool(gpus_per_worker=value)


def test_what_happens_on_signals_stays_the_callers(monkeypatch):
    def init(**_settings):
        signal.signal(signal.SIGTERM, lambda number, frame: None)

    ray = SimpleNamespace(
        init=init, is_initialized=lambda: False, shutdown=lambda: None, cluster_resources=lambda: {"CPU": 4.0}
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def mine(number, frame):
        pass

    signal.signal(signal.SIGTERM, mine)
    try:
        with engine.engine(Pool(concurrency=1)):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
