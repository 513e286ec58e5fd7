"""A fitted recommender that is steered: what is frozen, kept, and refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import diffgrm
from diffgrm import Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, ModelFolderError, RecipeError, TrainingError
from diffgrm.foundation.storage import State
from diffgrm.recommenders.epic import BACKBONE, EpicRecommender
from diffgrm.recommenders.packing import packed
from helpers.folders import rehash
from helpers.recipes import SMALL_STEERING, TINY, small_recipe, unfitted

HISTORIES = [["item 3", "item 77", "item 410"], ["item 9"], [f"item {i}" for i in range(40)]]
TRAINING = {"batch_size": 64, "epochs": 2, "warmup_steps": 5, "validation_decoding": {"beam": 8}}
BY_DIGITS = ["decoding.name=any_order_beam", "decoding.beam=16"]


def steered(toy, model, training=TRAINING, **sections):
    recipe = Recipe(recommender="epic", model={**SMALL_STEERING, **model}, training=training, **sections)
    return EpicRecommender(recipe).fit(toy, progress=False)


@pytest.fixture(scope="module", params=["diffgrm", "llada-rec"])
def backbone(request, toy, tmp_path_factory):
    """The folder of a fitted recommender, and what it answers."""
    fitted = unfitted(request.param).fit(toy, progress=False)
    return str(fitted.save(tmp_path_factory.mktemp("backbones") / request.param)), fitted


@pytest.fixture(scope="module")
def fitted(backbone, toy):
    return steered(toy, {"backbone": backbone[0]})


def test_the_backbone_is_the_one_that_was_given_and_has_not_moved(fitted, backbone):
    before, after = (one.network.state_dict() for one in (backbone[1], fitted.backbone))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert fitted.network.backbone is fitted.backbone.network
    assert np.array_equal(fitted.semantic_ids.codes, backbone[1].semantic_ids.codes)
    assert fitted.facts["steps"] > 0 and fitted.facts["backbone"] == backbone[1].recipe.model.name


def test_by_digits_alone_lists_are_the_backbones(fitted, backbone):
    for more in ({}, {"exclude_seen": False}, {"without": ["item 5"]}):
        found, wanted = (one.variant(BY_DIGITS).recommend(HISTORIES, k=9, **more) for one in (fitted, backbone[1]))
        assert found.equals(wanted)
    assert not fitted.recommend(HISTORIES, k=9).equals(found)


def test_before_anything_is_learnt_lists_are_the_backbones_too(fitted, backbone):
    wide = fitted.variant(["decoding.beam=16"])
    gate = wide.network.steering["gate"][2]
    before = [weight.detach().clone() for weight in gate.parameters()]
    assert any(weight.abs().sum() > 0 for weight in before)
    with torch.no_grad():
        for weight in gate.parameters():
            weight.zero_()
        found = wide.recommend(HISTORIES, k=9)
        for weight, value in zip(gate.parameters(), before, strict=True):
            weight.copy_(value)
    assert found.equals(backbone[1].variant(BY_DIGITS).recommend(HISTORIES, k=9))
    assert not wide.recommend(HISTORIES, k=9).equals(found)


def test_a_saved_model_is_whole_without_the_folder_of_its_backbone(fitted, backbone, toy, tmp_path):
    for path in (folder := fitted.save(tmp_path / "model")).iterdir():
        assert backbone[0] not in path.read_bytes().decode("latin-1")
    again = diffgrm.load(folder)
    assert again.recipe.model.options["backbone"] is None
    for settings in ([], ["decoding.opened=2"], BY_DIGITS):
        assert again.variant(settings).recommend(HISTORIES).equals(fitted.variant(settings).recommend(HISTORIES))
    with pytest.raises(RecipeError, match=r"model\.backbone is null, which says that a saved model holds it"):
        again.fit(toy)


def test_the_weights_of_the_backbone_are_kept_once(fitted, tmp_path):
    state = State.load(fitted.save(tmp_path / "model") / "model.safetensors").arrays
    assert state.keys() == fitted.network.steering.state_dict().keys()


def test_items_may_be_ranked_after_some_digits(fitted):
    found = fitted.variant(["decoding.opened=2"]).recommend(HISTORIES, k=9)
    assert found.height == 27 and not found.equals(fitted.recommend(HISTORIES, k=9))
    whole = fitted.variant(["decoding.opened=1", "decoding.beam=2"]).recommend(HISTORIES[:1], k=480, exclude_seen=False)
    assert whole["item_id"].n_unique() == 480
    with pytest.raises(RecipeError, match=r"decoding\.opened 3 leaves none of the 3 digits"):
        fitted.variant(["decoding.opened=3"]).recommend(HISTORIES)


@pytest.mark.parametrize("settings", [[], ["decoding.opened=2"], ["decoding.opened=1"], BY_DIGITS])
def test_what_it_explains_is_what_chose(fitted, settings):
    """Steered confidences, and those of the posterior once it ranks items, add up to an item's score."""
    asked = fitted.variant([*settings, "decoding.beam=16"])
    rows, listed = asked.explain(HISTORIES[0], k=3), asked.recommend(HISTORIES[:1], k=3)
    assert rows.unique("item_id", maintain_order=True)["item_id"].to_list() == listed["item_id"].to_list()
    told = rows.group_by("rank", maintain_order=True).agg(pl.col("confidence").log().sum())["confidence"].to_numpy()
    scores = listed["score"].to_numpy()
    if settings == ["decoding.opened=1"]:  # of two digits that items fill together, each has at least what both have
        first = rows.filter(pl.col("step") == 1)["confidence"].log().to_numpy()
        last = rows.filter(pl.col("step") == 2).group_by("rank", maintain_order=True).agg(pl.col("confidence").log().min())
        assert (first + last["confidence"].to_numpy() >= scores - 1e-3).all()
    else:
        assert told == pytest.approx(scores, abs=1e-3)
    assert ("ranked by their posterior" in asked.explanation_note()) == ("opened" in str(settings))


