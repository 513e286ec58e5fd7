from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diffgrm.foundation.recipe import Recipe, apply_overrides
from diffgrm.foundation.registry import PARTS, names, resolve, settings
from diffgrm.foundation.schema import RecipeError

RECIPES = sorted((Path(__file__).resolve().parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_shipped_recipe_is_valid_and_survives_the_round_trip(path):
    recipe = Recipe.from_yaml(path)
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe


def test_the_best_recipe_is_the_default():
    assert Recipe.from_yaml(next(path for path in RECIPES if path.name == "best.yaml")) == Recipe()


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_shipped_recipes_build_their_parts(path):
    recipe = Recipe.from_yaml(path)
    tokenizer = recipe.tokenizer.build(seed=0)
    sizes = {"n_digits": tokenizer.n_digits, "codebook_size": tokenizer.codebook_size, "n_items": 5, "text_width": 7}
    network = recipe.model.build(**sizes)
    assert network.max_len == recipe.model.options["max_len"]
    recipe.noising.build()
    recipe.validation_decoder.build(seed=0)


def test_all_problems_are_told_at_once_with_hints():
    with pytest.raises(RecipeError) as error:
        Recipe(
            model={"widht": 64, "heads": 0},
            noising={"name": "confidnce"},
            training={"epochs": 0, "batchsize": 3},
            trainin={},
            tokenizer={"codebook_size": 100},
        )
    text = str(error.value)
    assert "model 'diffgrm' has no setting 'widht'; did you mean 'width'?" in text
    assert "model.heads = 0" in text
    assert "unknown noising 'confidnce'; did you mean 'confidence'?" in text
    assert "there is no setting 'training.batchsize'; did you mean 'batch_size'?" in text
    assert "there is no setting 'trainin'; did you mean 'training'?" in text
    assert "training.epochs = 0" in text
    assert "expected a power of two from 2 to 65536, found 100" in text


def test_overrides_reach_every_kind_of_setting():
    recipe = Recipe().override(["model.width=64", "noising.name=random", "seed=7", "training.loggers=[csv, tensorboard]"])
    assert recipe.model.options["width"] == 64
    assert recipe.noising.name == "random" and "order" not in recipe.noising.options
    assert recipe.seed == 7 and recipe.training.loggers == ("csv", "tensorboard")


def test_an_override_names_a_part_before_its_settings_whatever_the_order():
    recipe = Recipe().override(["noising.draw=k_of_n", "noising.name=random"])
    assert recipe.noising.options["draw"] == "k_of_n"


@pytest.mark.parametrize("text", ["model.width", "nonsense"])
def test_an_override_without_a_value_is_refused(text):
    with pytest.raises(RecipeError, match="section.key=value"):
        apply_overrides({}, [text])


def test_a_recipe_is_frozen():
    with pytest.raises(Exception, match="frozen"):
        Recipe().seed = 3


def test_settings_that_would_do_nothing_are_refused():
    with pytest.raises(RecipeError, match="'popularity' does not use model"):
        Recipe(recommender="popularity", model={"width": 8})
    assert "model" not in Recipe(recommender="popularity").to_dict()


def test_validation_decoding_is_checked_like_decoding():
    with pytest.raises(RecipeError, match="validation_decoding: decoding 'item_proposals' has no setting 'beem'"):
        Recipe(training={"validation_decoding": {"beem": 3}})
    assert Recipe(training={"validation_decoding": {"candidates": 3}}).validation_decoder.options["candidates"] == 3


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe file .*nowhere\.yaml"):
        Recipe.from_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="is not YAML"):
        Recipe.from_yaml(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="expected a mapping of sections, found list"):
        Recipe.from_yaml(tmp_path / "list.yaml")


def test_every_setting_is_explained():
    rows = list(Recipe().table())
    assert len(rows) > 40
    assert all(row.help for row in rows), [row.path for row in rows if not row.help]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in PARTS for name in names(kind)])
def test_registered_names_resolve_and_describe_their_settings(kind, name):
    assert isinstance(resolve(kind, name), type)
    assert all(setting.help for setting in settings(kind, name).values())


def test_a_class_of_ones_own_needs_no_registry_line(tmp_path, monkeypatch):
    (tmp_path / "my_lab.py").write_text(
        "from typing import Annotated\n"
        "from diffgrm.learning.noising.full_mask import FullMaskNoising\n"
        "class MyNoising(FullMaskNoising):\n"
        "    def __init__(self, strength: Annotated[float, 'how much'] = 0.5) -> None:\n"
        "        self.strength = strength\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = Recipe(noising={"name": "my_lab:MyNoising", "strength": 2})
    assert recipe.noising.build().strength == 2
    with pytest.raises(RecipeError, match=r"has no setting 'strenght'; did you mean 'strength'\?"):
        Recipe(noising={"name": "my_lab:MyNoising", "strenght": 2})
    with pytest.raises(RecipeError, match="has no class 'Nothing'"):
        Recipe(noising={"name": "my_lab:Nothing"})
    with pytest.raises(RecipeError, match="no module 'no_such_lab'"):
        Recipe(noising={"name": "no_such_lab:Nothing"})


def test_another_decoder_drops_what_was_meant_for_the_first():
    recipe = Recipe(training={"validation_decoding": {"candidates": 3}}).override(["decoding.name=one_pass"])
    assert recipe.validation_decoder.options == {"block": 65536}


def test_settings_of_validation_are_converted_like_the_others():
    assert Recipe(training={"validation_decoding": {"candidates": "32"}}).validation_decoder.options["candidates"] == 32


def test_overrides_may_come_from_an_iterator():
    assert Recipe().override(o for o in ["model.width=64"]).model.options["width"] == 64


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"training": {"epochs": 5, "validate_every": 2}}, "epochs 5 is not a multiple of training.validate_every 2"),
        ({"training": {"batch_size": 1, "devices": 2, "epochs": 1}}, "batch_size 1 is less than training.devices 2"),
        ({"evaluation": {"ks": [0]}}, "evaluation.ks.0 = 0"),
        ({"seed": 3_000_000_000}, "seed = 3000000000"),
    ],
)
def test_settings_that_would_fail_late_are_refused_early(settings, text):
    with pytest.raises(RecipeError, match=text):
        Recipe(**settings)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.from_yaml(tmp_path)
    (tmp_path / "r.yaml").write_text("1: 2")
    with pytest.raises(RecipeError, match="there is no setting '1'"):
        Recipe.from_yaml(tmp_path / "r.yaml")
