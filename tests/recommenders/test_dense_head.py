"""The recipe maskgr-dense: ranked by what is told of texts, items that come included, and what it refuses."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from diffgrm import HybridRecommender, load
from diffgrm.foundation.schema import RecipeError
from diffgrm.recommenders.parts import part_of
from diffgrm.recommenders.texts import TextVectors
from helpers.recipes import small_recipe

HISTORY = ["item 3", "item 77", "item 410"]


@pytest.fixture(scope="module")
def recommender(toy):
    """Tests must not change it."""
    return HybridRecommender(small_recipe("maskgr-dense")).fit(toy, progress=False)


def told(recommender, history):
    """[e] what the network tells of the next item's text."""
    network, features = recommender.network, recommender.ranker().items.features
    index = torch.from_numpy(recommender.items.positions(pl.Series(history)))[None]
    with torch.no_grad():
        return network.user_vectors(
            network.encode_history(network.item_vectors(features), index, torch.ones_like(index, dtype=torch.bool))
        )[0]


def test_items_are_ranked_by_the_cosine_of_their_texts_with_what_is_told(recommender):
    texts = torch.tensor(part_of(recommender.parts, "texts", TextVectors).vectors)
    scores = F.cosine_similarity(told(recommender, HISTORY)[None], texts) / 0.1
    found = recommender.recommend([HISTORY], k=480, exclude_seen=False)
    positions = torch.tensor(recommender.items.positions(found["item_id"]))
    assert np.allclose(found["score"].to_numpy(), scores.log_softmax(0)[positions].numpy(), atol=1e-4)


def test_an_item_that_comes_is_ranked_by_its_text(recommender):
    """Whatever digits it gets: one whose text is there already scores as that does."""
    (best,) = recommender.recommend([HISTORY], k=1)["item_id"].to_list()
    row = recommender.item_table.filter(pl.col("item_id") == best)
    twin = row.with_columns(item_id=pl.lit("twin"))
    other = recommender.item_table.filter(pl.col("item_id") == "item 5").with_columns(item_id=pl.lit("other"))
    grown = recommender.add_items(pl.concat([twin, other]))
    found = grown.recommend([HISTORY], k=482, exclude_seen=False)
    score = dict(zip(found["item_id"].to_list(), found["score"].to_list(), strict=True))
    assert score["twin"] == pytest.approx(score[best], abs=1e-5)
    assert score["other"] == pytest.approx(score["item 5"], abs=1e-5) and grown.recommend([["twin"]], k=3).height == 3


def test_it_is_saved_and_loaded(recommender, tmp_path):
    again = load(recommender.save(tmp_path / "model"))
    assert again.recommend([HISTORY, HISTORY[:1]]).equals(recommender.recommend([HISTORY, HISTORY[:1]]))
    assert again.recipe == recommender.recipe and again.takes_new_items


def test_its_digits_can_be_searched_too(recommender):
    search = recommender.variant(["decoding.name=any_order_beam", "decoding.beam=480"])
    exact = recommender.variant(["decoding.name=exhaustive"])
    first, second = (one.recommend([HISTORY], k=5) for one in (search, exact))
    assert first["item_id"].to_list() == second["item_id"].to_list()
    assert recommender.explain(HISTORY, k=2).height == 2 * recommender.semantic_ids.n_digits


def test_an_export_says_what_it_lacks(recommender, tmp_path):
    export = pytest.importorskip("diffgrm.runtime_onnx.export")
    with pytest.raises(RecipeError, match="its model 'masked_history_dense' lacks denoise_places; model.name=diffgrm has"):
        export.export_onnx(recommender, tmp_path / "export")


def test_a_head_that_nothing_teaches_is_refused(toy):
    recipe = small_recipe("maskgr").override(["model.name=masked_history_dense"])
    with pytest.raises(
        RecipeError, match="has weights for scores of items, which the objective 'history_diffusion' does not"
    ):
        HybridRecommender(recipe).fit(toy, progress=False)


def test_texts_are_needed(toy):
    recipe = small_recipe("maskgr-dense").override(["model.name=masked_history"])
    with pytest.raises(RecipeError, match=r"'masked_history' lacks .*needs denoise_items.*\(DenoisesItems\)"):
        HybridRecommender(recipe).fit(toy, progress=False)
