from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm.foundation.schema import DataError
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.embeddings.precomputed import Precomputed

MATRIX = np.array([[3, 4], [0, 2], [5, 0]], dtype=np.float64)
UNIT = np.array([[0.6, 0.8], [0, 1], [1, 0]], dtype=np.float32)
THREE = pl.DataFrame({"item_id": ["a", "b", "c"], "text": ["x", "y", "z"]})


@pytest.fixture
def npy(tmp_path):
    def write(content, name="vectors.npy"):
        np.save(tmp_path / name, content)
        return Precomputed(str(tmp_path / name))

    return write


@pytest.fixture
def parquet(tmp_path):
    def write(columns, **settings):
        pl.DataFrame(columns).write_parquet(tmp_path / "vectors.parquet")
        return Precomputed(str(tmp_path / "vectors.parquet"), **settings)

    return write


def test_npy_rows_are_those_of_the_item_table(npy):
    vectors = npy(MATRIX).encode(THREE)
    assert vectors == pytest.approx(UNIT) and vectors.dtype == np.float32


def test_parquet_rows_are_found_by_item(parquet):
    columns = {"item_id": ["c", "unused", "a", "b"], "embedding": [[5.0, 0.0], [9.0, 9.0], [3.0, 4.0], [0.0, 2.0]]}
    assert parquet(columns).encode(THREE) == pytest.approx(UNIT)


def test_parquet_may_hold_arrays_in_another_column(parquet):
    columns = {"item_id": ["b", "c", "a"], "vector": MATRIX[[1, 2, 0]].astype(np.float32)}
    assert parquet(columns, column="vector").encode(THREE) == pytest.approx(UNIT)


def test_parquet_ids_may_be_text_where_the_table_has_numbers(parquet):
    columns = {"item_id": ["30", "none", "10", "20"], "embedding": [[5, 0], [1, 1], [3, 4], [0, 2]]}
    assert parquet(columns).encode(THREE.with_columns(item_id=pl.Series([10, 20, 30]))) == pytest.approx(UNIT)


@pytest.mark.parametrize("again", [[1.0, 0.0], [3.0], None])
def test_items_with_several_vectors_are_refused_and_equal_rows_are_one(parquet, again):
    columns = {"item_id": ["a", "b", "c", "a"], "embedding": [*MATRIX.tolist(), [3.0, 4.0]]}
    assert parquet(columns).encode(THREE) == pytest.approx(UNIT)
    columns["embedding"][-1] = again
    with pytest.raises(DataError, match="1 items stand there more than once, with different vectors: a; keep one of each"):
        parquet(columns).encode(THREE)
    assert parquet(columns).encode(THREE[1:]) == pytest.approx(UNIT[1:])  # nothing is asked of the others


def test_lengths_beyond_those_that_can_be_squared_are_made_1_too(npy, parquet):
    tiny, huge = MATRIX.astype(np.float32) * np.float32(1e-30), MATRIX.astype(np.float32) * np.float32(1e30)
    tiny[2] = 0
    assert npy(tiny).encode(THREE) == pytest.approx(np.array([[0.6, 0.8], [0, 1], [0, 0]]))
    assert npy(huge).encode(THREE) == pytest.approx(UNIT)
    beyond = "embeddings of 3 items hold NaN or infinity: a, b, c; .* more than 3e38 are infinite"
    with pytest.raises(DataError, match=beyond):
        npy(MATRIX * 1e300).encode(THREE)


def test_missing_items_are_named(parquet):
    columns = {"item_id": ["b", "a"], "embedding": [[1.0], None]}
    with pytest.raises(DataError, match="2 items have no vector: a, c"):
        parquet(columns).encode(THREE)


