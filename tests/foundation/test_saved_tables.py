"""Tables of model folders: no file makes more in memory than its size accounts for, whatever it says of itself."""

from __future__ import annotations

import base64
import errno
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from diffgrm.foundation import saved_tables
from diffgrm.foundation.saved_tables import claimed_sizes, read_table, write_table
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import State

N = 2_000
TABLES = {
    "ids and texts": pl.DataFrame({"item_id": [f"i{n}" for n in range(N)], "text": ["the same"] * N}),
    "columns that say nothing": pl.DataFrame({"item_id": range(N), **{f"c{n}": np.zeros(N) for n in range(80)}}),
    "vectors": pl.DataFrame({"v": np.random.default_rng(0).normal(size=(N, 16))}),
    "vectors of zeros": pl.DataFrame({"v": np.zeros((N, 512), np.float32)}),
    "structures of arrays": pl.DataFrame({"s": pl.DataFrame({"v": np.zeros((20_000, 512), np.int8)}).to_struct()}),
    "lists of arrays": pl.DataFrame(
        {"l": [[[0] * 64] * 2, [None], [], None] * (N // 4)}, {"l": pl.List(pl.Array(pl.Int8, 64))}
    ),
    "structures": pl.DataFrame({"s": [{"a": 1, "b": [True]}, None], "n": [None, None], "t": ["long" * 10**5, ""]}),
    "nothing": pl.DataFrame({"a": [1]}).clear(),
    "no columns": pl.DataFrame(),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_are_saved_are_read(tmp_path, kind):
    path, table = tmp_path / "t.parquet", TABLES[kind]
    table.write_parquet(path, row_group_size=700)
    assert claimed_sizes(path)[0] == table.height
    assert read_table(path).equals(table)


def test_values_and_bytes_are_counted(tmp_path):
    pl.DataFrame({"a": range(N), "l": [[1.0, None], []] * (N // 2)}).write_parquet(tmp_path / "t.parquet")
    rows, values, unpacked = claimed_sizes(tmp_path / "t.parquet")
    assert rows == N and N // 2 * 3 <= values <= N // 2 * 3 + N and 8 * (N + values) < unpacked < 20 * (N + values)


@pytest.mark.parametrize("rows", [1, 2])
def test_lists_without_end_are_not_read(tmp_path, monkeypatch, rows):
    path = tmp_path / "t.parquet"
    long = pl.repeat(0, 4_000_000, eager=True).implode()
    pl.DataFrame({"item_id": range(rows), "l": pl.concat([long] * rows)}).write_parquet(path)
    monkeypatch.setattr(saved_tables, "MOST_BYTES", (2**12, 0))
    monkeypatch.setattr(pl, "read_parquet", None)
    with pytest.raises(ModelFolderError, match=r"t\.parquet is damaged: it says that it has \d rows, and \d\d,.* bytes"):
        read_table(path)


ARRAY = pl.Array(pl.Int8, 8)
WIDE = {
    "arrays": (ARRAY, 80),
    "structures": (pl.Struct({"a": ARRAY, "b": pl.Struct({"c": ARRAY}), "d": pl.Int8}), 160),
    "lists": (pl.List(ARRAY), 320),
    "arrays of structures": (pl.Array(pl.Struct({"a": pl.Int8, "b": ARRAY}), 3), 270),
    "arrays of lists": (pl.Array(pl.List(ARRAY), 3), 350),
    "no arrays": (pl.Struct({"a": pl.List(pl.Int8), "b": pl.Int8}), 0),
}


@pytest.mark.parametrize("kind", WIDE)
def test_values_of_arrays(kind):
    """Of 10 rows, and 40 values in the longest column."""
    assert saved_tables._places(WIDE[kind][0], 10, 40) == WIDE[kind][1]


def test_arrays_of_many_columns_count_together(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    wide = pl.Series([None] * 10, dtype=pl.Array(pl.Int8, 10**4))
    pl.DataFrame({str(n): wide for n in range(9)}).write_parquet(path)
    monkeypatch.setattr(saved_tables, "MOST_BYTES", (0, 5 * 10**5))
    with pytest.raises(ModelFolderError, match=r"it says that it has 10 rows, and 9\d\d,.* bytes"):
        read_table(path)


def test_what_is_written_is_read_or_refused_at_once(tmp_path, monkeypatch):
    """Arrays in lists may all be null, as far as sizes tell; those that repeat are written as they are."""
    path, table = (
        tmp_path / "t.parquet",
        pl.DataFrame({"l": [[[0.0] * 64] * 8] * N}, {"l": pl.List(pl.Array(pl.Float32, 64))}),
    )
    monkeypatch.setattr(saved_tables, "MOST_BYTES", (2**12, 0))
    table.write_parquet(path)
    with pytest.raises(ModelFolderError, match=r"t\.parquet is damaged: it says"):
        read_table(path)
    write_table(table, path)
    assert read_table(path).equals(table)
    monkeypatch.setattr(saved_tables, "MOST_BYTES", (2, 0))
    with pytest.raises(OSError, match=r"t\.parquet would be refused when it is loaded: .*; leave out columns of arrays"):
        write_table(table, path)


def test_rows_without_end_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"user_id": pl.repeat(1, 2_000_000, eager=True)}).write_parquet(path)
    monkeypatch.setattr(pl, "read_parquet", None)
    with pytest.raises(ModelFolderError, match=r"it says that it has 2,000,000 rows"):
        read_table(path)


def test_arrays_without_end_are_not_read(tmp_path, monkeypatch):
    """A null array is one value in the file; how wide it is stands in the schema alone."""
    pa, path = pytest.importorskip("pyarrow"), tmp_path / "t.parquet"
    import pyarrow.parquet

    table = pa.table({"a": pa.array([None] * 4, type=pa.list_(pa.int8(), 77))})
    pyarrow.parquet.write_table(table, path)
    known = pyarrow.parquet.ParquetFile(path).metadata.metadata[b"ARROW:schema"]
    wide = base64.b64decode(known).replace(struct.pack("<i", 77), struct.pack("<i", 10**8))
    path.write_bytes(path.read_bytes().replace(known, base64.b64encode(wide)))
    assert pl.read_parquet_schema(path) == {"a": pl.Array(pl.Int8, 10**8)}
    monkeypatch.setattr(pl, "read_parquet", None)
    with pytest.raises(ModelFolderError, match="400,000,064 bytes once it is read"):
        read_table(path)


def natural(value):
    """A natural number as the compact protocol of Thrift writes it."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + natural(value >> 7)


def number(value):
    return natural(value << 1 if value >= 0 else (-value << 1) - 1)


def written(path, page, pages, lengths):
    """A file of pages, and a column of each length, which all begin at the first page."""
    kind, empty = b"\x15" + number(1) + b"\x46" + number(0) + b"\x16" + number(0), b"\x16" + number(0)
    columns = b"".join(b"\x3c" + kind + b"\x16" + number(n) + b"\x26" + number(4) + b"\0\0" for n in lengths)
    groups = bytes([0x19, 0x1C, 0x19, len(lengths) << 4 | 12]) + columns + empty * 2 + b"\0"
    footer = b"\x15" + number(1) + b"\x19\x1c" + b"\x48\1s\x15" + number(0) + b"\0" + empty + groups + b"\0"
    path.write_bytes(b"PAR1" + page * pages + footer + struct.pack("<I", len(footer)) + b"PAR1")


def header(statistic=0):
    """That of a page of nothing, with a structure of so many bytes more."""
    data = b"\x2c\x15" + number(0) + (b"\x48" + natural(statistic) + bytes(statistic) if statistic else b"") + b"\0"
    return b"".join(b"\x15" + number(0) for _ in range(3)) + data + b"\0"


@pytest.mark.parametrize("undone", [(), (-(10**6),)])
def test_columns_that_overlap_are_not_walked(tmp_path, monkeypatch, undone):
    page, path = header(), tmp_path / "t.parquet"
    written(path, page, 50, [50 * len(page)])
    assert claimed_sizes(path) == (0, 0, 0)
    written(path, page, 50, [50 * len(page)] * 9 + list(undone))
    monkeypatch.setattr(saved_tables, "_page", None)
    with pytest.raises(ModelFolderError, match=r"t\.parquet is damaged: its columns together are longer than it"):
        read_table(path)


def test_headers_are_read_about_as_far_as_they_go(tmp_path, monkeypatch):
    page, path, read = header(5_000), tmp_path / "t.parquet", []
    written(path, page, 100, [100 * len(page)])
    plain = saved_tables._Thrift
    monkeypatch.setattr(saved_tables, "_Thrift", lambda data: (read.append(len(data)), plain(data))[1])
    assert claimed_sizes(path) == (0, 0, 0) and sum(read) < 3 * path.stat().st_size


def test_files_that_are_cut_or_none(tmp_path):
    path = tmp_path / "t.parquet"
    TABLES["structures"].write_parquet(path)
    content = path.read_bytes()
    for strange in (
        b"",
        b"PAR1",
        content[:-1],
        content[50:],
        b"PAR1" + b"\xff" * 500 + b"PAR1",
        b"\x1c" * 9**4 + content[-8:],
    ):
        path.write_bytes(strange)
        with pytest.raises(ModelFolderError, match=r"t\.parquet is damaged"):
            read_table(path)
    path.unlink()
    with pytest.raises(ModelFolderError, match="is missing"):
        read_table(path)


def test_a_file_that_the_system_does_not_give_is_not_called_damaged(tmp_path, monkeypatch):
    write_table(pl.DataFrame({"a": [1]}), path := tmp_path / "t.parquet")
    State({"a": np.ones(2)}).save(weights := tmp_path / "a.safetensors")

    def nothing(*given, **named):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", nothing)
    monkeypatch.setattr("diffgrm.foundation.storage.safe_open", nothing)
    for read, place in ((read_table, path), (State.load, weights)):
        with pytest.raises(
            ModelFolderError, match=r"cannot be read: .*Too many open files; raise the limit.*ulimit -n"
        ) as told:
            read(place)
        assert "damaged" not in str(told.value)
