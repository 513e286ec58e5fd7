"""Rules of an export: what it holds for them, and what it cannot do."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm.foundation.schema import DataError

HISTORY = ["item 3", "item 77", "item 410"]


def test_columns_come_along_but_the_texts(exported, fitted):
    rows = pl.read_parquet(exported / "items.parquet")
    assert rows.drop("_recommendable").equals(fitted.item_table.drop("text"))


def test_pins_and_a_minimum_hold(onnx, fitted):
    rules = {"pins": {1: "item 9"}, "minimum": {"count": 3, "where": {"brand": {"in": ["Lumen"]}}}}
    found = onnx.recommend([HISTORY], 6, rules=rules)
    assert found["item_id"].to_list() == fitted.recommend([HISTORY], 6, rules=rules)["item_id"].to_list()
    assert found["item_id"][0] == "item 9"


def test_diversity_is_refused(onnx):
    with pytest.raises(DataError, match="diversity: there are no vectors that tell how similar items are; leave it out"):
        onnx.recommend([HISTORY], rules={"diversity": 0.3})
