"""Events read by blocks, their arrays in files, are those of a table that is read at once."""

from __future__ import annotations

import datetime
import logging
import shutil
import tempfile
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.data import mapped
from diffgrm.data.dataset import InteractionDataset, Ragged, leave_one_out, validation_only
from diffgrm.data.histories import read_histories
from diffgrm.data.ids import IdMap
from diffgrm.data.splits import temporal
from diffgrm.data.tables import read_interactions
from diffgrm.evaluation.kinds import seen_steps
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, OutputError
from diffgrm.foundation.storage import cache_folder
from diffgrm.recommenders.by_blocks import recommend_blocks

N_ITEMS = 6
ITEMS = pl.DataFrame({"item_id": [f"i{i}" for i in range(N_ITEMS)], "text": [f"thing {i}" for i in range(N_ITEMS)]})


@contextmanager
def small_memory(block: int = 3, in_memory: int = 4):
    """Blocks of a few rows, and files for whatever is longer than a few values."""
    with mock.patch.multiple(mapped, BLOCK=block, IN_MEMORY=in_memory):
        yield


def written(folder: Path, table: pl.DataFrame, cuts: list[int]) -> Path:
    """The table as a folder of parts."""
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, table.height], strict=True)):
        table[start:stop].write_parquet(folder / f"part-{number:03}.parquet", row_group_size=2)
    return folder


def at_once(table: pl.DataFrame, items: IdMap) -> tuple[list, list[list[int]], list[list]]:
    """Users, and the items and times of each, of a table that is put in order as a whole."""
    ordered = read_interactions(table)
    times = ordered["timestamp"].to_list() if "timestamp" in ordered.columns else [None] * ordered.height
    users: dict = {}
    for user, item, time in zip(ordered["user_id"], items.positions(ordered["item_id"]).tolist(), times, strict=True):
        users.setdefault(user, []).append((item, time))
    return list(users), [[i for i, _ in row] for row in users.values()], [[t for _, t in row] for row in users.values()]


def as_lists(rows: Ragged) -> list[list]:
    return [rows[number].tolist() for number in range(len(rows))]


KINDS = {
    "numbers": lambda t: pl.Series(t, dtype=pl.Int32),
    "floats": lambda t: pl.Series(t, dtype=pl.Float64) / 4,
    "dates": lambda t: pl.Series(t, dtype=pl.Int32).cast(pl.Date),
    "moments": lambda t: pl.Series(t).cast(pl.Datetime("ns", "UTC")),
    "texts": lambda t: (pl.Series(t, dtype=pl.Int64) * 86400_000_000).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d"),
    "decimals": lambda t: pl.Series(t, dtype=pl.Int64).cast(pl.Decimal(12, 2)),
    "none": lambda t: None,
}


@st.composite
def tables(draw) -> tuple[pl.DataFrame, list[int]]:
    """A table, users as text or numbers, with equal times and repeated events; and where to cut it into files."""
    size = draw(st.integers(1, 40))
    users = draw(st.lists(st.integers(0, 6), min_size=size, max_size=size))
    items = draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=size, max_size=size))
    times = KINDS[draw(st.sampled_from(sorted(KINDS)))](draw(st.lists(st.integers(0, 5), min_size=size, max_size=size)))
    ids = pl.Series(users) if draw(st.booleans()) else pl.Series([f"u{user}" for user in users])
    table = pl.DataFrame({"user_id": ids, "other": 1, "item_id": [f"i{item}" for item in items]})
    table = table if times is None else table.with_columns(timestamp=times)
    return table, sorted(draw(st.lists(st.integers(0, size), max_size=4)))


@settings(deadline=None, max_examples=40)
@given(tables(), st.integers(1, 9), st.integers(0, 9))
def test_blocks_and_files_change_nothing(drawn, block, in_memory):
    table, cuts = drawn
    whole = InteractionDataset.from_tables(table, ITEMS)
    with tempfile.TemporaryDirectory() as folder, small_memory(block, in_memory):
        read = InteractionDataset.from_tables(written(Path(folder), table, cuts), ITEMS)
        users, items, times = at_once(table, read.items)
        assert read.users.series.to_list() == whole.users.series.to_list() == users
        assert as_lists(read.events) == as_lists(whole.events) == items
        assert isinstance(read.events.values, np.memmap) == (table.height > in_memory)
        if "timestamp" in table.columns:
            assert read.event_table()["timestamp"].to_list() == [time for row in times for time in row]
        assert read.event_table().equals(whole.event_table())
        splits = [leave_one_out(read), validation_only(read)]
        fingerprints = [split.fingerprint for split in splits]
    for split, fingerprint, make in zip(splits, fingerprints, (leave_one_out, validation_only), strict=True):
        assert_same_split(split, make(whole))
        assert fingerprint == make(whole).fingerprint


