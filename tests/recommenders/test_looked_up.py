"""Recommenders that score items alone, where candidates are looked up: the lists of all items, in all that may be asked."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import Recipe, load
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from helpers.recipes import small_recipe

HISTORIES = {"a": ["item 3", "item 77", "item 410"], "b": ["item 5"], "c": [f"item {i}" for i in range(90)]}
MANY = [f"item {i}" for i in range(300)]
QUESTIONS = [{"k": 5}, {"k": 200}, {"k": 9, "exclude_seen": False}, {"k": 4, "only": MANY}, {"k": 4, "without": MANY}]


@pytest.fixture(scope="module", params=["sasrec", "sid_sasrec"])
def exact(request, toy):
    recipe = small_recipe(request.param).override(["training.epochs=1"])
    return resolve("recommender", request.param)(recipe).fit(toy, progress=False).remove_items(["item 44", "item 45"])


@pytest.mark.parametrize("index", ["hnsw", "ivf_pq"])
def test_lists_are_those_of_all_items(exact, index):
    quick = exact.variant([f"retrieval.index={index}", "retrieval.candidates=250"])
    assert quick.ranker().first_stage is not None and exact.ranker().first_stage is None
    for question in QUESTIONS:
        ours, theirs = (model.recommend(HISTORIES, **question) for model in (quick, exact))
        assert ours.drop("score").equals(theirs.drop("score"))
        assert (ours["score"] - theirs["score"]).abs().max() < 1e-4


def test_how_items_are_looked_up_is_kept_and_can_be_changed(exact, tmp_path):
    again = load(exact.variant(["retrieval.index=hnsw", "retrieval.candidates=300"]).save(tmp_path / "model"))
    assert again.recipe.retrieval.index == "hnsw" and again.ranker().first_stage is not None
    assert again.variant(["retrieval.index=exact"]).recommend(HISTORIES).equals(exact.recommend(HISTORIES))
    if again.takes_new_items:
        grown = again.add_items(pl.DataFrame({"item_id": ["new"], "text": [exact.item_table["text"][3]]}))
        lists = (model.recommend(HISTORIES, k=9)["item_id"] for model in (grown, grown.variant(["retrieval.index=exact"])))
        assert pl.Series.equals(*lists)


def test_other_indexes_are_refused():
    with pytest.raises(RecipeError, match="retrieval.index = 'flat': Input should be 'auto', 'exact', 'hnsw' or 'ivf_pq'"):
        Recipe(recommender="sasrec", retrieval={"index": "flat"})
    with pytest.raises(RecipeError, match="the recommender 'diffgrm' .*does not use retrieval; leave it out, or null"):
        Recipe(recommender="diffgrm", retrieval={"index": "hnsw"})