def test_it_explains_its_lists(fitted):
    assert fitted.explain(HISTORIES[0], k=2).height == 6
    assert fitted.beams(HISTORIES[0], k=3)["step"].max() >= 2
    assert len(fitted.digit_difficulty(HISTORIES[:2], ["item 5", "item 6"])) == 3


def test_a_backbone_by_recipe_is_fitted_first_with_the_seed_and_split_of_the_whole(toy):
    once = TRAINING | {"epochs": 1}
    found = steered(toy, {"transition": False}, once, seed=7, data={"split": "validation_only"})
    assert found.backbone.recipe.seed == 7 and found.backbone.recipe.data.split == "validation_only"
    assert not any("transition" in name for name in found.network.state_dict())


def test_a_run_goes_on_where_it_was(toy, tmp_path):
    recipe = Recipe(recommender="epic", model=SMALL_STEERING, training=TRAINING)
    whole = EpicRecommender(recipe).fit(toy, run_folder=tmp_path / "run", progress=False)
    (tmp_path / "run" / "last.ckpt").unlink()  # as if it had ended while the backbone was fitted
    again = EpicRecommender(recipe).fit(toy, run_folder=tmp_path / "run", resume=True, progress=False)
    assert again.recommend(HISTORIES).equals(whole.recommend(HISTORIES))


# ---- what does not go together ---------------------------------------------------------------------------------------


