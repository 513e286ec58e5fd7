"""A weighted sum of recommenders that were fitted apart."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

import diffgrm
from diffgrm import InteractionDataset, Recipe, evaluate, leave_one_out
from diffgrm.evaluation.metrics import selection_score
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, ModelFolderError, RecipeError, TrainingError
from diffgrm.foundation.storage import State
from diffgrm.recommenders.ensemble import EnsembleRecommender
from diffgrm.recommenders.packing import packed
from helpers.folders import rehash
from helpers.recipes import TINY, small_generation, small_recipe

HISTORIES = [["item 3", "item 77", "item 410"], ["item 9"], [f"item {i}" for i in range(40)]]


@pytest.fixture(scope="module")
def members(toy, tmp_path_factory):
    """Folders of an item scorer, of a method without gradients, and of one that decodes digits."""
    folder = tmp_path_factory.mktemp("members")
    return [
        str(resolve("recommender", name)(small_recipe(name)).fit(toy, progress=False).save(folder / name))
        for name in ("sasrec", "item_knn", "diffgrm")
    ]


def ensemble(toy, members, **settings):
    recipe = Recipe(recommender="ensemble", model={"members": list(members), **settings})
    return EnsembleRecommender(recipe).fit(toy, progress=False)


@pytest.mark.parametrize("scale", ["standardised", "log_softmax"])
def test_with_weight_1_it_is_the_first_model_and_with_weight_0_the_second(toy, members, scale):
    for weights, member in (((1, 0), 0), ((0, 1), 1), ((0, 0, 1), 2)):
        alone = diffgrm.load(members[member])
        found = ensemble(toy, members[: len(weights)], weights=weights, scale=scale)
        for more in ({}, {"exclude_seen": False}, {"without": ["item 5"]}, {"only": [f"item {i}" for i in range(30)]}):
            assert found.recommend(HISTORIES, k=9, **more).equals(alone.recommend(HISTORIES, k=9, **more))


def test_the_order_at_nearly_weight_1_is_that_of_the_first_model(toy, members):
    found = ensemble(toy, members[:2], weights=(1 - 1e-7, 1e-7)).recommend(HISTORIES, k=9)
    assert found["item_id"].equals(diffgrm.load(members[0]).recommend(HISTORIES, k=9)["item_id"])


@pytest.mark.parametrize("scale", ["standardised", "log_softmax"])
def test_scores_are_the_sum_written_out(toy, members, scale):
    found = ensemble(toy, members[:2], weights=(0.3, 0.7), scale=scale)
    table = found.recommend(HISTORIES, k=toy.n_items, exclude_seen=False)
    total = 0
    for member, weight in zip(members[:2], (0.3, 0.7), strict=True):
        everything = diffgrm.load(member).recommend(HISTORIES, k=toy.n_items, exclude_seen=False)
        score = pl.col("score").cast(pl.Float64)
        scaled = (score - score.mean()) / score.std(ddof=0) if scale == "standardised" else score - score.exp().sum().log()
        own = everything.with_columns(scaled=scaled.over("user_id"))
        total = total + weight * table.join(own, on=["user_id", "item_id"], maintain_order="left")["scaled"]
    np.testing.assert_allclose(table["score"], total, atol=1e-4)


def test_filters_do_not_change_the_order_of_what_is_left(toy, members):
    found = ensemble(toy, members[:2], weights=(0.5, 0.5))
    top = found.recommend(HISTORIES[:1], k=20)
    fewer = found.recommend(HISTORIES[:1], k=17, without=top["item_id"].to_list()[:3])
    assert fewer["item_id"].to_list() == top["item_id"].to_list()[3:]
    np.testing.assert_allclose(fewer["score"], top["score"][3:], atol=1e-5)


def test_the_surer_the_first_is_the_less_the_second_counts(toy, members):
    found = ensemble(toy, members[:2], weighting="certainty", sharpness=5.0, threshold=0.25)
    assert found.weights.tolist() == [5.0, 0.25]
    fusion = found.recipe.model.build()
    weights = fusion.user_weights(found.weights, np.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(weights[:, 1], 1 / (1 + np.exp(5 * (np.array([0, 0.25, 1]) - 0.25))))
    np.testing.assert_allclose(weights.sum(1), 1)
    for history in HISTORIES:
        first, second = (
            diffgrm.load(m).recommend([history], k=toy.n_items, exclude_seen=False).sort("item_id") for m in members[:2]
        )
        scores = [t["score"].cast(pl.Float64).to_numpy() for t in (first, second)]
        highest = np.exp(scores[0] - scores[0].max()).sum() ** -1
        weight = 1 / (1 + np.exp(5 * (highest - 0.25)))
        scaled = [(s - s.mean()) / s.std() for s in scores]
        wanted = (1 - weight) * scaled[0] + weight * scaled[1]
        table = found.recommend([history], k=toy.n_items, exclude_seen=False).sort("item_id")
        np.testing.assert_allclose(table["score"], wanted, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"weighting": "certainty"}], ids=str)
def test_weights_are_the_best_on_validation(toy, members, settings):
    """What is noted is what evaluation finds, and no other choice is better."""
    found, split = ensemble(toy, members[:2], **settings), leave_one_out(toy)

    def score(recommender):
        metrics = evaluate(recommender, split.validation, toy.items, split.item_counts).metrics
        return selection_score(metrics["ndcg@10"], metrics["recall@10"])

    assert score(found) == pytest.approx(found.facts["validation"]["val_score"], abs=1e-6)
    part = found.parts["weights"]
    chosen, scores = part.chosen, []
    for choice in found.recipe.model.build().choices(2):
        part.chosen = choice
        scores.append(score(found))
    part.chosen = chosen
    assert len(scores) == (24 if settings else 11) and max(scores) == pytest.approx(score(found), abs=1e-6)


def test_weights_may_be_chosen_on_some_users_only(toy, members):
    few, all_ = (ensemble(toy, members[:2], validation_users=users) for users in (9, None))
    metrics = evaluate(few, leave_one_out(toy).validation.sample(9, 0), toy.items, np.zeros(toy.n_items)).metrics
    assert metrics["ndcg@10"] == pytest.approx(few.facts["validation"]["val_ndcg@10"], abs=1e-6)
    assert few.facts["validation"] != all_.facts["validation"]


def test_three_members_share_tenths(toy, members):
    found = ensemble(toy, members, depth=20)
    assert found.weights.shape == (3,) and found.weights.sum() == pytest.approx(1)
    assert len(list(found.recipe.model.build().choices(3))) == 66
    assert found.recommend(HISTORIES, k=30).height == 90  # more than the members are asked for


def test_items_outside_of_a_list_have_its_lowest_score(toy, members):
    fusion = ensemble(toy, members[:2], weights=(0.5, 0.5)).recipe.model.build()
    found = fusion.scaled(np.array([[4, 1, 2], [0, 3, -1]]), np.array([[3.0, 2.0, 1.0], [5.0, 3.0, -np.inf]]), 5)
    high = np.sqrt(1.5)
    np.testing.assert_allclose(found, [[-high, 0, -high, -high, high], [1, -1, -1, -1, -1]], atol=1e-6)


def test_of_equal_scores_there_is_nothing_to_add(toy, members):
    fusion = ensemble(toy, members[:2], weights=(0.5, 0.5)).recipe.model.build()
    assert not fusion.scaled(np.array([[0, 1]]), np.array([[2.0, 2.0]]), 3).any()


def test_a_saved_ensemble_is_whole_without_the_folders_of_its_members(toy, members, tmp_path):
    found = ensemble(toy, members[:2], weights=(0.5, 0.5))
    for path in (folder := found.save(tmp_path / "model")).iterdir():
        assert members[0] not in path.read_bytes().decode("latin-1")
    again = diffgrm.load(folder)
    assert again.recommend(HISTORIES).equals(found.recommend(HISTORIES)) and again.recipe.model.options["members"] is None
    assert [m.recipe.recommender for m in again.members] == again.facts["members"] == ["sasrec", "item_knn"]
    with pytest.raises(RecipeError, match=r"model\.members is null, which says that a saved model holds them"):
        again.fit(toy)


def test_members_by_recipe_are_fitted_first_with_the_seed_and_split_of_the_ensemble(toy):
    mapping = {"recommender": "item_knn", "model": {"neighbours": 5}}
    recipe = Recipe(recommender="ensemble", seed=7, model={"members": [mapping, {"recommender": "random"}]})
    found = EnsembleRecommender(recipe.override(["data.split=validation_only"])).fit(toy, progress=False)
    first, second = found.members
    assert first.recipe.model.options["neighbours"] == 5 and first.recipe.data.split == "validation_only"
    assert (first.recipe.seed, second.recipe.seed) == (7, 7)


def test_the_shipped_one_is_of_the_default_and_of_generation_alone(toy, tmp_path):
    raw = Recipe.preset("ensemble-best").to_dict()
    assert raw["model"]["members"] == [{"recipe": "best"}, {"recipe": "generative-best"}]
    small = [small_recipe("hybrid"), small_generation("embedding.scorers=2", "objective.teacher_weight=0.9")]
    sizes = [{k: v for k, v in recipe.to_dict().items() if k not in ("data", "events", "seed")} for recipe in small]
    raw["model"]["members"] = [member | own for member, own in zip(raw["model"]["members"], sizes, strict=True)]
    found = EnsembleRecommender(Recipe.from_dict(raw)).fit(toy, progress=False)
    assert found.facts["members"] == ["hybrid", "diffgrm"] and sum(found.facts["weights"]) == pytest.approx(1)
    again = diffgrm.load(found.save(tmp_path / "model"))
    assert again.recommend(HISTORIES).equals(found.recommend(HISTORIES))


# ---- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"members": []}, "model.members names 0 recommenders; an ensemble needs two or more"),
        ({"weights": [0.5, 0.6]}, "model.weights add up to 1.1; expected 1"),
        ({"weights": [1.0]}, "model.weights has 1 numbers for 2 members"),
        (
            {"weighting": "certainty", "weights": [0.5, 0.5]},
            r"model.weights = \(0.5, 0.5\) does nothing with model.weighting",
        ),
        ({"sharpness": 2.0}, "model.sharpness = 2.0 does nothing with model.weighting = constant"),
        (
            {"weights": [0.5, 0.5], "validation_users": 9},
            "model.validation_users does nothing where the recipe says the weights",
        ),
        ({"threshold": 0.3}, "model.threshold = 0.3 does nothing with model.weighting = constant"),
        ({"members": [{"recommender": "random"}] * 3, "weighting": "certainty"}, "is between two members, found 3"),
        ({"members": [{"recommender": "random"}, {"recommender": "nothing"}]}, "unknown recommender 'nothing'"),
        ({"members": [{"recommender": "random"}, {"recommender": "random", "data": {}}]}, "shares the split of the whole"),
        ({"members": [{"recommender": "random"}, {"recipe": "worst"}]}, "worst"),
        ({"name": "item_knn"}, "needs a model with scaled, choices; 'item_knn' has no scaled"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_before_anything_is_fitted(toy, settings, text):
    settings = (
        settings
        if "name" in settings
        else {"members": [{"recommender": "random"}, {"recommender": "popularity"}], **settings}
    )
    with pytest.raises(RecipeError, match=text):
        EnsembleRecommender(Recipe(recommender="ensemble", model=settings)).fit(toy, progress=False)


def test_members_of_other_events_or_items_are_refused(toy, members, tmp_path):
    with pytest.raises(DataError, match=r"model\.members: there is no model folder .*nowhere"):
        ensemble(toy, [members[0], str(tmp_path / "nowhere")])
    with pytest.raises(DataError, match="was not fitted on the training events of this split"):
        EnsembleRecommender(
            Recipe(recommender="ensemble", model={"members": members[:2]}, data={"split": "validation_only"})
        ).fit(toy, progress=False)
    other = InteractionDataset.from_tables(
        toy.event_table(), pl.concat([toy.item_table, toy.item_table[:1].with_columns(item_id=pl.lit("z"))])
    )
    with pytest.raises(DataError, match="knows other items than this dataset has .*z"):
        ensemble(other, members[:2])


def test_a_folder_of_a_stranger_is_checked(toy, members, tmp_path):
    found = ensemble(toy, members[:2], weights=(0.5, 0.5))
    table = toy.item_table.filter(pl.col("item_id").is_in([f"item {i}" for i in range(100)]))
    few = toy.event_table().filter(pl.col("item_id").is_in(table["item_id"].implode()))
    other = resolve("recommender", "popularity")().fit(InteractionDataset.from_tables(few, table))

    def spoilt(name, state, text):
        folder = found.save(tmp_path / "model")
        if state is None:
            (folder / name).unlink()
            manifest = folder / "manifest.json"
            manifest.write_text(manifest.read_text().replace(f'"{name}"', '"recipe.yaml"'))
        else:
            save_file(state.arrays, folder / name, metadata={"facts": json.dumps(state.facts)})
        rehash(folder)
        with pytest.raises(ModelFolderError, match=text):
            diffgrm.load(folder)

    spoilt("weights.safetensors", State({"chosen": np.array([0.5, np.nan])}), "chosen should hold finite numbers")
    spoilt(
        "weights.safetensors", State({"chosen": np.array([0.5, 0.3, 0.2])}), "of the shape .3,.; expected float64 of .2,."
    )
    spoilt("member-1.safetensors", State({"../evil": np.zeros(3, dtype=np.uint8)}), "cannot have the files '../evil'")
    spoilt("member-1.safetensors", State({"recipe.yaml": np.zeros(3, dtype=np.uint8)}), "it has no manifest.json")
    spoilt("member-1.safetensors", State(packed(other)), "knows 100 items, but there are 480")


def test_a_member_runs_no_code_that_is_not_trusted(toy, members, tmp_path):
    """A class of others inside of a member is refused like one of the ensemble's own, and named."""
    own = {**TINY, "objective": {"name": "parts.ramped:RampedObjective"}}
    found = EnsembleRecommender(
        Recipe(recommender="ensemble", model={"members": [members[1], own], "weights": [0.5, 0.5]})
    ).fit(toy, progress=False)
    folder = found.save(tmp_path / "model")
    with pytest.raises(ModelFolderError, match="names code that is not diffgrm's own: parts.ramped:RampedObjective"):
        diffgrm.load(folder)
    assert diffgrm.load(folder, trust_code=True).recommend(HISTORIES).equals(found.recommend(HISTORIES))
    with pytest.raises(DataError, match="names code that is not diffgrm's own: parts.ramped:RampedObjective"):
        ensemble(toy, [members[1], str(found.members[1].save(tmp_path / "member"))])