def assert_same_split(split, other):
    assert as_lists(split.train) == as_lists(other.train)
    assert split.item_counts.tolist() == other.item_counts.tolist()
    for part, its in ((split.validation, other.validation), (split.test, other.test)):
        assert part.user_ids.to_list() == its.user_ids.to_list()
        assert as_lists(part.histories) == as_lists(its.histories)
        assert as_lists(part.targets) == as_lists(its.targets)


def temporal_by_lists(dataset, first: float, second: float):
    """Training rows, and (user, history, targets) of both windows, from lists."""
    users = dataset.users.series.to_list()
    times = as_lists(Ragged(dataset.timestamps, dataset.events.offsets))
    rows = [list(zip(*both, strict=True)) for both in zip(as_lists(dataset.events), times, strict=True)]

    def window(start, stop):
        found = []
        for user, row in zip(users, rows, strict=True):
            history = [item for item, time in row if time < start]
            targets = list(dict.fromkeys(item for item, time in row if start <= time < stop))
            if history and targets:
                found.append((user, history, targets))
        return found

    train = [[item for item, time in row if time < first] for row in rows]
    return train, window(first, second), window(second, np.inf)


@settings(deadline=None)
@given(
    tables().filter(lambda drawn: "timestamp" in drawn[0].columns), st.sampled_from([(0.1, 0.1), (0.3, 0.2), (0.0, 0.5)])
)
def test_a_temporal_split_is_that_of_lists(drawn, shares):
    table, cuts = drawn
    whole = InteractionDataset.from_tables(table, ITEMS)
    ordered = np.sort(whole.timestamps.astype(float))
    first, second = (
        ordered[min(round(len(ordered) * (1 - share)), len(ordered) - 1)] for share in (sum(shares), shares[1])
    )
    wanted = temporal_by_lists(whole, first, second)
    with tempfile.TemporaryDirectory() as folder, small_memory():
        read = InteractionDataset.from_tables(written(Path(folder), table, cuts), ITEMS)
        if not any(wanted[0]):
            with pytest.raises(DataError, match="no event lies before the first cut"):
                temporal(read, *shares)
            return
        split = temporal(read, *shares)
    assert as_lists(split.train) == wanted[0]
    for part, window in ((split.validation, wanted[1]), (split.test, wanted[2])):
        assert list(zip(part.user_ids, as_lists(part.histories), as_lists(part.targets), strict=True)) == window


def random_events(seed: int = 0, size: int = 400) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    user, item, time = draw.integers(0, 40, size), draw.integers(0, N_ITEMS, size), draw.integers(0, 90, size)
    return pl.DataFrame({"user_id": user, "item_id": [f"i{i}" for i in item], "timestamp": time})


