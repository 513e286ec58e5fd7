"""Parts of one's own, each in one file outside the library: what the promise is about, from recipe to saved model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import diffgrm
from diffgrm import DiffGRMRecommender, HybridRecommender, Recipe, toy_world
from diffgrm.data.splits import make_split
from diffgrm.foundation.schema import DiffGRMError, RecipeError
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext
from diffgrm.recommenders.texts import TextVectors
from helpers.recipes import TINY, small_recipe
from helpers.runs import killed_fit, same_weights
from parts.odd_scorer import ODD
from parts.ramped import RareFirst

HISTORIES = [["item 3", "item 77", "item 410"], ["item 12"]]
MASKED = {
    **TINY,
    "model": {"name": "parts.masked_history:MaskedHistory", "width": 32},
    "objective": {"name": "parts.masked_history:MaskedHistoryObjective", "history_weight": 0.5},
}
RAMPED = {**TINY, "objective": {"name": "parts.ramped:RampedObjective", "ramp": 4}}
RAMPED["training"] = {**TINY["training"], "epochs": 6, "patience": 6}


def losses(run: Path) -> list[float]:
    logs = pl.concat([pl.read_csv(path) for path in sorted(run.glob("logs/*/metrics.csv"))], how="diagonal_relaxed")
    return logs["train_loss"].drop_nulls().to_list()


def test_a_network_that_masks_history_and_target_goes_all_the_way(toy, tmp_path):
    recommender = DiffGRMRecommender(Recipe.from_dict(MASKED)).fit(toy, run_folder=tmp_path / "run", progress=False)
    epochs = losses(tmp_path / "run")
    assert epochs[-1] < epochs[0]
    found = recommender.recommend(HISTORIES, k=5)
    assert found.height == 10 and found.group_by("user_id").agg(pl.col("item_id").n_unique())["item_id"].to_list() == [5, 5]
    again = diffgrm.load(recommender.save(tmp_path / "model"), trust_code=True)
    assert again.recommend(HISTORIES, k=5).equals(found)
    explained = again.explain(HISTORIES[0], k=2)
    assert explained["confidence"].is_between(0, 1).all() and explained.height == 2 * again.semantic_ids.n_digits
    grown = again.add_items(again.item_table.head(1).with_columns(item_id=pl.lit("new")))
    assert grown.recommend([["new", "item 5"]], k=3).height == 3


def test_a_network_is_refused_for_what_it_cannot_do():
    missing = r"objective 'joint' needs user_vectors \(ScoresItems\)"
    recipe = small_recipe("hybrid").to_dict() | {"model": MASKED["model"]}
    with pytest.raises(RecipeError, match=missing):
        HybridRecommender(Recipe.from_dict(recipe)).fit(toy_world(users=30).dataset, progress=False)
    recipe = {**MASKED, "objective": "left_to_right", "decoding": "left_to_right", "training": {"epochs": 1}}
    with pytest.raises(RecipeError, match=r"needs next_digit, predict \(PredictsDigits\)"):
        DiffGRMRecommender(Recipe.from_dict(recipe)).fit(toy_world(users=30).dataset, progress=False)


def test_a_loss_that_follows_the_epoch_is_resumed_exactly(toy, tmp_path):
    """A process is killed for good in its fourth epoch; the resumed run has the losses and weights of the whole one."""
    recipe = Recipe.from_dict(RAMPED)
    whole = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path / "whole", progress=False)
    flat = DiffGRMRecommender(recipe.override(["objective.ramp=1"])).fit(toy, run_folder=tmp_path / "flat", progress=False)
    ratio = np.array(losses(tmp_path / "whole")) / np.array(losses(tmp_path / "flat"))
    assert ratio[0] == pytest.approx(0.25, abs=0.05) and not same_weights(whole, flat)
    killed_fit(recipe, tmp_path / "run", epoch=3, step=2)
    resumed = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path / "run", resume=True, progress=False)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert same_weights(resumed, whole)


def test_a_schedule_sees_the_history_and_how_far_training_is(toy):
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]])
    history = torch.tensor([[[1, 9, 3], [1, 2, 9]], [[4, 5, 6], [9, 5, 9]]])
    known = torch.tensor([[True, True], [True, False]])  # the last item of the second history is not known

    def hidden(step):
        learning = LearningContext(step=step, steps=9, epoch=0, epochs=1)
        context = NoisingContext(lambda *_: None, torch.Generator(), learning, lambda: (history, known))
        return RareFirst().views(codes, context).mask[:, 0].int().tolist()

    assert hidden(0) == [[0, 1, 0], [1, 0, 0]] and hidden(6) == [[0, 1, 1], [1, 1, 0]] and hidden(9) == [[1, 1, 1]] * 2
    recipe = Recipe.from_dict({**TINY, "noising": "parts.ramped:RareFirst"})
    assert DiffGRMRecommender(recipe).fit(toy, progress=False).recommend(HISTORIES, k=3).height == 6


def test_a_second_look_at_the_best_hundred(toy, tmp_path):
    name = "parts.rescorer:LessPopular"
    recipe = Recipe.from_dict(small_recipe("hybrid").to_dict() | {"item_scoring": {"vectors": {}, name: {"weight": 0.7}}})
    recommender = HybridRecommender(recipe).fit(toy, progress=False)
    again = diffgrm.load(recommender.save(tmp_path / "model"), trust_code=True)
    first = again.override([f"item_scoring.{name}.weight=0"])
    found, plain = recommender.recommend(HISTORIES, k=10), first.recommend(HISTORIES, k=100)
    assert diffgrm.load(tmp_path / "model", trust_code=True).recommend(HISTORIES, k=10).equals(found)
    counts = dict(zip(toy.items.series, recommender.item_counts, strict=True))
    for user in (0, 1):
        rows = plain.filter(user_id=user)
        events = np.array([counts[item] for item in rows["item_id"]])
        wanted = rows.with_columns(again=pl.col("score") - 0.7 * pl.Series(np.log1p(events)))
        wanted = wanted.sort("again", descending=True, maintain_order=True).head(10)
        assert found.filter(user_id=user)["item_id"].to_list() == wanted["item_id"].to_list()
        np.testing.assert_allclose(found.filter(user_id=user)["score"], wanted["again"], atol=1e-4)
    assert found["item_id"].to_list() != plain.group_by("user_id", maintain_order=True).head(10)["item_id"].to_list()


def test_a_scorer_that_no_list_can_be_made_of_is_an_error_and_no_empty_list(toy):
    """Where it is asked, whoever asks; an item that it leaves out is in no list."""
    name = "parts.odd_scorer:Odd"
    recipe = Recipe.from_dict(small_recipe("hybrid").to_dict() | {"item_scoring": {"vectors": {}, name: {}}})
    recommender = HybridRecommender(recipe).fit(toy, progress=False)
    odd, everything = toy.items.series[ODD], toy.items.series.len()
    whole = recommender.recommend(HISTORIES, k=everything, exclude_seen=False)
    split = make_split(toy, recipe.data)
    scorer = recommender.parts["scorers"].scorers[name]
    scorer.says = "-inf"
    found = recommender.recommend(HISTORIES, k=everything, exclude_seen=False)
    assert odd not in found["item_id"] and found.height == whole.height - 2
    for says, message in (("nan", "of Odd "), ("inf", "of Odd "), ("short", "the scorer Odd must give")):
        scorer.says = says
        with pytest.raises(DiffGRMError, match=message):
            recommender.recommend(HISTORIES)
        with pytest.raises(DiffGRMError, match=message):
            diffgrm.evaluate(recommender, split.test, toy.items, split.item_counts)


def test_what_a_scorer_lacks_is_told_before_anything_is_learnt(toy, monkeypatch):
    monkeypatch.setattr(TextVectors, "fit", lambda *_: pytest.fail("something was learnt"))
    lacking = {"vectors": {}, **{f"parts.odd_scorer:{name}": {} for name in ("Weightless", "Endless")}}
    recipe = Recipe.from_dict(small_recipe("hybrid").to_dict() | {"item_scoring": lacking})
    with pytest.raises(RecipeError) as error:
        HybridRecommender(recipe).fit(toy, progress=False)
    told = str(error.value)
    assert "Weightless must have weight, the finite number that its scores count for in the sum, found None" in told
    assert "Endless must have candidates" in told
    none = recipe.to_dict() | {"item_scoring": {"parts.odd_scorer:NoScorer": {}}}
    with pytest.raises(RecipeError, match="NoScorer' is no scorer; write a class that derives from .*base.Scorer"):
        HybridRecommender(Recipe.from_dict(none)).fit(toy, progress=False)


def test_a_weight_may_be_learnt_and_is_kept(toy, tmp_path):
    learnt = {"vectors": {}, "parts.odd_scorer:Learnt": {}}
    recipe = Recipe.from_dict(small_recipe("hybrid").to_dict() | {"item_scoring": learnt})
    recommender = HybridRecommender(recipe).fit(toy, progress=False)
    folder = recommender.save(tmp_path / "model")
    found = diffgrm.load(folder, trust_code=True)
    assert found.recommend(HISTORIES).equals(recommender.recommend(HISTORIES))
    longest = int(diffgrm.leave_one_out(toy).train.lengths.max())
    assert recommender.parts["scorers"].scorers["parts.odd_scorer:Learnt"].weight == 1 / longest