def test_vectors_that_are_not_finite_are_named(npy, parquet):
    matrix = MATRIX.copy()
    matrix[1, 0] = np.nan
    with pytest.raises(DataError, match="embeddings of 1 items hold NaN or infinity: b; mend"):
        npy(matrix).encode(THREE)
    with pytest.raises(DataError, match="embeddings of 2 items hold NaN or infinity: a, c; mend"):
        parquet({"item_id": ["c", "b", "a"], "embedding": [[1.0, None], [1.0, 1.0], [float("inf"), 0.0]]}).encode(THREE)


@pytest.mark.parametrize("shape", [(2, 2), (3,), (3, 0), (3, 2, 1)])
def test_another_shape_is_an_error(npy, shape):
    with pytest.raises(DataError) as caught:
        npy(np.ones(shape)).encode(THREE)
    assert f"embeddings have shape {shape}; expected (3, width)" in str(caught.value)


def test_vectors_of_different_widths_are_an_error(parquet):
    with pytest.raises(DataError, match="different widths, from 1 to 2"):
        parquet({"item_id": ["a", "b", "c"], "embedding": [[1.0, 2.0], [1.0], [1.0, 2.0]]}).encode(THREE)


def test_matrices_of_something_else_are_an_error(npy):
    for strange in (np.array([["x"], ["y"], ["z"]]), MATRIX + 1j, MATRIX.astype("m8[s]"), MATRIX > 1):
        with pytest.raises(DataError, match=r"embeddings have type \S+; expected real numbers"):
            npy(strange).encode(THREE)
    with pytest.raises(DataError, match="is not a NumPy matrix"):
        npy(np.array([[None], ["y"], ["z"]], dtype=object)).encode(THREE)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (["x", "y", "z"], "has type String; expected lists of numbers"),
        ([1.0, 2.0, 3.0], "has type Float64; expected lists of numbers"),
        ([["x"], ["y"], ["z"]], "does not hold numbers"),
    ],
)
def test_parquet_columns_without_vectors_are_an_error(parquet, embedding, message):
    with pytest.raises(DataError, match=message):
        parquet({"item_id": ["a", "b", "c"], "embedding": embedding}).encode(THREE)


def test_a_missing_parquet_column_is_named(parquet):
    with pytest.raises(DataError, match=r"has columns \['item_id', 'vector'\]; expected also \['embedding'\]"):
        parquet({"item_id": ["a"], "vector": [[1.0]]}).encode(THREE)


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.npy", "not a NumPy matrix"), ("x.parquet", "not a parquet file"), ("x.txt", "x.txt: precomputed embeddings are")],
)
def test_files_that_are_something_else_are_an_error(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DataError, match=message):
        Precomputed(str(tmp_path / name)).encode(THREE)


def test_a_folder_of_parquet_files_is_one_file(tmp_path):
    vectors = tmp_path / "vectors"
    vectors.mkdir()
    for number, (item, vector) in enumerate([("c", [5.0, 0.0]), ("a", [3.0, 4.0]), ("b", [0.0, 2.0])]):
        pl.DataFrame({"item_id": [item], "embedding": [vector]}).write_parquet(vectors / f"part-{number}.parquet")
    (vectors / "_manifest.json").write_text("{}")
    assert Precomputed(str(vectors)).encode(THREE) == pytest.approx(np.array([[0.6, 0.8], [0, 1], [1, 0]]))
    (vectors / "notes.txt").write_text("to be read")
    with pytest.raises(DataError, match=r"holds not only parquet files: notes\.txt"):
        Precomputed(str(vectors)).encode(THREE)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=f"there is no embedding file {tmp_path}/none.npy"):
        Precomputed(str(tmp_path / "none.npy")).encode(THREE)


def test_precomputed_vectors_are_read_anew_each_time(npy, tmp_path):
    everything = np.ones(3, bool)
    assert embed_items(npy(MATRIX), THREE, everything, tmp_path / "cache") == pytest.approx(UNIT)
    assert embed_items(npy(MATRIX[::-1]), THREE, everything, tmp_path / "cache") == pytest.approx(UNIT[::-1])
    assert not (tmp_path / "cache").exists()