@pytest.mark.parametrize("name", ["item_knn", "popularity"])
def test_what_is_fitted_and_recommended_is_the_same(name, tmp_path, caplog):
    table = random_events()

    def answer(interactions):
        fitted = resolve("recommender", name)(Recipe(recommender=name)).fit(
            InteractionDataset.from_tables(interactions, ITEMS), progress=False
        )
        lists = fitted.recommend(interactions, k=4, exclude_seen=False)
        return fitted.facts["training_fingerprint"], lists, fitted

    fingerprint, lists, fitted = answer(table)
    folder = written(tmp_path, table, [100, 101, 350])
    with small_memory(block=50, in_memory=20):
        print_of_files, lists_of_files, _ = answer(folder)
        blocks = list(recommend_blocks(fitted, folder, k=4, exclude_seen=False, users_at_once=7))
    assert print_of_files == fingerprint
    assert lists_of_files.equals(lists)
    assert len(blocks) == 6 and pl.concat(blocks).equals(lists)
    some = {"only": ["i1", "i2", "i5", "x"], "without": ["i2"], "users": list(range(9))}
    wanted = fitted.recommend(k=2, **some)
    assert pl.concat(recommend_blocks(fitted, k=2, **some, users_at_once=4)).equals(wanted)
    assert set(wanted["item_id"]) <= {"i1", "i5"}
    assert caplog.text.count("'only' names 1 items that are not in the catalogue") == 2  # of each call, not of each block


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=8), st.integers(1, 9), st.data())
def test_rows_in_files_behave_like_lists(rows, block, data):
    with small_memory(block, in_memory=2):
        ragged = Ragged.from_lists(rows)
        chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))
        assert as_lists(ragged.rows(np.array(chosen, dtype=int))) == [rows[number] for number in chosen]
        start = np.array([data.draw(st.integers(0, len(row))) for row in rows])
        stop = np.array([data.draw(st.integers(int(s), len(row))) for s, row in zip(start, rows, strict=True)])
        assert as_lists(ragged.part(start, stop)) == [r[a:b] for r, a, b in zip(rows, start, stop, strict=True)]
        assert as_lists(ragged.by_blocks(Ragged.distinct)) == [list(dict.fromkeys(row)) for row in rows]
        whole = [rows[number] for part, found in ragged.blocks() for number in range(*part.indices(len(rows)))]
        assert whole == rows and [row for _, found in ragged.blocks() for row in as_lists(found)] == rows


def test_steps_that_training_has_are_found_by_blocks():
    table = random_events(size=120)
    split = leave_one_out(InteractionDataset.from_tables(table, ITEMS))
    pairs = {pair for row in as_lists(split.train) for pair in pairwise(row)}
    histories, targets = as_lists(split.test.histories), as_lists(split.test.targets)
    wanted = [(history[-1], target) in pairs for history, (target,) in zip(histories, targets, strict=True)]
    assert 0 < sum(wanted) < len(wanted)
    with small_memory():
        assert seen_steps(split.train, split.test, N_ITEMS).tolist() == wanted


# ---- what is said ----------------------------------------------------------------------------------------------------


BAD = {
    "ids": pl.DataFrame(
        {"user_id": ["u", None, "", "u", None, "u", "u", None, None, None, None], "item_id": [" ", "i1", *["i2"] * 9]}
    ),
    "halves": pl.DataFrame({"user_id": [1.0, 2.0, 3.0, 4.0, 5.5], "item_id": ["i1"] * 5}),
    "times": pl.DataFrame(
        {"user_id": ["u"] * 6, "item_id": ["i1"] * 6, "timestamp": [1.0, None, 2.0, float("nan"), 3.0, None]}
    ),
    "texts": pl.DataFrame({"user_id": ["u"] * 5, "item_id": ["i1"] * 5, "timestamp": ["1", "2", "3", "4", "soon"]}),
    "lists": pl.DataFrame({"user_id": [["u"]] * 5, "item_id": ["i1"] * 5, "timestamp": [[1]] * 5}),
    "unknown": pl.DataFrame({"user_id": ["u"] * 9, "item_id": list("zyxwvutsz"), "timestamp": [2, 9, 8, 7, 6, 5, 4, 3, 1]}),
    "empty": pl.DataFrame({"user_id": [], "item_id": []}, schema={"user_id": pl.String, "item_id": pl.String}),
    "other": pl.DataFrame({"user": ["u"] * 5, "item_id": ["i1"] * 5}),
}


def told(interactions, **options) -> str:
    with pytest.raises(DataError) as error:
        InteractionDataset.from_tables(interactions, ITEMS, **options)
    return str(error.value)


@pytest.mark.parametrize("name", BAD)
def test_the_same_is_said_of_bad_rows_whatever_block_they_are_in(name, tmp_path):
    whole = told(BAD[name])
    with small_memory():
        assert told(written(tmp_path, BAD[name], [1, 2, 4][: BAD[name].height])) == whole
    assert not [path for path in (cache_folder() / "events").glob(".*.tmp")]


def test_messages_count_rows_of_the_whole_table(tmp_path):
    with small_memory():
        said = told(written(tmp_path, BAD["ids"], [4]))
        assert "user_id is null in 6 rows (rows 1, 4, 7, 8, 9, ... (6 in all))" in said
        assert "user_id is empty in 1 rows (rows 2)" in said and "item_id is empty in 1 rows (rows 0)" in said
        assert "(row 4 holds 5.5; cast it first)" in told(BAD["halves"])
        said = "9 events are of 8 items that the item table does not have: 'z', 's', 't', 'u', 'v', ... (8 in all)"
        assert said in told(BAD["unknown"])


