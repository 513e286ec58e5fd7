"""Texts of items: scripts without spaces, and items of which an embedding says nothing, at fit and later."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import InteractionDataset, Recipe
from diffgrm.foundation.schema import DataError
from diffgrm.recommenders.neighbours import TextKNNRecommender
from helpers.titles import titles

RECIPE = Recipe(recommender="text_knn")
NEW = pl.DataFrame({"item_id": ["n1", "n2"], "text": ["\u65b0\u54c1\u306e\u7dd1\u8336", "\U0001f600"]})
TOLD = "1 of 2 items get the zero vector, so that they are like no other item: n2 ('\U0001f600')"


def dataset(items: pl.DataFrame) -> InteractionDataset:
    """Every user meets all items."""
    events = pl.DataFrame({"item_id": items["item_id"]}).join(pl.DataFrame({"user_id": [0, 1]}), how="cross")
    return InteractionDataset.from_tables(events, items)


@pytest.fixture(scope="module")
def japanese():
    items, group = titles("japanese")
    return TextKNNRecommender(RECIPE).fit(dataset(items), progress=False), group


def test_new_items_of_which_nothing_is_known_are_told(japanese, caplog, tmp_path):
    recommender, _ = japanese
    assert "zero vector" not in caplog.text
    newer = diffgrm.load(recommender.save(tmp_path / "model")).add_items(NEW)
    assert TOLD in caplog.text and newer.vectors[-2:].any(axis=1).tolist() == [True, False]
    caplog.clear()
    changed = newer.update_items(NEW.with_columns(text=NEW["text"].reverse()), semantic_ids="move")
    assert "1 of 2 items get the zero vector" in caplog.text and "n1 ('\U0001f600')" in caplog.text
    assert changed.vectors[-2:].any(axis=1).tolist() == [False, True]
    with pytest.raises(DataError, match="1 items have no text: n3; give them at least a title"):
        newer.add_items(pl.DataFrame({"item_id": ["n3"], "text": [" "]}))


def test_similar_items_are_of_the_same_group(japanese, tmp_path):
    recommender, group = japanese
    loaded = diffgrm.load(recommender.save(tmp_path / "model"))
    assert np.array_equal(loaded.vectors, recommender.vectors)
    similar = [loaded.similar_items(f"japanese {row}", k=5)["item_id"].str.slice(9).cast(int) for row in range(30)]
    assert np.mean([group[near.to_numpy()] == group[row] for row, near in enumerate(similar)]) > 0.95


def test_vectors_of_a_file_that_are_zero_are_told(caplog, tmp_path):
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": ["x"] * 4})
    np.save(tmp_path / "v.npy", np.array([[1.0, 0], [0, 0], [0, 1], [1, 1]]))
    recipe = RECIPE.override([f"embedding={{name: precomputed, path: {tmp_path / 'v.npy'}}}"])
    TextKNNRecommender(recipe).fit(dataset(items), progress=False)
    assert (
        "1 of 4 items get the zero vector" in caplog.text and "b ('x'); their vectors in the file are zero" in caplog.text
    )


def test_columns_may_be_lists_of_lists_also_of_new_items(tmp_path):
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d", "held out", "too"],
            "text": ["one", "two", "three", "four", "five", "six"],
            "categories": [[["Beauty", "Bath"]], [["Beauty"], ["Bath"]], [["Garden"], None], None, [[]], [[None]]],
        }
    )
    recipe = RECIPE.override(["embedding.columns=[categories]"])
    recommender = TextKNNRecommender(recipe).fit(dataset(items), progress=False)
    assert recommender.similar_items("a", k=1)["item_id"].to_list() == ["b"]
    loaded = diffgrm.load(recommender.save(tmp_path / "model"))
    rows = pl.DataFrame({"item_id": ["e"], "text": ["seven"], "categories": [[["Garden"]]]})
    assert loaded.add_items(rows).similar_items("e", k=1)["item_id"].to_list() == ["c"]
    with pytest.raises(DataError, match="categories is .*; expected values of type List"):
        loaded.add_items(rows.with_columns(categories=pl.lit("Garden")))
