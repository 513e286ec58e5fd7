"""Vectors of items in several pieces: what is left out, what is refused, and how the parts are read."""

from __future__ import annotations

import json

import polars as pl
import pytest

from diffgrm import Recipe
from diffgrm.apps.batch_jobs import embed_batch, embedding
from diffgrm.foundation.schema import DataError, DiffGRMError
from diffgrm.semantic_ids.embeddings.lsa import LSA
from helpers.batch_jobs import failing, in_this_process

LSA_4 = Recipe.from_dict({"embedding": {"name": "lsa", "width": 4}})


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    monkeypatch.setattr(embedding, "engine", in_this_process)


def items_in(folder, *parts, id_type=pl.String):
    """A folder of parquet files with these ids, each with a text of its own."""
    folder.mkdir()
    texts = [f"thing {word} of {word * 2}" for word in "abcdefghijklmnopqrstuvwxyz"]
    for number, ids in enumerate(parts):
        rows = {"item_id": ids, "text": texts[number * 4 : number * 4 + len(ids)]}
        pl.DataFrame(rows, schema_overrides={"item_id": id_type}).write_parquet(folder / f"{number}.parquet")
    return folder


def embed(items, out, partitions, on_error="stop"):
    return embed_batch(items, out, recipe=LSA_4, partitions=partitions, on_error=on_error, progress=False)


def test_an_encoder_learns_from_the_pieces_that_are_embedded(tmp_path, monkeypatch):
    items = items_in(tmp_path / "items", ["a", "b", "c", "d", "e", "f", None, None, "i", "j", "k", "l"])
    fit, learnt = LSA.fit, []
    monkeypatch.setattr(LSA, "fit", lambda self, table, **how: learnt.extend(table["item_id"]) or fit(self, table, **how))
    done = embed(items, tmp_path / "out", 6, "skip")
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert (
        done["rows"] == 10
        and done["skipped"]["rows"] == 2
        and sorted(learnt) == sorted(found["item_id"]) == [*"abcdefijkl"]
    )
    with pytest.raises(
        DataError, match="(?s)no part of the item table .* could be used:.*item_id is null.*more partitions"
    ):
        embed(items, tmp_path / "none", 1, "skip")
    assert not (tmp_path / "none").exists()


def test_items_that_stand_in_several_pieces_are_refused_before_any_is_encoded_or_left_out(tmp_path):
    items = items_in(tmp_path / "items", ["a", "b", "c", "d"], ["e", "b", "c", "f"], ["e", "g", "h", "i"])
    with pytest.raises(
        DataError, match=r"(?s)1\.parquet, rows 0 to 3: 2 item ids stand in earlier rows too .*: b, c, the first"
    ):
        embed(items, tmp_path / "out", 3)
    assert not (tmp_path / "out").exists()
    done = embed(items, tmp_path / "out", 3, "skip")
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert sorted(found["item_id"]) == [*"abcdeghi"] and done["skipped"]["rows"] == 4 and done["rows"] == 8
    assert embed(items, tmp_path / "out", 3, "skip") == done


def test_a_part_of_which_every_row_was_left_out_has_the_columns_of_the_others(tmp_path):
    items = items_in(tmp_path / "items", ["a", "b", "c", "d"], [None] * 4)
    embed(items, tmp_path / "out", 2, "skip")
    schemas = {str(pl.read_parquet_schema(path)) for path in (tmp_path / "out").glob("*.parquet")}
    assert len(schemas) == 1 and pl.read_parquet(tmp_path / "out" / "*.parquet").height == 4


@pytest.mark.parametrize("bad", [["a", None, "c", "d"], ["a", " ", "c", "d"], ["a", "c", "c", "d"]])
def test_a_piece_that_cannot_be_used_holds_no_ids(bad, tmp_path):
    items = items_in(tmp_path / "items", bad, ["a", "x", "y", "z"])
    assert embed(items, tmp_path / "out", 2, "skip")["skipped"]["rows"] == 4
    assert pl.read_parquet(tmp_path / "out" / "*.parquet")["item_id"].to_list() == [*"axyz"]


def test_a_piece_of_which_texts_are_empty_holds_no_ids(tmp_path):
    items = items_in(tmp_path / "items", [*"abcd"], [*"axyz"])
    pl.read_parquet(items / "0.parquet").with_columns(text=pl.lit("")).write_parquet(items / "0.parquet")
    assert embed(items, tmp_path / "out", 2, "skip")["rows"] == 4