def test_a_format_that_no_row_has_is_told_once_for_all_blocks(tmp_path):
    table = BAD["texts"].with_columns(timestamp=pl.Series([None, None, None, None, "soon"]))
    with small_memory():
        assert "no timestamp reads as time_format='%Y': the first is 'soon'" in told(table, time_format="%Y")
        some = table.with_columns(timestamp=pl.Series(["2001", "2002", "2003", "2004", "soon"]))
        assert "unreadable in 1 rows (rows 4): 'soon'" in told(written(tmp_path, some, [2]), time_format="%Y")


def test_numbers_too_large_for_int64_make_text_of_all(tmp_path):
    users = pl.Series([1, 2, 2**63, 1, 2], dtype=pl.UInt64)
    table = pl.DataFrame({"user_id": users, "item_id": ["i1"] * 5})
    with small_memory(block=1):
        read = InteractionDataset.from_tables(written(tmp_path, table, []), ITEMS)
    assert read.users.series.to_list() == ["1", "2", str(2**63)]
    assert read.events.lengths.tolist() == [2, 2, 1]


def test_unknown_items_of_histories_are_passed_over_with_the_same_words(tmp_path, caplog):
    table = pl.DataFrame({"user_id": list("aabbbcc"), "item_id": ["i1", "x", "y", "i2", "x", "z", "w"]})
    items, found = IdMap(ITEMS["item_id"]), []
    for source in (table, written(tmp_path, table, [3])):
        caplog.clear()
        with small_memory():
            users, positions = read_histories(source, items, "skip")
        found.append((users.to_list(), as_lists(positions), [record.getMessage() for record in caplog.records]))
    assert found[0] == found[1]
    assert found[0][:2] == (["a", "b"], [[1], [2]])
    assert "5 history items are not in the catalogue and are passed over: 'x', 'y', 'x', 'z', 'w'" in found[0][2]


# ---- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "events"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "events").mkdir()
    return written(tmp_path / "events", random_events(), [150])


def test_events_are_coded_once_for_the_same_files_and_items(cache, folder, caplog):
    caplog.set_level(logging.INFO)
    with small_memory():
        first = InteractionDataset.from_tables(folder, ITEMS)
        again = InteractionDataset.from_tables(folder, ITEMS)
        assert [str(kept) in caplog.text for kept in cache.iterdir()] == [True]
        assert again.event_table().equals(first.event_table()) and again.event_table().schema == first.event_table().schema
        InteractionDataset.from_tables(folder, ITEMS.with_columns(text=pl.lit("other")))
        assert len(list(cache.iterdir())) == 1
        more = pl.concat([ITEMS, pl.DataFrame({"item_id": ["h"], "text": ["new"]})])  # moves the positions of the others
        moved = InteractionDataset.from_tables(folder, more)
        assert len(list(cache.iterdir())) == 2
        assert moved.event_table().equals(first.event_table())
        random_events(1, 30).write_parquet(folder / "part-000.parquet")
        changed = InteractionDataset.from_tables(folder, ITEMS)
    assert len(list(cache.iterdir())) == 3
    assert len(changed.events.values) == 280 and not changed.events.values.flags.writeable


@pytest.mark.parametrize("damaged", ["items", "offsets", "times", "users.parquet", "times.json", "strange.parquet"])
def test_damaged_events_are_made_again(cache, folder, caplog, damaged):
    with small_memory():
        first = InteractionDataset.from_tables(folder, ITEMS).event_table().rows()  # a copy of what will be damaged
        (kept,) = cache.iterdir()
        (kept / damaged).write_bytes(b"{")
        assert InteractionDataset.from_tables(folder, ITEMS).event_table().rows() == first
        assert f"The cached events {kept} are damaged" in caplog.text
        caplog.clear()
        assert InteractionDataset.from_tables(folder, ITEMS).event_table().rows() == first
        assert "are damaged" not in caplog.text


