"""Scores of every two digits in a recommender: where they begin, what they go through, what is refused."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import DiffGRMRecommender, HybridRecommender, load
from diffgrm.foundation.schema import ModelFolderError, RecipeError
from diffgrm.learning.loop import TrainingResult
from diffgrm.recommenders import trained_network
from helpers.folders import change_recipe
from helpers.recipes import small_generation, small_recipe

HISTORIES = {"a": ["item 3", "item 77", "item 410"], "b": ["item 5"]}
PAIRS = "model.pairwise_rank=4"
CATALOGUE = ["objective.name=catalogue_diffusion", "noising.name=full_mask", "decoding.name=one_pass"]


def fitted(toy, *changes):
    return DiffGRMRecommender(small_generation("training.epochs=1", *changes)).fit(toy, progress=False)


@pytest.fixture(scope="module")
def recommender(toy):
    """Tests must not change it."""
    return fitted(toy, PAIRS)


def test_before_training_the_list_is_that_without_them_to_the_last_bit(toy, monkeypatch):
    """Begun at the item scorer, they say nothing yet."""
    monkeypatch.setattr(trained_network, "train", lambda *_, **__: TrainingResult(0.0, 0, 0, {}, 0.0))
    plain, paired = (fitted(toy, *changes).recommend(HISTORIES, k=480) for changes in ((), (PAIRS,)))
    assert paired.equals(plain)


def test_they_learn_and_their_list_is_kept(recommender, tmp_path):
    assert recommender.network.pairs.user.weight.any() and recommender.ranker().items.pair_vectors.shape == (480, 4)
    again = load(recommender.save(tmp_path / "model"))
    assert again.recommend(HISTORIES, k=20).equals(recommender.recommend(HISTORIES, k=20))
    assert again.recipe == recommender.recipe


def test_an_explanation_says_that_pairs_had_a_say(recommender):
    assert recommender.explanation_note() == (
        "Scores of every two digits had a say in the list, and none in these confidences."
    )


def test_another_rank_than_that_of_the_weights_is_refused(recommender, tmp_path):
    folder = recommender.save(tmp_path / "model")
    change_recipe(folder, {"model": {**recommender.recipe.to_dict()["model"], "pairwise_rank": 5}})
    with pytest.raises(ModelFolderError, match="pairs"):
        load(folder)


def test_items_that_come_and_filters(recommender):
    """By their digits, in the catalogue and in parts of it; scores of the others stay."""
    rows = recommender.item_table.head(2).with_columns(item_id=pl.Series(["new 0", "new 1"]))
    grown = recommender.add_items(rows)
    before, after = (one.recommend(HISTORIES, k=470) for one in (recommender, grown))
    assert {"new 0", "new 1"} <= set(grown.recommend(HISTORIES, k=482, exclude_seen=False)["item_id"])
    both = before.join(after, on=["user_id", "item_id"])
    assert both.height > 900 and (both["score"] - both["score_right"]).abs().max() < 1e-4
    some = [f"item {i}" for i in range(0, 480, 7)]
    whole = before.filter(pl.col("item_id").is_in(some)).group_by("user_id", maintain_order=True).head(5)
    only = recommender.recommend(HISTORIES, k=5, only=some)
    assert only["item_id"].to_list() == whole["item_id"].to_list()


def test_a_second_look_asks_them_too(recommender):
    found = recommender.variant(["decoding.name=refined"]).recommend(HISTORIES, k=5)
    assert found.height == 10 and found["score"].is_finite().all()


REFUSED = {
    "tokenizer={name: opq, n_digits: 1}": (
        "model.pairwise_rank = 4 scores pairs of digits, but tokenizer.n_digits is 1; set it to 2 or more, or "
        "model.pairwise_rank to 0"
    ),
    "decoding.name=any_order_beam": (
        "decoding 'any_order_beam' leaves out the scores of pairs of digits (model.pairwise_rank = 4); choose one of "
        "digits_and_items, one_pass, refined, or set model.pairwise_rank to 0"
    ),
    "objective={name: diffusion}": (
        "model.pairwise_rank = 4 gives weights to pairs of digits, which the objective 'diffusion' does not teach; choose "
        "objective.name=catalogue_diffusion, or set model.pairwise_rank to 0"
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.items())
def test_where_they_would_count_for_nothing_they_are_refused(change, message, toy, monkeypatch):
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", lambda *_, **__: pytest.fail("it embeds"))
    recipe = small_recipe("diffgrm").override([*CATALOGUE, PAIRS, change])
    with pytest.raises(RecipeError) as error:
        DiffGRMRecommender(recipe).fit(toy, progress=False)
    assert message in str(error.value)


def test_a_list_without_them_is_refused_after_training_too(recommender):
    with pytest.raises(RecipeError, match="decoding 'any_order_beam' leaves out the scores of pairs of digits"):
        recommender.variant(["decoding.name=any_order_beam"])


def test_beside_whole_items_they_count_where_digits_do(toy):
    recipe = small_recipe("hybrid").override(["objective.digits.name=catalogue_diffusion", PAIRS, "training.epochs=1"])
    with pytest.raises(RecipeError, match="decoding 'item_proposals' leaves out the scores of pairs of digits"):
        HybridRecommender(recipe).fit(toy, progress=False)
    summed = HybridRecommender(recipe.override(["decoding.name=digits_and_items"])).fit(toy, progress=False)
    assert summed.network.pairs.user.weight.any() and summed.recommend(HISTORIES).height == 20