PAIRS = {"model": {"pairwise_rank": 2}, "objective": "catalogue_diffusion", "noising": "full_mask", "decoding": "one_pass"}


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"backbone": {"recommender": "popularity"}}, "the recommender 'popularity' does not rank by digits alone"),
        ({"backbone": {"recommender": "hybrid"}}, "the recommender 'hybrid' does not rank by digits alone"),
        (
            {"backbone": {"recommender": "autoregressive"}},
            "the model 'autoregressive' lacks .*digit_logits.*choose recommender=diffgrm with model.name=diffgrm or masked",
        ),
        ({"backbone": {"recommender": "nothing"}}, "(?s)model.backbone: .*unknown recommender 'nothing'"),
        ({"backbone": {"recipe": "worst"}}, "worst"),
        (
            {"backbone": {"recommender": "diffgrm", **PAIRS}},
            "pairs of digits would be left out by what steers",
        ),
        ({"backbone": {**TINY, "data": {"split": "temporal"}}}, r"model\.backbone: .* shares the split of the whole"),
        (
            {"transition": False, "attention_temperature": 1.0},
            "model.attention_temperature = 1.0 does nothing with model.transition = False",
        ),
        ({"name": "score_fusion"}, "needs a model with steered; 'score_fusion' has no steered"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_before_anything_is_fitted(toy, model, text):
    recipe = Recipe(recommender="epic", model=model)
    with pytest.raises(RecipeError, match=text):
        EpicRecommender(recipe).fit(toy, progress=False)


def test_its_network_is_of_no_use_to_other_recommenders_and_objectives(toy):
    with pytest.raises(RecipeError, match="the model 'epic' needs .*frozen, which the recommender 'diffgrm' does not have"):
        diffgrm.DiffGRMRecommender(
            Recipe(recommender="diffgrm", model={"name": "epic"}, objective={"name": "epic"})
        ).fit(toy, progress=False)  # fmt: skip
    with pytest.raises(RecipeError, match="answers as SteersDigits, which the objective 'diffusion' .* does not teach"):
        steered(toy, {}, objective={"name": "diffusion"}, decoding={"name": "any_order_beam"})


def test_to_learn_what_validation_does_not_see_is_refused(toy):
    with pytest.raises(RecipeError, match="decoding 'any_order_beam' ranks by the backbone alone, so that validation"):
        steered(toy, {}, decoding={"name": "any_order_beam"})


def test_a_run_does_not_go_on_with_another_backbone(backbone, toy, tmp_path):
    model = {**SMALL_STEERING, "backbone": backbone[0]}
    recipe = Recipe(recommender="epic", model=model, training=TRAINING)
    EpicRecommender(recipe).fit(toy, run_folder=tmp_path / "run", progress=False)
    other = diffgrm.load(backbone[0])
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.01)
    changed = recipe.override([f"model.backbone={other.save(tmp_path / 'other')}"])
    with pytest.raises(TrainingError, match="cannot resume: the checkpoint belongs to other data"):
        EpicRecommender(changed).fit(toy, run_folder=tmp_path / "run", resume=True, progress=False)


def test_backbones_of_other_events_are_refused(backbone, toy, tmp_path):
    with pytest.raises(DataError, match=r"model\.backbone: there is no model folder .*nowhere"):
        steered(toy, {"backbone": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="was not fitted on the training events of this split"):
        steered(toy, {"backbone": backbone[0]}, data={"split": "validation_only"})


def test_a_folder_of_a_stranger_is_checked(fitted, toy, tmp_path):
    other = resolve("recommender", "popularity")().fit(toy)
    wide = unfitted("diffgrm")
    wide = type(wide)(small_recipe("diffgrm").override(["model.width=16", "training.epochs=1"])).fit(toy, progress=False)

    def spoilt(state, text):
        folder = fitted.save(tmp_path / "model")
        state.save(folder / BACKBONE)
        rehash(folder)
        with pytest.raises(ModelFolderError, match=text):
            diffgrm.load(folder)

    spoilt(State({"../evil": np.zeros(3, dtype=np.uint8)}), "cannot have the files '../evil'")
    spoilt(State(packed(other)), "the recommender 'popularity' does not rank by digits alone")
    spoilt(State(packed(wide)), "model.safetensors does not fit the (recipe|files) beside it")


def test_a_backbone_runs_no_code_that_is_not_trusted(toy, tmp_path):
    own = {**TINY, "objective": {"name": "parts.ramped:RampedObjective"}, "training": TINY["training"] | {"epochs": 1}}
    found = steered(toy, {"backbone": own}, TRAINING | {"epochs": 1})
    folder = found.save(tmp_path / "model")
    with pytest.raises(ModelFolderError, match="names code that is not diffgrm's own: parts.ramped:RampedObjective"):
        diffgrm.load(folder)
    assert diffgrm.load(folder, trust_code=True).recommend(HISTORIES).equals(found.recommend(HISTORIES))


def test_items_removed_from_the_backbone_stay_removed_until_they_are_restored(backbone, toy, tmp_path):
    removed = [f"item {number}" for number in range(0, toy.n_items, 2)]
    folder = backbone[1].remove_items(removed).save(tmp_path / "fewer")
    found = steered(toy, {"backbone": str(folder)}, TRAINING | {"epochs": 1})
    assert not set(removed) & set(found.recommend(HISTORIES, k=50)["item_id"])
    assert set(removed) & set(found.restore_items(removed).recommend(HISTORIES, k=50)["item_id"])