def test_small_tables_frames_and_other_formats_leave_nothing_in_the_cache(cache, folder, tmp_path):
    InteractionDataset.from_tables(folder, ITEMS)
    with small_memory():
        InteractionDataset.from_tables(random_events(), ITEMS)
        random_events().write_csv(tmp_path / "events.csv")
        InteractionDataset.from_tables(tmp_path / "events.csv", ITEMS)
    assert not cache.exists() or not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_costs_a_warning(cache, folder, caplog):
    cache.parent.write_text("a file in its place")
    with small_memory():
        found = InteractionDataset.from_tables(folder, ITEMS)
    assert "The events could not be cached" in caplog.text
    assert found.event_table().equals(InteractionDataset.from_tables(random_events(), ITEMS).event_table())


def test_a_full_disk_is_told_and_leaves_nothing(cache, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped.os, "posix_fallocate", full, raising=False)
    with (
        small_memory(),
        pytest.raises(OutputError, match="no room for 3,200 bytes of events: No space left.*DIFFGRM_CACHE"),
    ):
        InteractionDataset.from_tables(folder, ITEMS)
    assert not list(cache.iterdir())


# ---- folders and patterns --------------------------------------------------------------------------------------------


def test_a_pattern_is_the_files_that_it_fits_in_order(tmp_path):
    table = random_events()
    for day, rows in enumerate(table.iter_slices(150)):
        (tmp_path / f"day={day}").mkdir()
        rows.write_parquet(tmp_path / f"day={day}" / "a.parquet")
        (tmp_path / f"day={day}" / "_marks.parquet").touch()
        (tmp_path / f"day={day}" / "notes.txt").touch()
    whole = InteractionDataset.from_tables(table, ITEMS)
    for pattern in ("day=*/*.parquet", "**/a.parquet", "day=[0-9]/?.parquet"):
        assert InteractionDataset.from_tables(tmp_path / pattern, ITEMS).event_table().equals(whole.event_table())
    with pytest.raises(
        DataError, match=r"there is no interaction table file .*b\*\.parquet, and as a pattern it fits no file"
    ):
        read_interactions(tmp_path / "b*.parquet")
    shutil.copytree(tmp_path / "day=0", tmp_path / "x.parquet")
    with pytest.raises(
        DataError, match=r"fits folders: .*x\.parquet; let it fit the files, for example .*x\.parquet/\*\.par"
    ):
        read_interactions(tmp_path / "*.parquet")


def test_only_the_columns_that_are_needed_are_read(tmp_path):
    table = random_events().with_columns(other=pl.lit("x"))
    table[:200].write_parquet(tmp_path / "1.parquet")
    for value in ([1], datetime.date(2024, 1, 31)):  # of types that go with no text
        table[200:].with_columns(other=pl.lit(value)).write_parquet(tmp_path / "2.parquet")
        with pytest.raises(DataError, match="differ in the types of their columns"):
            read_interactions(tmp_path)
        read = InteractionDataset.from_tables(tmp_path, ITEMS)
        assert read.event_table().equals(InteractionDataset.from_tables(table, ITEMS).event_table())


def test_types_that_one_type_holds_are_that_type(tmp_path):
    table = random_events()
    table[:200].cast({"timestamp": pl.Int16}).write_parquet(tmp_path / "1.parquet")
    table[200:].cast({"timestamp": pl.Float32}).write_parquet(tmp_path / "2.parquet")
    with small_memory(block=90):
        read = InteractionDataset.from_tables(tmp_path, ITEMS)
    at_once = InteractionDataset.from_tables(
        pl.read_parquet([tmp_path / "1.parquet"]).pipe(
            lambda first: pl.concat([first, pl.read_parquet(tmp_path / "2.parquet")], how="vertical_relaxed")
        ),
        ITEMS,
    )
    assert read.event_table().equals(at_once.event_table())
    with pytest.raises(DataError, match=r"differ: 1\.parquet has the columns .*, 3\.parquet has \['user_id'\]"):
        table.select("user_id").write_parquet(tmp_path / "3.parquet")
        InteractionDataset.from_tables(tmp_path, ITEMS)


def test_a_damaged_part_is_named(folder):
    content = (folder / "part-001.parquet").read_bytes()
    (folder / "part-001.parquet").write_bytes(content[:-9])
    with pytest.raises(DataError, match=r"the interaction table file .*part-001\.parquet could not be read"):
        InteractionDataset.from_tables(folder, ITEMS)
    (folder / "part-001.parquet").write_bytes(content[:4] + b"\0" * 400 + content[404:])  # the footer is sound
    with small_memory(), pytest.raises(DataError, match=r"part-001\.parquet could not be read"):
        InteractionDataset.from_tables(folder, ITEMS)
