from __future__ import annotations

import json
from typing import Annotated, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.foundation.overrides import apply_overrides
from diffgrm.foundation.parts import as_part, check_options, plain
from diffgrm.foundation.presets import preset_names
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.registry import names
from diffgrm.foundation.registry import settings as settings_of
from diffgrm.foundation.schema import RecipeError
from diffgrm.foundation.yaml_text import read_yaml, spelled


def test_overrides_reach_every_kind_of_setting():
    recipe = Recipe().override(["model.width=64", "noising.name=random", "seed=7", "training.loggers=[csv, tensorboard]"])
    assert recipe.model.options["width"] == 64
    assert recipe.noising.name == "random" and "order" not in recipe.noising.options
    assert recipe.seed == 7 and recipe.training.loggers == ("csv", "tensorboard")


@pytest.mark.parametrize("written", [32, "32"])
def test_a_precision_is_a_number_or_a_text(written):
    """The message on losses that are not finite recommends ``training.precision=32``, which YAML reads as a number."""
    for recipe in (Recipe().override([f"training.precision={written}"]), Recipe(training={"precision": written})):
        assert recipe.training.precision == "32" and Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe
    with pytest.raises(RecipeError, match=r"training.precision = 16: Input should be 'auto', '32' or 'bf16'"):
        Recipe().override(["training.precision=16"])


def test_every_text_that_a_setting_names_is_read_as_that_text_whatever_yaml_makes_of_it():
    found = 0
    for section in (field.annotation for field in Recipe.model_fields.values()):
        for key, field in getattr(section, "model_fields", {}).items():
            for text in texts_of(field.annotation):
                read = spelled(read_yaml(text), field.annotation)
                assert read == text and key, (section, key)
                found += 1
    for kind in ("embedding", "tokenizer", "model", "objective", "noising", "decoding", "scorer", "branch"):
        for name in names(kind):
            for setting in settings_of(kind, name).values():
                for text in texts_of(setting.hint):
                    assert spelled(read_yaml(text), setting.hint) == text, (kind, name, setting.name)
                    found += 1
    assert found > 50


def texts_of(hint):
    if get_origin(hint) is Literal:
        return [text for text in get_args(hint) if isinstance(text, str)]
    return [text for inner in get_args(hint) for text in texts_of(inner)]


class Switch:
    """A part of somebody's own whose words YAML reads as truth values and numbers."""

    def __init__(self, way: Annotated[Literal["on", "off", "1e3", "2", "["], "how"] = "off") -> None:
        self.way = way


@pytest.mark.parametrize("text", ["on", "off", "1e3", "2"])
def test_words_of_parts_of_ones_own_are_read_as_they_are_written(text):
    options, problems = check_options("noising", f"{__name__}:Switch", {"way": read_yaml(text)}, "noising")
    assert options == {"way": text} and not problems


def test_a_number_that_no_word_is_spelt_as_stays_a_number_in_messages():
    _, problems = check_options("noising", f"{__name__}:Switch", {"way": 3}, "noising")
    assert problems == ["noising.way = 3: Input should be 'on', 'off', '1e3', '2' or '['"]


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
    assert branches("model.branches.sid=null") == branches() == ["text", "id"]
    with pytest.raises(RecipeError, match="there is no part 'txet' to take out; did you mean 'text'"):
        branches("model.branches.txet=null")


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
        ("model.width={", "model.width: '{' is not a YAML value: while parsing a flow node"),
    ],
)
def test_an_override_of_what_has_no_settings_is_refused(override, message):
    with pytest.raises(RecipeError) as error:
        Recipe().override([override])
    assert str(error.value).splitlines()[0] == message


