"""Whole items and digits learnt together, through training, ranking, folders and export."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import DiffGRMRecommender, HybridRecommender, Recipe, load
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.ranking import item_index
from diffgrm.ranking.item_scoring.base import Users
from diffgrm.ranking.ranker import Ranker

HISTORIES = {"a": ["item 3", "item 77", "item 410"], "b": ["item 5"], "c": [f"item {i}" for i in range(20)]}
FEW = [f"item {i}" for i in range(30)]


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    raw = tiny_recipe.to_dict()
    raw["recommender"] = "hybrid"
    raw["model"] |= {"branches": ["sid", "text", "id"], "history": "causal"}
    raw["objective"] = {"name": "joint", "digits": "diffusion", "item_weight": 1.0, "digit_fraction": 0.5}
    raw["item_loss"] = {"kind": "softmax"}
    raw["item_scoring"] = {"co_occurrence": {"weight": 1.5}, "new_items": {"weight": 0.0}}
    raw["decoding"] = {"name": "item_proposals", "candidates": 24, "weight": 0.2}
    raw["training"]["validation_decoding"] = {"candidates": 12}
    return Recipe.from_dict(raw)


@pytest.fixture(scope="module")
def whole(recipe, toy):
    return HybridRecommender(recipe).fit(toy, progress=False)


def test_it_comes_back_from_its_folder(whole, tmp_path):
    again = load(whole.save(tmp_path / "model"))
    assert again.recommend(HISTORIES, k=9).equals(whole.recommend(HISTORIES, k=9))
    assert again.network.item.id.ids.shape[0] == len(whole.items)
    grown = again.add_items(pl.DataFrame({"item_id": ["new"], "text": [whole.item_table["text"][3]]}))
    twice = load(grown.save(tmp_path / "grown"))
    assert twice.recommend(HISTORIES, k=9).equals(grown.recommend(HISTORIES, k=9))


def test_a_new_item_stands_where_its_text_says(whole):
    """Its vector is that of an item of the same text and digits but for the ID embedding."""
    grown = whole.add_items(pl.DataFrame({"item_id": ["new"], "text": [whole.item_table["text"][3]]}))
    vectors, features = grown.ranker().items.vectors, grown.ranker().items.features
    assert features.row[-1] == -1 and torch.equal(features.text[-1], features.text[3])
    with torch.no_grad():
        text_only = whole.network.item.text(features, None)
    assert torch.equal(text_only[-1], text_only[3]) and not torch.equal(vectors[-1], vectors[3])
    found = grown.recommend(HISTORIES, k=3, only=["new", "item 3", "item 9"], exclude_seen=False)
    assert "new" in found["item_id"].to_list()


def test_an_item_whose_text_changes_moves_and_the_old_recommender_stays(whole):
    row = pl.DataFrame({"item_id": ["item 3"], "text": [whole.item_table["text"][200]]})
    before = whole.ranker().items.vectors.clone()
    moved = whole.update_items(row, "move")
    assert torch.equal(moved.ranker().items.features.text[3], whole.ranker().items.features.text[200])
    assert not torch.equal(moved.ranker().items.vectors[3], before[3])
    assert torch.equal(whole.ranker().items.vectors, before)
    assert torch.equal(whole.update_items(row, "keep").ranker().items.vectors, before)


def test_items_without_events_have_no_id_of_their_own(recipe, toy):
    fitted = HybridRecommender(recipe.override(["training.epochs=1"])).fit(toy, progress=False)
    features = fitted.ranker().items.features
    own = fitted.network.item.id(features, None).any(1).numpy()
    assert (features.trained.numpy() == (fitted.item_counts > 0)).all() and (own == (fitted.item_counts > 0)).all()
    assert not own.all()


def test_co_occurrence_is_added_to_the_item_scores(whole):
    with_it = whole.variant(["decoding.weight=0"])
    without = with_it.variant(["item_scoring.co_occurrence.weight=0"])
    history = [HISTORIES["a"]]
    k = len(whole.items) - 3
    ours, theirs = (model.recommend(history, k=k).sort("item_id") for model in (with_it, without))
    positions = whole.items.positions(HISTORIES["a"])
    scoring, users = whole.ranker().scoring, Users(torch.zeros(1, 32), Ragged.from_lists([positions]))
    bonus = 1.5 * whole.parts["scorers"].scorers["co_occurrence"].scores(users, scoring.items)[0]
    bonus = bonus[whole.items.positions(ours["item_id"])]
    difference = ours["score"].to_numpy() - theirs["score"].to_numpy()
    assert difference - difference[bonus == 0][0] == pytest.approx(bonus, abs=1e-4)
    assert (bonus > 0).any()


def test_new_items_can_be_lifted(whole):
    rows = pl.DataFrame({"item_id": ["new 1", "new 2"], "text": whole.item_table["text"][3:5].to_list()})
    grown = whole.add_items(rows).variant(["decoding.weight=0"])
    lifted = grown.variant(["item_scoring.new_items.weight=3"])
    histories, k = list(HISTORIES.values()), len(grown.items)
    before, after = (model.recommend(histories, k=k, exclude_seen=False) for model in (grown, lifted))
    both = before.join(after, on=["user_id", "item_id"])
    shift = both.with_columns(shift=pl.col("score_right") - pl.col("score"), new=pl.col("item_id").str.starts_with("new"))
    for _, user in shift.group_by("user_id"):
        low = user.filter(~pl.col("new"))["shift"]
        without_events = {grown.items.ids([i])[0] for i in np.flatnonzero(grown.item_counts == 0)}
        usual = user.filter(~pl.col("item_id").is_in(list(without_events)))["shift"]
        assert usual.max() - usual.min() < 1e-3 and low.max() <= usual.max() + 3 + 1e-3
        assert user.filter("new")["shift"].to_list() == pytest.approx([usual[0] + 3] * 2, abs=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_export_gives_the_same_lists(whole, weight, tmp_path):
    model = whole.variant([f"decoding.weight={weight}", "item_scoring.new_items.weight=0.7"])
    from diffgrm import load_onnx
    from diffgrm.runtime_onnx.export import export_onnx

    onnx = load_onnx(export_onnx(model, tmp_path / "export"), threads=1)
    for settings in ({"k": 5}, {"k": 40}, {"k": 3, "only": ["item 3", "item 9"]}, {"k": 4, "exclude_seen": False}):
        ours, theirs = onnx.recommend(HISTORIES, **settings), model.recommend(HISTORIES, **settings)
        assert ours["item_id"].equals(theirs["item_id"])
        np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-4)


QUESTIONS = [{"k": 5}, {"k": 30, "exclude_seen": False}, {"k": 4, "without": ["item 9", "item 12"]}, {"k": 3, "only": FEW}]


@pytest.mark.parametrize("question", QUESTIONS, ids=["plain", "seen", "without", "only"])
@pytest.mark.parametrize("index", ["hnsw", "ivf_pq"])
@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_items_that_are_looked_up_are_those_of_all(whole, index, weight, question):
    """With candidates enough; the scores are log-probabilities among them, and so differ by as much for all of a list."""
    exact = whole.variant([f"decoding.weight={weight}", "item_scoring.new_items.weight=0.5"])
    exact = exact.remove_items(["item 44", "item 45"])
    quick = exact.variant([f"retrieval.index={index}", "retrieval.candidates=400"])
    assert quick.ranker()._first_stage is not None and exact.ranker()._first_stage is None
    ours, theirs = (model.recommend(HISTORIES, **question) for model in (quick, exact))
    assert ours.drop("score").equals(theirs.drop("score"))
    shift = ours.select("user_id", shift=pl.col("score") - theirs["score"]).group_by("user_id")
    assert shift.agg(pl.col("shift").max() - pl.col("shift").min())["shift"].max() < 1e-3


def test_items_that_come_are_looked_up_in_the_index_that_is_there(whole, monkeypatch):
    quick = whole.variant(["retrieval.index=hnsw", "retrieval.candidates=400"])
    quick.recommend(HISTORIES, k=3)
    monkeypatch.setattr(item_index, "_hnsw", None)  # nothing is built
    grown = quick.add_items(pl.DataFrame({"item_id": ["new"], "text": [whole.item_table["text"][3]]}))
    exact = grown.variant(["retrieval.index=exact"])
    for model in (grown, grown.remove_items(["item 9"]), grown.variant(["item_scoring.new_items.weight=2"])):
        exact = model.variant(["retrieval.index=exact"])
        ours, theirs = (one.recommend(HISTORIES, k=20)["item_id"] for one in (model, exact))
        assert ours.equals(theirs)
    assert "new" in grown.variant(["item_scoring.new_items.weight=9"]).recommend(HISTORIES, k=2)["item_id"]


def test_how_items_are_looked_up_is_kept_with_the_model(whole, tmp_path):
    quick = whole.variant(["retrieval.index=ivf_pq", "retrieval.candidates=300"])
    again = load(quick.save(tmp_path / "model"))
    assert again.recipe.retrieval == quick.recipe.retrieval
    assert again.recommend(HISTORIES, k=9).equals(quick.recommend(HISTORIES, k=9))


def test_an_index_that_could_not_find_the_best_is_refused(whole, recipe, toy):
    with pytest.raises(RecipeError, match="retrieval.index=hnsw looks items up by their vectors, but item_scoring"):
        whole.variant(["retrieval.index=hnsw", "item_scoring.vectors.weight=0"])
    posterior = recipe.override(["decoding.name=item_posterior", "retrieval.candidates=9"])
    with pytest.raises(RecipeError, match="decoding 'item_posterior' finds items in its own way; leave retrieval out"):
        HybridRecommender(posterior).fit(toy, progress=False)
    with pytest.raises(RecipeError, match="retrieval.candidates = 9 does nothing with retrieval.index = exact"):
        HybridRecommender(recipe.override(["retrieval.index=exact", "retrieval.candidates=9"])).fit(toy, progress=False)


def test_other_decoders_serve_the_same_weights(whole):
    for name in ("any_order_beam", "catalogue_beam", "one_pass"):
        assert whole.variant([f"decoding.name={name}"]).recommend(HISTORIES, k=5).height == 15


def test_reduced_precision_recommends_too(whole):
    assert whole.variant([]).to("cpu", precision="bf16").recommend(HISTORIES, k=5).height == 15


def test_it_explains_itself(whole):
    table = whole.explain(HISTORIES["a"], k=2)
    assert table["rank"].n_unique() == 2 and table.height == 2 * 3
    assert sorted(table.filter(pl.col("rank") == 1)["step"]) == [1, 2, 3]
    alone = whole.variant(["decoding.weight=0"]).explanation_note()
    assert alone.startswith("Item scores alone chose the list: digits had no say in it")
    for settings, note in (
        (["decoding.weight=1"], "Scores of whole items had a say in the list, and none in these confidences."),
        (["decoding.name=any_order_beam"], ""),
        (["decoding.name=item_posterior"], ""),
    ):
        assert whole.variant(settings).explanation_note() == note
    steps = whole.beams(HISTORIES["a"], k=2)
    assert steps["step"].unique().sort().to_list() == [1, 2, 3]


def test_item_scores_that_are_not_learnt_are_not_asked_for(tiny_recipe, toy):
    raw = tiny_recipe.to_dict()
    raw["decoding"], raw["training"]["validation_decoding"] = "item_proposals", {}
    with pytest.raises(RecipeError, match="which the recommender 'diffgrm' does not learn; choose recommender=hybrid"):
        DiffGRMRecommender(Recipe.from_dict(raw)).fit(toy, progress=False)


def test_nor_afterwards(fitted):
    before = fitted.recipe
    with pytest.raises(RecipeError, match="which the recommender 'diffgrm' does not learn"):
        fitted.override(["decoding.name=item_proposals"])
    assert fitted.recipe == before


def test_another_precision_is_the_own_affair_of_a_variant(whole):
    half = whole.variant([]).to("cpu", "bf16")
    assert next(half.ranker().network.parameters()).dtype == torch.bfloat16
    whole._forget()
    assert whole.ranker().network is whole.network and half.network is whole.network


def test_item_scores_that_no_objective_teaches_are_not_asked_for(recipe, toy):
    digits_only = recipe.override(["objective.name=diffusion", "item_loss=null"])
    with pytest.raises(RecipeError, match="which the objective 'diffusion' does not teach; choose another"):
        HybridRecommender(digits_only).fit(toy, progress=False)
    HybridRecommender(digits_only.override(["item_scoring.vectors=null"])).new_parts()  # co-occurrence needs no network
    nothing = recipe.override([f"item_scoring.{name}=null" for name in recipe.item_scoring.scorers])
    with pytest.raises(RecipeError, match="item_scoring has no scorer left; keep one of vectors, co_occurrence"):
        HybridRecommender(nothing).fit(toy, progress=False)


def test_a_scorer_that_was_not_fitted_cannot_be_weighed(recipe, toy):
    fitted = HybridRecommender(recipe.override(["item_scoring.new_items=null", "training.epochs=1"]))
    fitted.fit(toy, progress=False)
    before = fitted.recipe
    with pytest.raises(RecipeError, match="item_scoring.new_items was left out at fit.*this model has vectors, co_occ"):
        fitted.override(["item_scoring.new_items.weight=1"])
    assert fitted.recipe == before


def test_settings_that_do_nothing_are_refused_before_anything_is_fitted(recipe, toy):
    with pytest.raises(RecipeError, match="item_loss.calibration = 0.5 does nothing with item_loss.kind = softmax"):
        HybridRecommender(recipe.override(["item_loss.calibration=0.5"])).fit(toy, progress=False)


def test_it_learns_more_than_digits_alone(recipe, toy):
    """The toy world has something to learn: the loss of items falls."""
    fitted = HybridRecommender(recipe.override(["training.epochs=6", "training.patience=20"])).fit(toy, progress=False)
    assert isinstance(fitted.ranker(), Ranker)
    assert fitted.facts["validation"]["val_recall@10"] > 2 * 10 / toy.n_items


def test_retrieval_is_refused_with_a_decoder_that_does_not_look_up_and_kept_for_one_that_does(whole):
    with pytest.raises(RecipeError, match="retrieval is for lists that item scores propose, but decoding 'one_pass' finds"):
        whole.variant(["decoding.name=one_pass", "retrieval.index=hnsw"])
    quick = whole.variant(["retrieval.index=hnsw", "retrieval.candidates=400"])
    digits = quick.variant(["decoding.name=one_pass"])
    assert digits.recipe.retrieval == quick.recipe.retrieval and digits.recommend(HISTORIES, k=3).height == 3 * len(
        HISTORIES
    )