def test_an_ensemble_may_be_a_member(toy):
    """None of its members has a network whose parameters could be counted."""
    inner = {"recommender": "ensemble", "model": {"members": [{"recommender": "item_knn"}, {"recommender": "popularity"}]}}
    found = ensemble(toy, [inner, {"recommender": "item_knn"}], weights=(0.5, 0.5))
    assert found.facts["parameters"] is None and found.recommend(HISTORIES, k=3).height == 9


@pytest.mark.parametrize("weights", [(1, 0), (0.5, 0.5), (0, 1)])
def test_items_removed_from_a_member_stay_removed_until_they_are_restored(weights, toy, members, tmp_path):
    removed = [f"item {number}" for number in range(0, toy.n_items, 3)]
    folders = [members[0], str(diffgrm.load(members[2]).remove_items(removed).save(tmp_path / "fewer"))]
    found = ensemble(toy, folders, weights=weights)
    assert not set(removed) & set(found.recommend(HISTORIES, k=100)["item_id"])
    saved = diffgrm.load(found.save(tmp_path / "ensemble"))
    assert saved.recommend(HISTORIES, k=100).equals(found.recommend(HISTORIES, k=100))
    whole = ensemble(toy, [members[0], members[2]], weights=weights)
    assert saved.restore_items(removed).recommend(HISTORIES, k=100).equals(whole.recommend(HISTORIES, k=100))


def test_members_that_recommend_no_item_together_are_refused(toy, members, tmp_path):
    ids = toy.items.series
    halves = [diffgrm.load(members[1]).remove_items(ids[start::2]).save(tmp_path / str(start)) for start in (0, 1)]
    with pytest.raises(DataError, match="no item is left that all members recommend; restore some"):
        ensemble(toy, map(str, halves), weights=(0.5, 0.5))


@pytest.mark.parametrize("run", [None, "run"])
def test_nothing_that_was_not_begun_is_resumed(run, toy, members, tmp_path):
    said = "no run folder is named; pass run_folder=" if run is None else "no checkpoint .*last.ckpt; start without resume"
    folder = None if run is None else tmp_path / run
    recipe = Recipe(recommender="ensemble", model={"members": members[:2], "weights": (0.5, 0.5)})
    for one in (recipe, Recipe(recommender="item_knn"), Recipe.from_dict(TINY)):
        with pytest.raises(TrainingError, match=f"cannot resume: .*{said}"):
            resolve("recommender", one.recommender)(one).fit(toy, run_folder=folder, resume=True, progress=False)