def test_a_scorer_of_ones_own_is_overridden_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "own_lab").mkdir()
    (tmp_path / "own_lab" / "scorers.py").write_text(
        "from typing import Annotated\n"
        "from diffgrm.ranking.item_scoring.new_items import NewItemScorer\n"
        "class Mine(NewItemScorer):\n"
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


def test_a_part_of_ones_own_in_a_list_is_overridden_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "own_nets" / "deep").mkdir(parents=True)
    (tmp_path / "own_nets" / "deep" / "branches.py").write_text(
        "from typing import Annotated\n"
        "from diffgrm.networks.item_vectors import IdBranch\n"
        "class Mine(IdBranch):\n"
        "    def __init__(self, start: Annotated[float, 'how large'] = 0.5) -> None:\n"
        "        self.start = start\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = "own_nets.deep.branches:Mine"
    recipe = Recipe(model={"branches": ["text", mine]}).override([f"model.branches.{mine}.start=2"])
    assert [(part.name, part.options) for part in recipe.model.options["branches"]] == [
        ("text", {}),
        (mine, {"start": 2.0}),
    ]
    assert recipe.override([f"model.branches.{mine}=null"]) == Recipe(model={"branches": ["text"]})
    assert recipe.override([f"model.branches.{mine}.start=0.5"]) == Recipe(model={"branches": ["text", mine]})


def test_another_decoder_drops_what_was_meant_for_the_first():
    recipe = Recipe(training={"validation_decoding": {"candidates": 3}}).override(["decoding.name=one_pass"])
    assert recipe.validation_decoder.options == {"block": 65536, "new_items": 0.0}


@pytest.mark.parametrize("raw", [{}, {"training": {"patience": 3}}, {"training": None}])
def test_one_setting_of_validation_decoding_leaves_the_others_of_the_recommender(raw):
    """A recipe from a file holds only what it says; one in Python holds all. A path means the same in both."""
    raw, override = {"recommender": "documents", **raw}, "training.validation_decoding.beam=16"
    assert Recipe.from_dict(raw).training.validation_decoding == {"beam": 32, "steps": 1}
    changed = Recipe.from_dict(apply_overrides(raw, [override]))
    assert changed.training.validation_decoding == {"beam": 16, "steps": 1}
    assert changed == Recipe.from_dict(raw).override([override]) and changed.validation_decoder.options["steps"] == 1
    whole = apply_overrides(raw, ["training.validation_decoding={beam: 16}"])
    assert Recipe.from_dict(whole).training.validation_decoding == {"beam": 16}


def test_a_setting_of_validation_decoding_is_of_the_decoder_that_another_override_names():
    changes = ["training.validation_decoding.block=512", "decoding.name=one_pass"]
    for recipe in (Recipe.preset("beauty-small", changes), Recipe.preset("beauty-small").override(reversed(changes))):
        assert recipe.training.validation_decoding == {"block": 512} and recipe.decoding.name == "one_pass"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.validation_decoding.baem=16",
            "training.validation_decoding: decoding 'any_order_beam' has no setting 'baem'; did you mean 'beam'?",
        ),
        (
            "training.validation_decoding.beam=0",
            "training.validation_decoding.beam = 0: Input should be greater than or equal to 1",
        ),
        ("training.validation_decodin.beam=16", "there is no setting 'training.validation_decodin'; did you mean"),
        (
            "training.validation_decoding.beam.x=1",
            "'training.validation_decoding.beam' is a single setting, write training.validation_decoding.beam=1",
        ),
        ("objective.label_smoothin=0", "objective 'diffusion' has no setting 'label_smoothin'; did you mean"),
        (
            "model.branches.sid.compos=sum",
            "model.branches.0: branch 'sid' has no setting 'compos'; did you mean 'compose'?",
        ),
    ],
)
def test_a_wrong_setting_of_what_is_nested_is_refused_with_its_path(override, message):
    with pytest.raises(RecipeError) as error:
        Recipe.preset("beauty-small", [override])
    assert message in str(error.value)


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_of_every_recipe_can_be_overridden_by_its_path(name):
    """Whatever the table of settings lists, nested parts and their settings among it, is a path that overrides reach."""
    recipe = Recipe.preset(name)
    wanted = [
        (row.path, plain(row.default)) for row in recipe.table() if row.type not in ("scorers", "list of parts (branch)")
    ]
    wanted += [(f"training.validation_decoding.{key}", value) for key, value in recipe.training.validation_decoding.items()]
    assert recipe.override([f"{path}={json.dumps(value)}" for path, value in wanted]) == recipe
    for path, value in [(path, value) for path, value in wanted if path.count(".") > 1]:
        assert Recipe.preset(name, [f"{path}={json.dumps(value)}"]) == recipe, path


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


@settings(deadline=None)
@given(OVERRIDES)
def test_recipes_survive_the_round_trip_whatever_is_overridden(overrides):
    try:
        recipe = Recipe().override(overrides)
    except RecipeError:  # for example a setting of a part that another override takes away
        return
    again = Recipe.from_dict(yaml.safe_load(recipe.to_yaml()))
    assert again == recipe and again.to_yaml() == recipe.to_yaml()
    assert recipe.override([]) == recipe
