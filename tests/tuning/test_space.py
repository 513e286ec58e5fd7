from __future__ import annotations

import pytest
import yaml

from diffgrm import Recipe
from diffgrm.apps.choosing import Range, combinations, read_options, without_end
from diffgrm.apps.tuning.plan import Plan
from diffgrm.apps.tuning.trials import _digits
from diffgrm.foundation.schema import RecipeError


def test_ranges_are_whole_where_all_that_is_said_of_them_is():
    assert Range(min=32, max=96, step=32).values() == [32, 64, 96]
    assert Range(min=0, max=0.3, step=0.1).values() == [0, 0.1, 0.2, 0.3]
    assert Range(min=0.1, max=0.3, step=0.2).values() == [0.1, 0.3]
    assert Range(min=1, max=3).whole and not Range(min=1, max=3, step=0.5).whole and not Range(min=1.0, max=3).whole
    assert read_options({"min": "1e-4", "max": "1e-2", "log": True}) == Range(min=1e-4, max=1e-2, log=True)  # YAML's 1e-4


def test_the_widest_range_can_be_drawn_from():
    assert _digits(Range(min=-1e300, max=1e300)) == 6


def test_combinations_are_the_product_of_lists_and_stepped_ranges():
    choose = {"a": ["x", {"name": "y"}], "b": Range(min=1, max=2, step=1)}
    assert combinations(choose) == [{"a": a, "b": b} for a in choose["a"] for b in (1, 2)]
    assert combinations({}) == [{}] and without_end({**choose, "c": Range(min=0.0, max=1.0)}) == ["c"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "expected a list of values, or a range"),
        (0.3, "expected a list of values, or a range such as {min: 0.1, max: 0.5}, found 0.3"),
        ({"min": 1}, "max: Field required"),
        ({"min": 1, "max": 2, "lgo": True}, "lgo: Extra inputs"),
        ({"min": 2, "max": 2}, "expected min < max, found min 2 and max 2"),
        ({"min": 0, "max": 1, "log": True}, "log needs min > 0, found 0"),
        ({"min": 1, "max": 3, "log": True, "step": 1}, "log and step do not go together"),
        ({"min": 1, "max": 4, "step": 2}, "steps of 2 do not lead from 1 to 4"),
        ({"min": 1, "max": 3, "step": 0}, "step: Input should be greater than 0"),
        ({"min": 0, "max": 1, "step": 1e-9}, "1,000,000,000 steps; expected at most 10,000"),
        ({"min": 0, "max": 1, "step": 5e-324}, "inf steps; expected at most 10,000"),
        ({"min": 0, "max": 1, "step": 1.5}, "steps of 1.5 do not lead from 0 to 1"),
        ({"min": 0, "max": 1, "step": 1e9}, "a step of 1000000000.0 leads from 0 beyond 1"),
        ({"min": 0, "max": 1, "step": float("inf")}, "a step of inf leads from 0 beyond 1"),
        ({"min": 0, "max": 1, "step": 10**400}, "leads from 0 beyond 1"),
        ({"min": -1e308, "max": 1e308}, r"expected numbers from -1e\+300 to 1e\+300, found min -1e\+308 and max 1e\+308"),
        ({"min": 0, "max": 10**400}, r"expected numbers from -1e\+300 to 1e\+300"),
        ({"min": 0, "max": float("nan")}, "expected min < max, found min 0"),
        ({"min": True, "max": 3}, "min, max and step are numbers"),
        ([yaml.safe_load("2020-01-01")], "quote a date"),
    ],
)
def test_what_is_no_list_and_no_range_is_told(options, text):
    with pytest.raises(ValueError, match=text.replace("{", r"\{")):
        read_options(options)
    with pytest.raises(RecipeError, match="choose.model.dropout: "):
        Plan.of(Recipe(), {"model.dropout": options})


@pytest.mark.parametrize(
    ("recipe", "choose", "how", "text"),
    [
        ({}, {}, {}, "nothing is to be chosen"),
        ({}, {"model.widht": [16, 32]}, {}, "model.widht=16: .*did you mean 'width'"),
        ({}, {"model.dropout": {"min": 0.1, "max": 1.5}}, {}, "model.dropout=1.5: "),
        (
            {"recommender": "sasrec"},
            {"item_loss.kind": ["softmax", "bce"], "item_loss.negatives": {"min": 8, "max": 9}},
            {},
            'item_loss.kind="softmax", item_loss.negatives=8: .*does nothing with item_loss.kind = softmax',
        ),
        ({}, {"data.split": ["temporal"]}, {}, "data.split cannot be chosen: trials that differ in it are not comparable"),
        ({}, {"events.min_rating": [3, 4]}, {}, "events.min_rating cannot be chosen"),
        ({}, {"training.validation_users": [9]}, {}, "training.validation_users cannot be chosen"),
        ({}, {"training": [{"epochs": 1, "validation_users": 5}]}, {}, "training.validation_users cannot be chosen"),
        ({"training": {"devices": 2}}, {"seed": [1]}, {}, "trials run in one process: set training.devices=1"),
        ({"recommender": "documents"}, {"seed": [1]}, {}, "does not learn from a table of events"),
        (
            {"recommender": "sasrec"},
            {"item_loss": [{"kind": "softmax"}, {"kind": "bce", "negatives": 8}], "item_loss.negatives": [4]},
            {},
            "item_loss.negatives is under choose:, and stands in values of item_loss there too; say it under one",
        ),
        ({}, {"seed": [1]}, {"pruning": "mean"}, "pruning is 'mean'; expected one of median, none"),
        ({}, {"seed": [1]}, {"startup": 0}, "startup is 0"),
    ],
)
def test_what_cannot_be_searched_is_told_before_anything_runs(recipe, choose, how, text):
    with pytest.raises(RecipeError, match=f"(?s)this cannot be searched:.*{text}"):
        Plan.of(Recipe.from_dict(recipe), choose, **how)


