"""Recipes of other papers' methods, whole: they learn, explain, change their catalogue, are saved and loaded."""

from __future__ import annotations

import polars as pl
import pytest

import diffgrm
from diffgrm import Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import ModelFolderError
from helpers.folders import change_recipe

SMALL = [
    *("embedding.width=32", "tokenizer.n_digits=4", "tokenizer.codebook_size=16", "tokenizer.iterations=5"),
    *("model.width=32", "model.feed_forward=64", "model.max_len=8"),
    *("training.epochs=2", "training.batch_size=64", "training.warmup_steps=5", "training.learning_rate=0.01"),
]
MORE = {"rpg": ["decoding.edges=30"], "mdgr": ["decoding.beam=16"], "sprint": ["model.decoder_layers=1"]}
ASKED = [["item 3", "item 4"], ["item 7"]]


@pytest.fixture(scope="module", params=MORE)
def fitted(request, toy):
    recipe = Recipe.preset(request.param, [*SMALL, *MORE[request.param]])
    return resolve("recommender", recipe.recommender)(recipe).fit(toy, progress=False)


def test_it_is_saved_and_loaded_as_it_is(fitted, tmp_path):
    again = diffgrm.load(fitted.save(tmp_path / "model"))
    assert again.recommend(ASKED).equals(fitted.recommend(ASKED)) and again.recipe == fitted.recipe


def test_it_recommends_what_it_may(fitted):
    few = [f"item {number}" for number in range(12)]
    found = fitted.recommend(ASKED, k=20, only=few, without=["item 9"])
    lists = found.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    for history, items in zip(ASKED, lists, strict=True):
        assert sorted(items) == sorted(set(few) - {"item 9"} - set(history))


def test_it_explains_its_lists(fitted):
    told = fitted.explain(ASKED[0], k=2)
    assert told.height == 2 * 4 and told["confidence"].is_between(0, 1).all()


def test_new_items_can_be_recommended(fitted, toy):
    row = toy.item_table.filter(pl.col("item_id") == "item 3").with_columns(item_id=pl.lit("newcomer"))
    newer = fitted.add_items(row)
    assert "newcomer" in set(newer.recommend(ASKED, k=481)["item_id"])
    assert "newcomer" not in set(fitted.recommend(ASKED, k=480)["item_id"])


def test_weights_of_other_sizes_are_refused(fitted, tmp_path):
    folder = fitted.save(tmp_path / "model")
    change_recipe(folder, {"model": {"width": 64}})
    with pytest.raises(ModelFolderError, match="model.safetensors"):
        diffgrm.load(folder)
