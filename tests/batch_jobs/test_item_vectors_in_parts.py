"""Vectors of items in several pieces: what is left out, what is refused, and how the parts are read."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import Recipe
from diffgrm.apps.batch_jobs import embed_batch, embedding
from diffgrm.foundation.schema import DataError
from diffgrm.semantic_ids.embeddings.lsa import LSA
from helpers.batch_jobs import in_this_process

LSA_4 = Recipe.from_dict({"embedding": {"name": "lsa", "width": 4}})


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    monkeypatch.setattr(embedding, "engine", in_this_process)


def items_in(folder, *parts):
    """A folder of parquet files with these ids, each with a text of its own."""
    folder.mkdir()
    texts = [f"thing {word} of {word * 2}" for word in "abcdefghijklmnopqrstuvwxyz"]
    for number, ids in enumerate(parts):
        rows = {"item_id": ids, "text": texts[number * 4 : number * 4 + len(ids)]}
        pl.DataFrame(rows, schema_overrides={"item_id": pl.String}).write_parquet(folder / f"{number}.parquet")
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
    items = items_in(tmp_path / "items", ["a", "b", "c", "d"], ["e", "b", "c", "f"], ["e", "g"])
    with pytest.raises(
        DataError, match=r"(?s)1\.parquet, rows 0 to 3: 2 item ids stand in earlier rows too .*: b, c, the first"
    ):
        embed(items, tmp_path / "out", 3)
    assert not (tmp_path / "out").exists()
    done = embed(items, tmp_path / "out", 3, "skip")
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert sorted(found["item_id"]) == [*"abcdeg"] and done["skipped"]["rows"] == 4 and done["rows"] == 6
    assert embed(items, tmp_path / "out", 3, "skip") == done


def test_a_part_of_which_every_row_was_left_out_has_the_columns_of_the_others(tmp_path):
    items = items_in(tmp_path / "items", ["a", "b", "c", "d"], [None] * 4)
    embed(items, tmp_path / "out", 2, "skip")
    schemas = {str(pl.read_parquet_schema(path)) for path in (tmp_path / "out").glob("*.parquet")}
    assert len(schemas) == 1 and pl.read_parquet(tmp_path / "out" / "*.parquet").height == 4
