"""The explorer and ids of every kind: large numbers, what addresses fold away, what no item is called."""

from __future__ import annotations

import polars as pl
import pytest

import diffgrm
from diffgrm.recommenders.neighbours import ItemKNNRecommender

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel
from diffgrm.apps.serving.run import in_background

LARGE = 2**60


def serving(toy, ids, tmp_path):
    """A server of a model whose items have other ids."""
    events, items = (table.with_columns(ids) for table in (toy.event_table(), toy.item_table))
    dataset = diffgrm.InteractionDataset.from_tables(events, items)
    recommender = ItemKNNRecommender().fit(dataset, progress=False)
    return recommender, in_background(create_app(LiveModel(recommender.save(tmp_path / "model"))))


def test_whole_numbers_above_those_of_javascript_are_shown_and_asked_for_as_they_are(visit, toy, tmp_path):
    number = pl.col("item_id").str.extract(r"(\d+)").cast(pl.Int64) + LARGE
    recommender, server = serving(toy, number, tmp_path)
    history = [LARGE + 3, LARGE + 77]
    titles = dict(recommender.item_table.select("item_id", "title").iter_rows())
    with server as address:
        page = visit(address, [("history", item) for item in history])
        expect(page.locator("#history .chips .title")).to_have_text([titles[item] for item in history])
        wanted = recommender.recommend([history], 10)["item_id"].to_list()
        expect(page.locator("#recommended .ranked .id")).to_have_text([str(item) for item in wanted])
        page.locator("#recommended [data-act=add]").first.click()
        expect(page.locator("#history .chips li").nth(2)).to_have_attribute("data-item", str(wanted[0]))
        again = recommender.recommend([[*history, wanted[0]]], 10)["item_id"].to_list()
        expect(page.locator("#recommended .ranked .id")).to_have_text([str(item) for item in again])
        page.locator("#recommended [data-act=similar]").first.click()
        similar = recommender.similar_items(again[0], 5)["item_id"].to_list()
        expect(page.locator("#similar .ranked .id")).to_have_text([str(item) for item in similar])
        page.get_by_role("combobox").fill(str(LARGE + 5))
        expect(page.get_by_role("option").first).to_have_attribute("data-item", str(LARGE + 5))


def test_only_whole_numbers_that_would_be_rounded_become_texts(visit, address):
    page = visit(address)
    text = r"""{"id": 1152921504606846977, "few": [7, -9007199254740993, 0.12345678901234567, 1e300], "s\"1": "x\\",
        "t": ["1152921504606846977"]}"""
    found = page.evaluate("async (text) => (await import('/explorer/api.js')).readJson(text)", text)
    assert found == {
        "id": "1152921504606846977",
        "few": [7, "-9007199254740993", 0.12345678901234567, 1e300],
        's"1': "x\\",
        "t": ["1152921504606846977"],
    }


def test_items_whose_ids_addresses_fold_away_are_known(visit, toy, tmp_path):
    names = {"item 3": ".", "item 77": ".."}
    recommender, server = serving(toy, pl.col("item_id").replace(names), tmp_path)
    titles = dict(recommender.item_table.select("item_id", "title").iter_rows())
    with server as address:
        page = visit(address, [("history", "."), ("history", "..")])
        expect(page.locator("#history .chips .title")).to_have_text([titles["."], titles[".."]])
        expect(page.locator("#history .unknown")).to_have_count(0)


def test_a_history_of_unknown_items_is_told_as_such_and_there_is_nothing_to_try_again(visit, address):
    page = visit(address, [("history", "nothing"), ("history", "."), ("similar", "nothing")])
    expect(page.locator("#history .unknown")).to_have_count(2)
    expect(page.locator("#recommended")).to_contain_text("No item of the history is in the catalogue")
    expect(page.locator("#similar .problem")).to_have_text("This item is not in the catalogue.")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


@pytest.fixture(scope="module")
def address(saved):
    with in_background(create_app(LiveModel(saved))) as url:
        yield url