@pytest.mark.parametrize(
    "parts, id_type",
    [
        ([[True, False], [True, False]], pl.Boolean),
        ([[["a"], ["b"]], [["b"], ["c"]]], pl.List(pl.String)),
        ([[{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 3}]], pl.Struct({"a": pl.Int64})),
        ([[1.5, 2.0], [1.5, 3.0]], pl.Float64),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_ids_of_other_types_are_told_as_such(parts, id_type, on_error, tmp_path):
    items = items_in(tmp_path / "items", *parts, id_type=id_type)
    with pytest.raises(DataError, match="item_id has type .*expected text or whole numbers"):
        embed(items, tmp_path / "out", 2, on_error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("id_type", [pl.Categorical, pl.Int32, pl.UInt64, pl.Float64])
def test_ids_of_every_type_that_can_be_read_are_compared(id_type, tmp_path):
    pieces = [["1", "2", "3", "4"], ["5", "2", "6", "7"]]
    if id_type != pl.Categorical:
        pieces = [[int(item) for item in piece] for piece in pieces]
    items = items_in(tmp_path / "items", *pieces, id_type=id_type)
    with pytest.raises(DataError, match=r"1\.parquet, rows 0 to 3: 1 item ids stand in earlier rows too .*: 2, the first"):
        embed(items, tmp_path / "out", 2)


def test_ids_are_text_in_all_parts_where_numbers_of_some_do_not_fit(tmp_path):
    big = 2**63
    items = items_in(tmp_path / "items", [1, 2, 3, 4], [big, 5, 6, 7], [8, 9, 10, 11], id_type=pl.UInt64)
    embed(items, tmp_path / "out", 3)
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert found["item_id"].to_list() == [str(item) for item in (1, 2, 3, 4, big, 5, 6, 7, 8, 9, 10, 11)]
    items = items_in(tmp_path / "again", [1, 2, 3, 4], [big, 2], id_type=pl.UInt64)
    with pytest.raises(DataError, match="1 item ids stand in earlier rows too"):
        embed(items, tmp_path / "no", 2)


def test_a_job_whose_plan_does_not_compare_ids_goes_on(tmp_path):
    items, out = items_in(tmp_path / "items", [*"abcd"], [*"efgh"]), tmp_path / "out"
    done = embed(items, out, 2)
    path = out / "_job" / "plan.json"
    content = json.loads(path.read_text())
    for name in ("repeats", "as_text"):
        del content["plan"][name]
    path.write_text(json.dumps(content))
    (out / "_manifest.json").unlink()
    (out / "part-00001.parquet").unlink()
    assert embed(items, out, 2)["rows"] == done["rows"] == 8
    assert pl.read_parquet(out / "*.parquet")["item_id"].to_list() == [*"abcdefgh"]


@pytest.mark.parametrize("partitions", [1, 7, 13])
def test_there_are_as_many_parts_as_were_asked_for(partitions, tmp_path):
    items = items_in(tmp_path / "items", [*"abcd"], [*"efgh"], [*"ij"])
    assert embed(items, tmp_path / "out", partitions)["partitions"] == partitions
    heights = [pl.read_parquet(path).height for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert len(heights) == partitions and max(heights) - min(heights) <= 1 and sum(heights) == 10


def test_a_file_that_cannot_be_read_now_is_no_damage_and_nothing_of_the_job_stays(tmp_path):
    items = items_in(tmp_path / "items", [*"abcd"], [*"efgh"])
    with failing(OSError(5, "Input/output error"), "1.parquet"), pytest.raises(DiffGRMError) as error:
        embed(items, tmp_path / "out", 2, "skip")
    assert "1.parquet could not be read: [Errno 5]" in str(error.value) and not isinstance(error.value, DataError)
    with failing(OSError(5, "Input/output error"), "1.parquet", after=1), pytest.raises(DiffGRMError, match="could not be"):
        embed(items, tmp_path / "out", 2, "skip")  # where ids are compared, for the plan
    assert not (tmp_path / "out").exists()
    assert embed(items, tmp_path / "out", 2, "skip")["rows"] == 8
