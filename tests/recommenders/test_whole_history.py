"""Recipes that mask whole histories: every use of a model beyond what all recommenders must do."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm import DiffGRMRecommender, HybridRecommender, Recipe, load
from diffgrm.foundation.schema import RecipeError
from helpers.recipes import SMALL_PRESETS, small_recipe, unfitted
from helpers.runs import killed_fit, same_weights
from helpers.serving import client_of

HISTORY = ["item 3", "item 77", "item 410"]
DECODERS = {
    "beam": ["decoding.name=any_order_beam", "decoding.beam=480"],
    "catalogue": ["decoding.name=catalogue_beam", "decoding.beam=480"],
    "at once": ["decoding.name=one_pass"],
    "second look": ["decoding.name=refined"],
    "every order": ["decoding.name=exhaustive"],
}


@pytest.fixture(
    scope="module", params=[name for name in SMALL_PRESETS if Recipe.preset(name).model.name == "masked_history"]
)
def recommender(request, toy):
    """Tests must not change it."""
    return unfitted(request.param).fit(toy, progress=False)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_of_masked_diffusion_asks_it(decoder, recommender):
    found = recommender.variant(DECODERS[decoder]).recommend({"a": HISTORY, "b": HISTORY[:1]}, k=5)
    assert found.group_by("user_id").agg(pl.col("item_id").n_unique())["item_id"].to_list() == [5, 5]
    assert found["score"].is_finite().all()


def test_a_wide_beam_finds_the_best_items_by_every_order(recommender):
    wide, exact = (recommender.variant(DECODERS[name]).recommend([HISTORY], k=5) for name in ("beam", "every order"))
    assert wide["item_id"].to_list() == exact["item_id"].to_list()
    assert wide["score"].to_list() == pytest.approx(exact["score"].to_list(), abs=1e-4)


def test_its_lists_are_explained_digit_by_digit(recommender):
    n, listed = recommender.semantic_ids.n_digits, recommender.recommend([HISTORY], k=3)
    rows = recommender.explain(HISTORY, k=3)
    assert rows.unique("item_id", maintain_order=True)["item_id"].to_list() == listed["item_id"].to_list()
    assert rows["confidence"].is_between(0, 1).all() and rows["step"].unique().sort().to_list() == list(range(1, n + 1))
    sums = rows.group_by("rank", maintain_order=True).agg(pl.col("confidence").log().sum())
    assert sums["confidence"].to_list() == pytest.approx(listed["score"].to_list(), abs=1e-3)
    assert recommender.beams(HISTORY, k=3)["step"].max() == n
    order = recommender.fill_order(recommender.read_histories([HISTORY])[1])
    np.testing.assert_allclose(order.sum(0), 1)


def test_it_is_served(recommender, tmp_path):
    app, live, settings = (pytest.importorskip(f"diffgrm.apps.serving.{name}") for name in ("app", "live", "settings"))
    folder = recommender.save(tmp_path / "model")
    with client_of(app.create_app(live.LiveModel(folder), settings.Limits())) as client:
        answer = client.post("/recommend", json={"histories": [HISTORY], "k": 5, "beam": 16})
        assert answer.status_code == 200, answer.text
        explained = client.post("/explain", json={"history": HISTORY, "k": 2})
        assert explained.status_code == 200 and client.get("/model").json()["explains"] is True


def test_an_export_says_what_it_lacks(recommender, tmp_path):
    export = pytest.importorskip("diffgrm.runtime_onnx.export")
    with pytest.raises(
        RecipeError, match="its model 'masked_history' lacks denoise_places, user_vectors; model.name=diffgrm"
    ):
        export.export_onnx(recommender, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_items_are_not_ranked_by_scores_that_it_does_not_learn(recommender, toy):
    with pytest.raises(RecipeError, match="ranks by item scores, which the recommender 'diffgrm' does not learn"):
        recommender.variant(["decoding.name=item_proposals"])
    with pytest.raises(RecipeError, match=r"needs user_vectors \(ScoresItems\)"):
        HybridRecommender(Recipe(model="masked_history")).fit(toy, progress=False)


def test_a_target_is_learnt_from_its_clean_history_by_diffusion_alone_too(toy, tmp_path):
    raw = small_recipe("llada-rec").to_dict() | {"objective": "diffusion", "noising": "confidence"}
    recommender = DiffGRMRecommender(Recipe.from_dict(raw)).fit(toy, progress=False)
    assert (
        load(recommender.save(tmp_path / "model")).recommend([HISTORY], k=4).equals(recommender.recommend([HISTORY], k=4))
    )


def test_a_killed_run_goes_on_into_its_last_phase(toy, tmp_path):
    recipe = small_recipe("llada-rec").override(["objective.last_phase=0.3", "training.epochs=3", "training.patience=9"])
    whole = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path / "whole", progress=False)
    without = DiffGRMRecommender(recipe.override(["objective.last_phase=0"])).fit(toy, progress=False)
    assert not same_weights(whole, without)
    killed_fit(recipe, tmp_path / "run", epoch=1, step=2)
    resumed = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path / "run", resume=True, progress=False)
    assert same_weights(resumed, whole)
