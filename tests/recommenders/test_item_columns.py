"""Columns of items that come or change, where the item table of the model has other ones."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import InteractionDataset
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError
from helpers.commands import caller, save_tables
from helpers.ruled import stocked

IN_STOCK = {"where": {"stock": {"min": 1}}}
MISSPELT = "the item table has no column 'stok'; did you mean 'stock'? rename it, or leave it out"


@pytest.fixture(scope="module")
def shop(toy):
    dataset = InteractionDataset.from_tables(toy.event_table(), stocked(toy.item_table))
    return resolve("recommender", "popularity")().fit(dataset, progress=False)


def row(item, **columns):
    return pl.DataFrame({"item_id": [item], "text": ["a thing"], **{name: [value] for name, value in columns.items()}})


def test_a_misspelt_column_is_refused_where_it_would_leave_the_right_one_empty(shop):
    with pytest.raises(DataError) as caught:
        shop.add_items(row("new", stok=5, serie=2))
    assert str(caught.value) == (
        f"the new items do not go with the item table:\n  - {MISSPELT}\n"
        "  - the item table has no column 'serie'; did you mean 'series'? rename it, or leave it out"
    )
    for semantic_ids in ("keep", "move"):
        with pytest.raises(DataError, match="did you mean 'stock'"):
            shop.update_items(row("item 3", stok=5), semantic_ids)
    found = shop.add_items(row("new", stock=5))
    assert found.recommend(["item 3"], 1, only=["new"], rules=IN_STOCK)["item_id"].to_list() == ["new"]


def test_other_columns_are_passed_over_with_a_warning(shop, caplog):
    found = shop.add_items(row("new", stock=5, stok=0, weight_in_grams=3))
    assert found.item_table.columns == shop.item_table.columns and found.item_table["stock"][-1] == 5
    assert [record.getMessage() for record in caplog.records] == [
        "columns of the new items that the model's item table does not have are passed over: 'stok', 'weight_in_grams'; "
        f"it has {', '.join(shop.item_table.columns)}"
    ]
    caplog.clear()
    shop.add_items(shop.item_table.head(1).with_columns(item_id=pl.lit("new")))
    shop.add_items(row("new"))
    assert not caplog.records


def test_going_on_with_items_of_other_columns_is_no_quieter(shop, toy, caplog):
    event = pl.DataFrame({"user_id": ["u"], "item_id": ["new"]})
    events = pl.concat([toy.event_table().select("user_id", "item_id"), event])
    items = pl.concat([toy.item_table, row("new")], how="diagonal")
    shop.fit_more(InteractionDataset.from_tables(events, items.with_columns(grams=3)), progress=False)
    assert "passed over: 'grams'; it has" in caplog.text
    with pytest.raises(DataError, match="did you mean 'stock'"):
        shop.fit_more(InteractionDataset.from_tables(events, items.with_columns(stok=5)), progress=False)


def test_commands_tell_of_strange_columns(shop, toy, tmp_path, monkeypatch, capsys):
    run, model = caller(monkeypatch, capsys), shop.save(tmp_path / "model")
    row("new", stok=5).write_csv(tmp_path / "new.csv")
    row("item 3", stok=5).write_csv(tmp_path / "known.csv")
    update = "items", "update", model, "--items", tmp_path / "known.csv", "--semantic-ids", "keep"
    files = save_tables(toy, tmp_path)
    more = "update", model, *files[:2], "--items", tmp_path / "new.csv", "--out", tmp_path / "more", "--quiet"
    for command in (("items", "add", model, "--items", tmp_path / "new.csv"), update, more):
        code, _, err = run(*command)
        assert code == 2 and MISSPELT in err
    row("new", lid="red").write_csv(tmp_path / "new.csv")
    code, _, err = run("items", "add", model, "--items", tmp_path / "new.csv")
    assert code == 0 and "passed over: 'lid'; it has title, department" in err