def test_many_combinations_are_looked_at_in_part():
    choose = {f"model.{key}": {"min": 1, "max": 2} for key in ("layers", "max_len")} | {"seed": list(range(1000))}
    assert len(Plan.of(Recipe(recommender="sasrec"), choose)._some_choices()) == 500


def test_the_space_stands_in_the_recipe_or_beside_it(tmp_path):
    recipe, space = tmp_path / "recipe.yaml", tmp_path / "space.yaml"
    recipe.write_text("recommender: item_knn\nchoose: {model.decay: [0.2, 0.9]}\n")
    space.write_text("model.decay: {min: 0.1, max: 0.9}\n")
    plan = Plan.from_files(recipe, None, ["model.neighbours=7"])
    assert plan.choose == {"model.decay": [0.2, 0.9]} and plan.recipe.model.options["neighbours"] == 7
    assert Plan.from_files("best", space_of(tmp_path, "model.dropout: [0.1]")).recipe == Recipe.preset("best")
    with pytest.raises(RecipeError, match="leave one out"):
        Plan.from_files(recipe, space)
    with pytest.raises(RecipeError, match="the recipe best says nothing under choose:, and there is no --space FILE"):
        Plan.from_files("best", None)
    with pytest.raises(RecipeError, match="there is no space file"):
        Plan.from_files("best", tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        Plan.from_files("best", space_of(tmp_path, "a: ["))
    with pytest.raises(RecipeError, match="choose: Input should be a valid dictionary|choose: expected a mapping"):
        Plan.from_files("best", space_of(tmp_path, "- a"))
    with pytest.raises(RecipeError, match="choose: says what diffgrm tune may choose, and a fit has one value a setting"):
        Recipe.from_yaml(recipe)


@pytest.mark.parametrize(
    ("recommender", "space", "override", "key"),
    [
        ("item_knn", "model.shrink: [0, 20]", "model.shrink=7", "model.shrink"),
        ("item_knn", "model.shrink: {min: 0, max: 20}", "model.shrink=7", "model.shrink"),
        ("item_knn", "model: [{shrink: 7, decay: 0.5}, {decay: 0.9}]", "model.shrink=7", "model"),
        ("item_knn", "model.shrink: [0, 20]", "model={decay: 0.2, shrink: 7}", "model.shrink"),
        ("diffgrm", "tokenizer.name: [opq, rq_vae]", "tokenizer.codebook_size=32", "tokenizer.name"),
        ("diffgrm", "decoding.name: [any_order_beam, one_pass]", "decoding.beam=9", "decoding.name"),
        (
            "hybrid",
            "item_scoring.co_occurrence: [null, {weight: 1}]",
            "item_scoring.co_occurrence={}",
            "item_scoring.co_occurrence",
        ),
    ],
)
def test_a_setting_that_is_to_hold_for_all_trials_is_refused_where_a_choice_would_undo_it(
    tmp_path, recommender, space, override, key
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"recommender: {recommender}\nchoose: {{{space}}}\n")
    with pytest.raises(RecipeError) as error:
        Plan.from_files(recipe, None, [override])
    assert f"{override} is to hold for all trials, but choose: has {key}, which would undo it" in str(error.value)


def test_a_setting_beside_what_is_chosen_holds_for_all_trials(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("recommender: item_knn\nchoose: {model.shrink: [0, 20]}\n")
    plan = Plan.from_files(recipe, None, ["model={decay: 0.2}", "model.neighbours=7"])
    for trial in map(plan.trial_recipe, plan._some_choices()):
        assert trial.model.options["decay"] == 0.2 and trial.model.options["neighbours"] == 7


@pytest.mark.parametrize(
    ("recipe", "choose", "overrides"),
    [
        (  # each of these goes with others of the other setting only
            {"recommender": "sasrec", "model": {"width": 128, "heads": 2}},
            {"model.width": [96, 192], "model.heads": [3, 6]},
            ["training.epochs=2"],
        ),
        ({"recommender": "item_knn"}, {"model.shrink": [0, 20]}, ["model.neighbours=5", "model.neighbours=7"]),
        ({"recommender": "item_knn"}, {"model.shrink": [0, 20]}, ["model={decay: 0.5}", "model={decay: 0.2}"]),
        ({"recommender": "diffgrm"}, {"seed": [1, 2]}, ["decoding.name=any_order_beam", "decoding=one_pass"]),
        ({"recommender": "hybrid"}, {"model.dropout": [0.1, 0.2]}, ["model.branches.0=null"]),
        (
            {"recommender": "hybrid"},
            {"item_scoring.co_occurrence": [None, {"weight": 1}]},
            ["item_scoring={co_occurrence: {weight: 2}}"],
        ),
    ],
)
def test_settings_that_no_choice_undoes_pass(tmp_path, recipe, choose, overrides):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "choose": choose}))
    assert Plan.from_files(path, None, overrides).choose == choose


def test_of_a_setting_that_is_said_twice_the_last_is_told(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("recommender: item_knn\nchoose: {model.shrink: [0, 20], model.decay: [0.2, 0.9]}\n")
    with pytest.raises(RecipeError) as error:
        Plan.from_files(path, None, ["model.shrink=5", "model.neighbours=9", "model.shrink=7"])
    (line,) = str(error.value).splitlines()[1:]
    assert "model.shrink=7 is to hold for all trials, but choose: has model.shrink, which would undo it" in line


def space_of(folder, text):
    path = folder / "other.yaml"
    path.write_text(text)
    return path
