from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diffgrm.foundation.overrides import apply_overrides
from diffgrm.foundation.parts import as_part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError


def test_overrides_reach_every_kind_of_setting():
    recipe = Recipe().override(["model.width=64", "noising.name=random", "seed=7", "training.loggers=[csv, tensorboard]"])
    assert recipe.model.options["width"] == 64
    assert recipe.noising.name == "random" and "order" not in recipe.noising.options
    assert recipe.seed == 7 and recipe.training.loggers == ("csv", "tensorboard")


def test_overrides_reach_nested_parts_and_scorers():
    recipe = Recipe().override(["objective.digits.label_smoothing=0.3", "item_scoring.co_occurrence.weight=0"])
    assert recipe.objective.options["digits"].options["label_smoothing"] == 0.3
    assert recipe.objective.options["item_weight"] == 3
    assert recipe.item_scoring.scorers["co_occurrence"].options["weight"] == 0


def test_overrides_reach_what_only_the_defaults_name():
    wanted = ["objective.digits.label_smoothing=0.3", "item_scoring.new_items=null", "item_scoring.co_occurrence.weight=1"]
    recipe = Recipe.from_dict(apply_overrides({}, wanted))
    assert recipe == Recipe().override(wanted)
    assert recipe.objective.name == "joint" and recipe.objective.options["digits"].name == "diffusion"
    assert list(recipe.item_scoring.scorers) == ["vectors", "co_occurrence"]
    assert Recipe.from_dict(recipe.to_dict()) == recipe and recipe.to_dict()["item_scoring"]["new_items"] is None
    assert recipe.override(["item_scoring.new_items={}"]).item_scoring.scorers["new_items"].options["weight"] == 1.5


def test_parts_of_a_list_are_added_changed_and_taken_out_by_name():
    def branches(*overrides):
        return [part.name for part in Recipe.from_dict(apply_overrides({}, overrides)).model.options["branches"]]

    assert branches("model.branches.sid={}") == ["text", "id", "sid"] and branches("model.branches.id=null") == ["text"]
    assert branches("model.branches.0.name=sid") == ["sid", "id"] and branches("model.branches=[sid]") == ["sid"]
    assert Recipe().override(["model.branches.sid={}"]).override(["model.branches.sid=null"]) == Recipe()


def test_a_nested_part_that_gets_another_name_starts_anew_whatever_the_order():
    recipe = Recipe().override(["objective.digits.label_smoothing=0.3"])
    changed = recipe.override(["objective.digits=left_to_right", "noising=null"])
    assert changed.objective.options["digits"] == as_part("objective", "left_to_right")
    both = recipe.override(["objective.digits.label_smoothing=0", "objective.digits=left_to_right", "noising=null"])
    assert both.objective.options["digits"].name == "left_to_right"
    assert both.objective.options["digits"].options["label_smoothing"] == 0
    same = recipe.override(["objective.digits.name=diffusion"])
    assert same == recipe


def test_an_override_names_a_part_before_its_settings_whatever_the_order():
    recipe = Recipe().override(["noising.draw=k_of_n", "noising.name=random"])
    assert recipe.noising.options["draw"] == "k_of_n"


@pytest.mark.parametrize("text", ["model.width", "nonsense"])
def test_an_override_without_a_value_is_refused(text):
    with pytest.raises(RecipeError, match="section.key=value"):
        apply_overrides({}, [text])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed.x=3", "seed.x: 'seed' is a single setting, write seed=3"),
        ("model.width.x=3", "model.width.x: 'model.width' is a single setting, write model.width=3"),
        ("model.width={", "model.width: '{' is not a YAML value"),
    ],
)
def test_an_override_of_what_has_no_settings_is_refused(override, message):
    with pytest.raises(RecipeError) as error:
        Recipe().override([override])
    assert str(error.value) == message


def test_a_scorer_of_ones_own_is_overridden_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "own_lab").mkdir()
    (tmp_path / "own_lab" / "scorers.py").write_text(
        "from typing import Annotated\n"
        "class Mine:\n"
        "    def __init__(self, weight: Annotated[float, 'how much'] = 0.5) -> None:\n"
        "        self.weight = weight\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = Recipe().override(["item_scoring.own_lab.scorers:Mine={}"])
    assert recipe.item_scoring.scorers["own_lab.scorers:Mine"].options == {"weight": 0.5}
    changed = recipe.override(["item_scoring.own_lab.scorers:Mine.weight=2"])
    assert changed.item_scoring.scorers["own_lab.scorers:Mine"].build().weight == 2
    assert Recipe.from_dict(yaml.safe_load(changed.to_yaml())) == changed
    assert recipe.override(["item_scoring.own_lab.scorers:Mine=null"]) == Recipe()


def test_another_decoder_drops_what_was_meant_for_the_first():
    recipe = Recipe(training={"validation_decoding": {"candidates": 3}}).override(["decoding.name=one_pass"])
    assert recipe.validation_decoder.options == {"block": 65536, "new_items": 0.0}


def test_overrides_may_come_from_an_iterator():
    assert Recipe().override(o for o in ["model.width=64"]).model.options["width"] == 64


OVERRIDES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "objective.digits=left_to_right",
                "objective.digits={name: diffusion, label_smoothing: 0.2}",
                "objective=diffusion",
                "objective={name: joint, digits: {name: joint, digits: left_to_right}}",
                "model.branches=[sid]",
                "model.branches=[id, {name: sid}]",
                "decoding=one_pass",
                "decoding.name=any_order_beam",
                "item_scoring.new_items=null",
                "item_scoring.new_items={}",
                "item_scoring={}",
                "noising.name=random",
                "tokenizer.name=residual_kmeans",
                "training.loggers=[]",
                "noising=null",
                "item_loss=null",
                "model.branches.sid={}",
                "model.branches.text=null",
            ]
        ),
        st.builds("objective.digits.label_smoothing={}".format, st.floats(0, 0.99)),
        st.builds("item_scoring.co_occurrence.weight={}".format, st.floats(0, 9)),
        st.builds("model.width={}".format, st.integers(1, 512)),
        st.builds("training.patience={}".format, st.integers(1, 20)),
    ),
    max_size=6,
)


@given(OVERRIDES)
def test_recipes_survive_the_round_trip_whatever_is_overridden(overrides):
    try:
        recipe = Recipe().override(overrides)
    except RecipeError:  # for example a setting of a part that another override takes away
        return
    again = Recipe.from_dict(yaml.safe_load(recipe.to_yaml()))
    assert again == recipe and again.to_yaml() == recipe.to_yaml()
    assert recipe.override([]) == recipe
