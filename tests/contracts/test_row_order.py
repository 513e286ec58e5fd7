"""What is learnt does not depend on the order of the rows that are given, over every recommender."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe
from diffgrm.foundation.schema import DataError
from helpers.recipes import methods, small_recipe, unfitted

HISTORIES = [["item 3", "item 77", "item 410"], ["item 15"]]
ADDED = pl.DataFrame(
    {"item_id": [f"new {n}" for n in (3, 20, 1, 100)], "text": ["Crema espresso machine, teal", "kayak", "?", "?"]}
)


def shuffled(table, seed):
    return table.sample(fraction=1, shuffle=True, seed=seed)


@pytest.fixture(scope="module")
def tables(toy):
    """Events with times that differ, and items."""
    events = toy.event_table().drop("timestamp").with_row_index("timestamp")
    return events, shuffled(toy.item_table, 1)


def sids(recommender):
    """Semantic IDs by item."""
    return dict(zip(recommender.items.series, map(tuple, recommender.semantic_ids.codes.tolist()), strict=True))


@pytest.mark.parametrize("name", methods())
def test_semantic_ids_and_lists_are_the_same_however_rows_are_shuffled(name, tables, tmp_path):
    events, items = tables
    first, second = (
        unfitted(name).fit(InteractionDataset.from_tables(*given), progress=False)
        for given in ((events, items), (shuffled(events, 2), shuffled(items, 3)))
    )
    assert second.recommend(HISTORIES, k=50).equals(first.recommend(HISTORIES, k=50))
    assert diffgrm.load(second.save(tmp_path / "model")).recommend(HISTORIES).equals(first.recommend(HISTORIES))
    if getattr(first, "semantic_ids", None) is not None:
        assert sids(second) == sids(first)


@pytest.mark.parametrize("name", ["hybrid", "text_knn"])
def test_items_that_come_together_come_in_any_order(name, toy):
    recommender = unfitted(name).fit(toy, progress=False)
    first, second = recommender.add_items(ADDED), recommender.add_items(ADDED[[2, 0, 3, 1]])
    assert second.recommend(HISTORIES, k=50).equals(first.recommend(HISTORIES, k=50))
    assert second.similar_items("new 1", k=3).equals(first.similar_items("new 1", k=3))
    texts = ADDED.with_columns(text=pl.Series(["milk jug", "milk jug", "milk jug", "tripod"]))
    moved, again = first.update_items(texts, "move"), second.update_items(texts[[3, 1, 0, 2]], "move")
    assert again.recommend(HISTORIES, k=50).equals(moved.recommend(HISTORIES, k=50))
    assert again.item_table.equals(moved.item_table) and moved.item_table[-1, "text"] == "tripod"
    if getattr(first, "semantic_ids", None) is not None:
        assert sids(second) == sids(first) and sids(again) == sids(moved)


def test_rows_of_a_matrix_belong_to_rows_of_the_table_as_it_was_given(toy, tmp_path):
    """The vectors follow the items, at fit and when items come later."""
    generator = np.random.default_rng(0)
    vectors, later = (generator.normal(size=(count, 8)).astype(np.float32) for count in (toy.n_items, len(ADDED)))

    def fitted_and_grown(rows, later_rows):
        np.save(tmp_path / "vectors.npy", vectors[rows])
        np.save(tmp_path / "later.npy", later[later_rows])
        precomputed = {"name": "precomputed", "path": str(tmp_path / "vectors.npy")}
        recipe = Recipe.from_dict(small_recipe("diffgrm").to_dict() | {"embedding": precomputed})
        dataset = InteractionDataset.from_tables(toy.event_table(), toy.item_table[rows])
        fitted = DiffGRMRecommender(recipe).fit(dataset, progress=False)
        reading = fitted.variant([f"embedding.path={tmp_path / 'later.npy'}"])
        return fitted, reading.add_items(ADDED[later_rows])

    first, more = fitted_and_grown(np.arange(toy.n_items), np.arange(4))
    second, as_many = fitted_and_grown(generator.permutation(toy.n_items), np.array([2, 0, 3, 1]))
    assert sids(first) == sids(second) and sids(more) == sids(as_many)
    assert second.similar_items("item 3").equals(first.similar_items("item 3"))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit[3]
    cosine[3] = -1
    assert first.similar_items("item 3", k=1)["item_id"][0] == f"item {cosine.argmax()}"
    again = diffgrm.load(first.save(tmp_path / "model")).variant([f"embedding.path={tmp_path / 'vectors.npy'}"])
    with pytest.raises(DataError, match="whose order a model does not keep; give the vectors as .parquet"):
        again.similar_items("item 3")
