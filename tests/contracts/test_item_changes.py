"""Items that come, go and change after fit, over every recommender."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import InteractionDataset
from diffgrm.foundation.schema import DataError, DiffGRMError
from diffgrm.recommenders.popularity import PopularityRecommender
from diffgrm.recommenders.texts import branch_names
from helpers.recipes import methods, unfitted

HISTORY = ["item 3", "item 77", "item 410"]
KNOW_NO_NEW_ITEMS = {"sasrec", "item_knn"}
KNOW_NO_SIMILARITY = {"popularity", "random"}


@pytest.fixture(scope="module", params=methods())
def recommender(request, toy):
    return unfitted(request.param).fit(toy, progress=False)


def new_items(recommender, count=3):
    """Rows like those of known items under new ids."""
    rows = recommender.item_table.head(count)
    return rows.with_columns(item_id=pl.Series([f"new {i}" for i in range(count)]))


def takes_new_items(recommender):
    """All but those that know items by their events only."""
    by_events = set(branch_names(recommender.recipe)) <= {"id"}
    return not (recommender.recipe.recommender in KNOW_NO_NEW_ITEMS and by_events)


def test_new_items_are_recommended_at_once_and_nothing_else_moves(recommender, tmp_path):
    if not takes_new_items(recommender):
        with pytest.raises(DiffGRMError, match="knows items by their events only and cannot add any; fit again"):
            recommender.add_items(new_items(recommender))
        return
    before = recommender.recommend([HISTORY], k=5)
    grown = recommender.add_items(new_items(recommender))
    assert len(grown.items) == len(recommender.items) + 3 and grown.facts["catalogue_version"] == 1
    found = grown.recommend([HISTORY], k=2, only=["new 0", "new 2", "item 3"])
    assert sorted(found["item_id"]) == ["new 0", "new 2"]
    assert grown.recommend([["new 1", "item 5"]], k=3).height == 3  # and may stand in histories
    everything = grown.recommend([HISTORY], k=len(grown.items), exclude_seen=False)
    assert everything["item_id"].n_unique() == len(grown.items)
    assert recommender.recommend([HISTORY], k=5).equals(before) and "new 0" not in recommender.items.series
    if (sids := getattr(grown, "semantic_ids", None)) is not None:
        assert (sids.codes[:-3] == recommender.semantic_ids.codes).all()
        assert len(np.unique(sids.codes, axis=0)) == len(sids)
    again = diffgrm.load(grown.save(tmp_path / "model"))
    assert again.recommend([HISTORY], k=5).equals(grown.recommend([HISTORY], k=5))
    newer = new_items(again).with_columns(item_id=pl.Series(["x", "y", "z"]))
    assert again.add_items(newer).facts["catalogue_version"] == 2


def test_removed_items_come_no_more_but_mean_what_they_meant(recommender, tmp_path):
    top = recommender.recommend([HISTORY], k=4)["item_id"].to_list()
    smaller = recommender.remove_items(top[:2])
    assert (
        smaller.recommend([HISTORY], k=2)["item_id"].to_list()
        == recommender.recommend([HISTORY], k=2, without=top[:2])["item_id"].to_list()
    )
    assert not set(top[:2]) & set(smaller.recommend([HISTORY], k=400)["item_id"])
    seen = recommender.recommend([[top[0], "item 9"]], k=3, without=top[:2])
    assert smaller.recommend([[top[0], "item 9"]], k=3).equals(seen)
    again = diffgrm.load(smaller.save(tmp_path / "model"))
    assert again.recommend([HISTORY], k=3).equals(smaller.recommend([HISTORY], k=3))
    whole = again.restore_items(top[:2])
    assert whole.recommend([HISTORY], k=4)["item_id"].to_list() == top and whole.facts["catalogue_version"] == 2
    with pytest.raises(DataError, match="the filters leave no item to recommend"):
        smaller.recommend([HISTORY], only=top[:2])
    with pytest.raises(DataError, match="no item would be left to recommend"):
        recommender.remove_items(recommender.items.series)


def test_updated_items_keep_or_move_what_was_made_of_their_text(recommender):
    source, target = recommender.item_table[200], recommender.item_table[5, "item_id"]
    rows = source.with_columns(item_id=pl.Series([target]))
    kept, moved = (recommender.update_items(rows, semantic_ids=how) for how in ("keep", "move"))
    for changed in (kept, moved):
        assert changed.item_table[5, "text"] == source[0, "text"] and changed.items.series.equals(recommender.items.series)
        assert changed.recommend([HISTORY], k=3).height == 3
    if (sids := getattr(recommender, "semantic_ids", None)) is not None:
        assert (kept.semantic_ids.codes == sids.codes).all()
        differs = (moved.semantic_ids.codes != sids.codes).any(1)
        assert not differs[np.arange(len(sids)) != 5].any() and len(np.unique(moved.semantic_ids.codes, axis=0)) == len(
            sids
        )
        nearer = (moved.semantic_ids.codes[5] == sids.codes[200]).sum()
        assert nearer > (sids.codes[5] == sids.codes[200]).sum()


def test_columns_of_the_item_table_survive_whatever_they_are_called(toy, tmp_path):
    table = toy.item_table.with_columns(recommendable=pl.lit("until Monday"))
    dataset = InteractionDataset.from_tables(toy.event_table(), table)
    recommender = PopularityRecommender().fit(dataset).remove_items(["item 3"])
    found = diffgrm.load(recommender.save(tmp_path / "model"))
    assert found.item_table.equals(recommender.item_table) and "recommendable" in found.item_table.columns
    assert found.recommendable.sum() == len(toy.items) - 1


def test_similar_items(recommender):
    if recommender.recipe.recommender in KNOW_NO_SIMILARITY:
        with pytest.raises(DiffGRMError, match="knows no similarity of items"):
            recommender.similar_items("item 3")
        return
    found = recommender.similar_items("item 3", k=4)
    assert found.columns == ["item_id", "score", "rank"] and found["rank"].to_list() == [1, 2, 3, 4]
    assert found["score"].is_sorted(descending=True) and "item 3" not in found["item_id"]
    nearest = found["item_id"][0]
    assert nearest not in recommender.remove_items([nearest]).similar_items("item 3", k=4)["item_id"]
    if "texts" in recommender.parts:  # similarity of texts
        twin = recommender.item_table.filter(item_id="item 3").with_columns(item_id=pl.Series(["twin"]))
        assert recommender.add_items(twin).similar_items("item 3", k=1)["item_id"].to_list() == ["twin"]
    with pytest.raises(DataError, match="'nothing' is not in the catalogue"):
        recommender.similar_items("nothing")


def test_wrong_changes_are_refused(fitted):
    with pytest.raises(DataError, match=r"1 of the new items are in the catalogue already: item 0; use update_items"):
        fitted.add_items(fitted.item_table.head(1))
    with pytest.raises(DataError, match="1 items are not in the catalogue: new 0; use add_items"):
        fitted.update_items(new_items(fitted, 1), semantic_ids="keep")
    with pytest.raises(DataError, match="1 items are not in the catalogue: nothing"):
        fitted.remove_items(["item 1", "nothing"])
    with pytest.raises(DataError, match="semantic_ids is 'maybe'; expected 'keep' or 'move'"):
        fitted.update_items(fitted.item_table.head(1), semantic_ids="maybe")
    with pytest.raises(DataError, match="1 items have no text: x"):
        fitted.add_items(pl.DataFrame({"item_id": ["x"], "text": [""]}))


def test_readers_of_a_folder_that_is_replaced_see_one_version_or_another(fitted, tmp_path):
    """Of two versions that are saved in turn, every load gives one, never a mixture."""
    versions = [fitted, fitted.add_items(new_items(fitted))]
    versions[0].save(tmp_path / "model")
    stop, sizes = threading.Event(), set()

    def read():
        while not stop.is_set():
            found = diffgrm.load(tmp_path / "model")
            sizes.add((len(found.items), len(found.semantic_ids), found.facts.get("catalogue_version", 0)))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(10):
            versions[number % 2].save(tmp_path / "model")
        stop.set()
        for reader in readers:
            reader.result()  # raises what went wrong
    n = len(fitted.items)
    assert sizes <= {(n, n, 0), (n + 3, n + 3, 1)}
