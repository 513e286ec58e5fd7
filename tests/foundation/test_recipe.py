from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffgrm.foundation.moved import MOVED
from diffgrm.foundation.parts import as_part
from diffgrm.foundation.presets import FOLDER, preset_names, preset_summary, preset_text
from diffgrm.foundation.recipe import Recipe, rows_of_other_parts
from diffgrm.foundation.registry import PARTS, constant, names, resolve, settings
from diffgrm.foundation.schema import RecipeError


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_recipe_is_valid_and_survives_the_round_trip(name):
    recipe = Recipe.preset(name)
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe
    assert Recipe.from_yaml(FOLDER / f"{name}.yaml") == Recipe.from_yaml(name) == recipe
    assert len(preset_summary(name)) > 20
    assert preset_text(name).splitlines()[0].endswith((".", ":")), "a list of recipes would end in mid-sentence"


@pytest.mark.parametrize("name", [*names("recommender"), *names("retriever")])
def test_the_defaults_of_every_recommender_are_valid_and_survive_the_round_trip(name):
    recipe = Recipe(recommender=name)
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe


def test_there_are_defaults_for_recommenders_and_retrievers_only():
    doors = {*names("recommender"), *names("retriever")}
    assert {path.stem for path in (FOLDER / "defaults").glob("*.yaml")} <= doors


def test_the_best_recipe_is_the_default():
    assert Recipe.preset("best") == Recipe() == Recipe(recommender="hybrid")


@pytest.mark.parametrize("name", [name for name in preset_names() if "training" in Recipe.preset(name).sections])
def test_shipped_recipes_build_their_parts(name):
    recipe = Recipe.preset(name)
    tokenizer = recipe.tokenizer.build(seed=0)
    sizes = {"n_digits": tokenizer.n_digits, "codebook_size": tokenizer.codebook_size, "n_items": 5, "text_width": 7}
    known = inspect.signature(resolve("model", recipe.model.name)).parameters
    given, first = {size: value for size, value in sizes.items() if size in known}, recipe
    if "frozen" in known:  # what another recipe makes
        first = Recipe.preset(recipe.model.options["backbone"]["recipe"])
        given["frozen"] = first.model.build(n_digits=sizes["n_digits"], codebook_size=sizes["codebook_size"])
    network = recipe.model.build(**given)
    assert network.max_len == first.model.options["max_len"]
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


@pytest.mark.parametrize("name", ["diffgrm", "sasrec", "popularity"])
def test_settings_that_are_given_come_before_those_of_the_recommender(name):
    recipe = Recipe(recommender=name, data={"split": "temporal"})
    assert recipe.data.split == "temporal" and recipe.recommender == name


def test_the_sections_of_a_recipe_are_those_of_its_recommender_and_objective():
    assert {"noising", "item_loss", "item_scoring", "objective"} <= set(Recipe().sections)
    assert "noising" not in Recipe(objective={"digits": "left_to_right"}).sections
    diffgrm = Recipe(recommender="diffgrm")
    assert "noising" in diffgrm.sections and not {"item_loss", "item_scoring"} & set(diffgrm.sections)
    assert {"item_loss", "objective"} < set(Recipe(recommender="sasrec").sections)
    assert "noising" not in Recipe(recommender="sasrec").sections


def test_the_paper_method_has_the_constructors_settings():
    recipe = Recipe(recommender="diffgrm")
    assert recipe.model == as_part("model", "diffgrm") and recipe.objective == as_part("objective", "diffusion")
    assert recipe.training.validation_users == 5000 and recipe.validation_decoder.options["beam"] == 32
    assert Recipe(recommender="diffgrm", decoding="one_pass").validation_decoder.name == "one_pass"
    assert Recipe(recommender="diffgrm", training={"validation_decoding": {}}).validation_decoder == recipe.decoding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"objective": {"digits": "difusion"}},
            "objective.digits: unknown objective 'difusion'; did you mean 'diffusion'? "
            "(or give your own class as 'module:Class')",
        ),
        (
            {"objective": {"digits": {"label_smooth": 0}}},
            "objective.digits: objective 'diffusion' has no setting 'label_smooth'; did you mean 'label_smoothing'?",
        ),
        (
            {"objective": {"digits": {"label_smoothing": 2}}},
            "objective.digits.label_smoothing = 2: Input should be less than 1",
        ),
        (
            {"objective": {"label_smoothing": 0}},
            "objective 'joint' has no setting 'label_smoothing'; did you mean 'objective.digits.label_smoothing'?",
        ),
        (
            {"model": {"branches": ["id", {"name": "text", "start": 1}]}},
            "model.branches.1: branch 'text' has no setting 'start'; it has none",
        ),
        ({"embedding": {"columns": "brand"}}, "embedding.columns = 'brand': expected a list, such as [a, b]"),
        ({"training": {"loggers": "csv"}}, "training.loggers = 'csv': expected a list, such as [a, b]"),
        ({"semantic_ids": "share"}, "semantic_ids = 'share': expected a mapping from settings to their values"),
        (
            {"objective": {"digits": 3}},
            "objective.digits: expected a name or a mapping with 'name' and settings, found 3",
        ),
        (
            {"model": {"branches": ["sid", "txt"]}},
            "model.branches.1: unknown branch 'txt'; did you mean 'text'? (or give your own class as 'module:Class')",
        ),
        (
            {"model": {"branches": "sid"}},
            "model.branches: expected a list of parts (branch), each a name or a mapping with 'name', found 'sid'",
        ),
        (
            {"model": {"branches": [{"start": 1}]}},
            "model.branches.0: which branch? Give its 'name': sid, text, id, aligned_id, or module:Class",
        ),
        (
            {"model": {"branches": {"txt": {}}}},
            "model.branches.2: unknown branch 'txt'; did you mean 'text'? (or give your own class as 'module:Class')",
        ),
        (
            {"item_scoring": {"vector": {}}},
            "item_scoring.vector: unknown scorer 'vector'; did you mean 'vectors'? "
            "(or give your own class as 'module:Class')",
        ),
        (
            {"item_scoring": {"co_ocurrence": None}},
            "item_scoring.co_ocurrence: unknown scorer 'co_ocurrence'; did you mean 'co_occurrence'? "
            "(or give your own class as 'module:Class')",
        ),
        ({"trainning": None}, "there is no setting 'trainning'; did you mean 'training'?"),
        (
            {"item_scoring": {"co_occurrence": {"wieght": 1}}},
            "item_scoring.co_occurrence: scorer 'co_occurrence' has no setting 'wieght'; did you mean 'weight'?",
        ),
        (
            {"item_scoring": {"co_occurrence": 2}},
            "item_scoring.co_occurrence: expected a mapping of its settings ({}: its defaults) or null, found 2",
        ),
        (
            {"item_scoring": ["vectors"]},
            "item_scoring: expected a mapping from scorers to their settings, found ['vectors']",
        ),
        (
            {"recommender": "hybird"},
            "unknown recommender 'hybird'; did you mean 'hybrid'? (or give your own class as 'module:Class')",
        ),
    ],
)
def test_what_is_wrong_in_nested_settings_is_told_with_its_path(settings, message):
    with pytest.raises(RecipeError) as error:
        Recipe(**settings)
    assert str(error.value) == f"the recipe has problems:\n  - {message}"


def test_a_recipe_is_frozen():
    with pytest.raises(Exception, match="frozen"):
        Recipe().seed = 3


def test_settings_that_would_do_nothing_are_refused():
    with pytest.raises(RecipeError, match="'popularity' does not use model"):
        Recipe(recommender="popularity", model={"width": 8})
    assert "model" not in Recipe(recommender="popularity").to_dict()
    with pytest.raises(RecipeError, match="'diffgrm' with the objective 'diffusion' does not use item_loss, item_sc"):
        Recipe(recommender="diffgrm", item_scoring={"vectors": {}}, item_loss={"kind": "bce"})
    with pytest.raises(RecipeError, match="validation_decoding: the recommender 'sasrec' decodes nothing; leave it out"):
        Recipe(recommender="sasrec", training={"validation_decoding": {"beam": 3}})


def test_settings_that_moved_are_told_where_to():
    with pytest.raises(RecipeError) as error:
        Recipe(loss={"reduction": "token_mean", "share": 0.2, "scale": 1}, decoding={"beam": 3, "new_items": 1})
    assert str(error.value).splitlines() == [
        "the recipe has problems:",
        "  - decoding 'item_proposals' has no setting 'beam'; known: candidates, weight",
        "  - decoding 'item_proposals' has no setting 'new_items'; it is now 'item_scoring.new_items.weight' of "
        "recommender=hybrid (see 'What moved in 0.2' in CHANGELOG.md)",
        "  - there is no setting 'loss.reduction'; it is now 'objective.digits.reduction' of recommender=hybrid, "
        "'objective.reduction' where digits are learnt alone (see 'What moved in 0.2' in CHANGELOG.md)",
        "  - there is no setting 'loss.share'; it is now 'objective.digit_fraction' of recommender=hybrid "
        "(see 'What moved in 0.2' in CHANGELOG.md)",
        "  - there is no setting 'loss.scale'",
    ]
    with pytest.raises(RecipeError, match="no recipe file recipes/best.yaml; that recipe ships with .*its name, best"):
        Recipe.from_yaml("recipes/best.yaml")


def test_the_changelog_says_where_every_moved_setting_is():
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    _, _, section = changelog.partition("## What moved in 0.2")
    assert section and all(f"`{path}`" in section for path in MOVED)


def test_changed_settings_that_do_nothing_beside_the_others_are_refused_before_fitting():
    recipe = Recipe(
        item_loss={"kind": "softmax", "negatives": 8, "logq": False},
        data={"test_share": 0.2},
        noising={"name": "random", "p": 0.3},
    )
    with pytest.raises(RecipeError) as error:
        recipe.refuse_idle()
    assert str(error.value).splitlines()[1:] == [
        "  - data.test_share = 0.2 does nothing with data.split = leave_one_out; leave it out, or set data.split to "
        "temporal",
        "  - noising.p = 0.3 does nothing with noising.draw = uniform_t; leave it out, or set noising.draw to fixed_p",
        "  - item_loss.negatives = 8 does nothing with item_loss.kind = softmax; leave it out, or set item_loss.kind to "
        "sampled_softmax or bce or gbce",
        "  - item_loss.logq = False does nothing with item_loss.kind = softmax; leave it out, or set item_loss.kind to "
        "sampled_softmax",
    ]
    Recipe(item_loss={"kind": "softmax"}).refuse_idle()  # 4,096 negatives are the recommender's, and nobody's wish
    Recipe(data={"split": "temporal", "test_share": 0.2}, item_loss={"kind": "bce", "negatives": 8}).refuse_idle()


def test_settings_of_scorers_that_do_nothing_are_refused_too():
    path = "item_scoring.parts.odd_scorer:Choosy"
    with pytest.raises(RecipeError, match=f"{path}.weight = 0.5 does nothing with {path}.says = 0; leave it out"):
        Recipe().override([f"{path}.weight=0.5"]).refuse_idle()
    Recipe().override([f"{path}.weight=0.5", f"{path}.says='nan'"]).refuse_idle()


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.patience=on", "True"),
        ("training.learning_rate=true", "True"),
        ("training.validation_users=yes", "True"),
        ("training.validation_decoding.beam=true", "True"),
        ("seed=false", "False"),
        ("tokenizer.n_digits=true", "True"),
        ("model.branches.id.start=true", "True"),
        ("item_scoring.co_occurrence.weight=false", "False"),
        ("evaluation.ks=[5, true]", "[5, True]"),
    ],
)
def test_truth_values_are_no_numbers(override, value):
    with pytest.raises(RecipeError) as error:
        Recipe(decoding="any_order_beam").override([override])
    assert f"= {value}: expected a number, found a truth value (true, false, yes, no, on or off)" in str(error.value)


def test_what_else_stands_for_a_number_still_does():
    same = ["training.learning_rate=1", "training.patience=5.0", "training.ema_decay=0", "evaluation.ks=[5]"]
    recipe = Recipe().override([*same, "item_loss.cosine=yes", "training.precision=32", "training.validation_users=null"])
    assert (recipe.training.learning_rate, recipe.training.patience, recipe.evaluation.ks) == (1.0, 5, (5,))
    assert recipe.item_loss.cosine is True and recipe.training.precision == "32"
    assert Recipe(training={"patience": "5"}).training.patience == 5


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in PARTS for name in names(kind)])
def test_what_is_idle_beside_what_is_said_of_settings_that_a_part_has(kind, name):
    rules = [*constant(kind, name, "only_with", ()), *constant(kind, name, "not_with", ())]
    named = {setting for key, other, _ in rules for setting in (key, other)}
    assert named <= set(settings(kind, name))


@pytest.mark.parametrize("name", [*names("recommender"), *names("retriever"), *preset_names()])
def test_no_recipe_of_ours_has_settings_that_do_nothing(name):
    recipe = Recipe.preset(name) if name in preset_names() else Recipe(recommender=name)
    assert recipe.refuse_idle() is None


SWITCHED_OFF = {
    "rpg": (["decoding.edges=null", "decoding.rounds=2"], "decoding.rounds = 2 does nothing with decoding.edges = null"),
    "epic": (
        ["decoding={name: item_posterior, gate: 0, clip: 3}"],
        "decoding.clip = 3.0 does nothing with decoding.gate = 0.0",
    ),
    "paper-beauty": (["decoding.order=fixed", "decoding.merge=sum_paths"], "decoding.merge = sum_paths does nothing with"),
    "maskgr": (["tokenizer={name: opq, rotate: false, iterations: 9}"], "tokenizer.iterations = 9 does nothing with"),
    "sprint": (
        ["tokenizer={name: opq, n_digits: 1, iterations: 9}"],
        "tokenizer.iterations = 9 does nothing with tokenizer.n_digits = 1",
    ),
    "llada-rec": (
        ["noising={name: random, draw: fixed_p, p: 0.3, all_masked: 1}"],
        "noising.p = 0.3 does nothing with noising.all_masked = 1",
    ),
    "mdgr": (
        ["training.validation_decoding={beam: 16, group: even, after: 3}"],
        "training.validation_decoding.after = 3 does nothing with training.validation_decoding.group = even",
    ),
}


@pytest.mark.parametrize("preset", SWITCHED_OFF)
def test_what_another_setting_switches_off_is_refused(preset):
    overrides, message = SWITCHED_OFF[preset]
    with pytest.raises(RecipeError, match=message):
        Recipe.preset(preset).override(overrides).refuse_idle()


def test_validation_decoding_is_checked_like_decoding():
    with pytest.raises(RecipeError, match="validation_decoding: decoding 'item_proposals' has no setting 'beem'"):
        Recipe(training={"validation_decoding": {"beem": 3}})
    assert Recipe(training={"validation_decoding": {"candidates": 3}}).validation_decoder.options["candidates"] == 3


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe file .*nowhere\.yaml"):
        Recipe.from_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="cannot be read as YAML"):
        Recipe.from_yaml(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="expected a mapping of sections, found list"):
        Recipe.from_yaml(tmp_path / "list.yaml")


def test_a_name_without_a_suffix_is_a_recipe_that_ships_unless_there_is_such_a_file(tmp_path, monkeypatch):
    with pytest.raises(RecipeError) as error:
        Recipe.from_yaml("bst")
    listed = ", ".join(preset_names())
    assert str(error.value) == f"there is no recipe 'bst'; did you mean 'best'? Recipes that ship with diffgrm: {listed}"
    with pytest.raises(RecipeError, match=rf"there is no recipe 'zzz'; known: {listed}$"):
        Recipe.preset("zzz")
    assert Recipe.from_yaml("best", ["seed=4"]) == Recipe.preset("best", ["seed=4"]) == Recipe(seed=4)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best").write_text("recommender: popularity")
    assert Recipe.from_yaml("best").recommender == "popularity"


def test_the_table_lists_nested_settings_and_scorers():
    paths = [row.path for row in Recipe().table()]
    assert {"objective.digits.name", "objective.digits.label_smoothing", "item_scoring", "model.branches"} < set(paths)
    assert "item_scoring.co_occurrence.weight" in paths and len(set(paths)) == len(paths)
    others = {row.path for row in rows_of_other_parts(Recipe(recommender="diffgrm"))}
    assert "item_scoring.new_items.weight" in others and "objective.item_weight" in others


def test_every_setting_is_explained():
    rows = [*Recipe().table(), *rows_of_other_parts(Recipe())]
    assert len(rows) > 40
    assert all(row.help for row in rows), [row.path for row in rows if not row.help]


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


def test_errors_inside_a_module_of_ones_own_are_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_lab.py").write_text("import math\nmath.nothing\n")
    (tmp_path / "hollow_lab.py").write_text("import hollow\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "unwritten_lab.py").write_text("def (:\n")
    (tmp_path / "deep_lab.py").write_text("import json\n\njson.loads('nope')\n")
    where = r"importing broken_lab fails: AttributeError in .*broken_lab.py, line 2: .*nothing"
    with pytest.raises(RecipeError, match=f"noising 'broken_lab:Mine': {where}"):
        Recipe(noising={"name": "broken_lab:Mine"})
    with pytest.raises(RecipeError, match="importing hollow_lab fails: ModuleNotFoundError in .*No module named 'hollow'"):
        Recipe(noising={"name": "hollow_lab:Mine"})
    with pytest.raises(RecipeError, match="importing deep_lab fails: JSONDecodeError in .*deep_lab.py, line 3"):
        Recipe(noising={"name": "deep_lab:Mine"})
    with pytest.raises(RecipeError, match="importing unwritten_lab fails: SyntaxError in .*unwritten_lab.py, line 1"):
        Recipe(noising={"name": "unwritten_lab:Mine"})


@pytest.mark.parametrize("name", [".lab:Mine", ":Mine", "lab:", "my lab:Mine", "lab:Mi ne", "lab::Mine"])
def test_a_name_that_is_no_path_of_a_class_is_told(name):
    with pytest.raises(RecipeError, match="unknown scorer|is no class of one's own; write 'module:Class'"):
        Recipe(item_scoring={name: {}})


@pytest.mark.parametrize(
    ("kind", "name", "base"),
    [
        ("tokenizer", "diffgrm.semantic_ids.embeddings.lsa:LSA", "diffgrm.semantic_ids.tokenizers.base.Tokenizer"),
        (
            "embedding",
            "diffgrm.semantic_ids.tokenizers.opq:OPQTokenizer",
            "diffgrm.semantic_ids.embeddings.base.ItemEncoder",
        ),
        ("noising", "json:loads", "diffgrm.learning.noising.base.NoisingSchedule"),
        ("model", "json:JSONDecoder", "torch.nn.Module"),
        ("recommender", "collections:Counter", "diffgrm.recommenders.base.Recommender"),
    ],
)
def test_a_class_of_another_kind_is_refused_with_what_it_would_derive_from(kind, name, base):
    with pytest.raises(RecipeError, match=f"'{name}' is no {kind}; write a class that derives from {base}"):
        resolve(kind, name)


def test_a_setting_of_a_kind_that_no_recipe_can_hold_is_told(tmp_path, monkeypatch):
    (tmp_path / "array_lab.py").write_text(
        "from typing import Annotated\n"
        "import numpy as np\n"
        "from diffgrm.learning.noising.full_mask import FullMaskNoising\n"
        "class Mine(FullMaskNoising):\n"
        "    def __init__(self, at: Annotated[np.ndarray, 'where'] = None) -> None: ...\n"
        "class Unread(FullMaskNoising):\n"
        "    def __init__(self, at: 'Annotated[Nothing, \"where\"]' = None) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="the setting 'at' is of the kind ndarray, which a recipe cannot hold"):
        Recipe(noising={"name": "array_lab:Mine", "at": 3})
    with pytest.raises(RecipeError, match="no settings can be read off it: name 'Nothing' is not defined"):
        Recipe(noising={"name": "array_lab:Unread"})


def test_scorers_keep_the_rules_of_all_parts(tmp_path, monkeypatch):
    """Settings of one machine are not kept, files are known by what they hold, and what does nothing is refused."""
    (tmp_path / "scorer_lab.py").write_text(
        "from typing import Annotated, Literal\n"
        "from diffgrm.foundation.part_settings import Local\n"
        "from diffgrm.ranking.item_scoring.new_items import NewItemScorer\n"
        "class Mine(NewItemScorer):\n"
        "    only_with = (('p', 'mode', ('a',)),)\n"
        "    def __init__(self, path: Annotated[str | None, Local(), 'a file'] = None,\n"
        "                 mode: Annotated[Literal['a', 'b'], 'how'] = 'a',\n"
        "                 p: Annotated[float, 'so much'] = 0.1) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "prices.csv").write_text("1")
    recipe = Recipe(item_scoring={"scorer_lab:Mine": {"path": "prices.csv", "mode": "b"}})
    located = recipe.located(tmp_path)
    assert located.item_scoring.scorers["scorer_lab:Mine"].options["path"] == str(tmp_path / "prices.csv")
    assert located.files() == [tmp_path / "prices.csv"] and recipe.idle_settings() == []
    kept = located.portable().item_scoring.scorers
    assert kept["scorer_lab:Mine"].options["path"] is None and set(kept) == set(recipe.item_scoring.scorers)
    content = located.by_content()["item_scoring"]["scorer_lab:Mine"]
    assert content["path"].startswith("content ") and content["mode"] == "b"
    with pytest.raises(RecipeError, match=r"item_scoring.scorer_lab:Mine.p = 0.5 does nothing with .*mode = b"):
        recipe.override(["item_scoring.scorer_lab:Mine.p=0.5"]).refuse_idle()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: {width: 32}\ntraining: {epochs: 2}\nmodel: {heads: 4}\n", r"the key 'model' .* \(lines 1 and 3\)"),
        ("model:\n  width: 32\n  width: 64\n", r"the key 'width' stands twice in one mapping \(lines 2 and 3\)"),
        ("training: {epochs: 2, 'epochs': 3}\n", r"the key 'epochs' stands twice in one mapping \(line 1\)"),
    ],
)
def test_a_key_that_stands_twice_is_refused_wherever_yaml_is_read(tmp_path, text, told):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=told):
        Recipe.from_yaml(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="model: .* is not a YAML value: the key 'width' stands twice"):
        Recipe().override(["model={width: 32, width: 64}"])


@pytest.mark.parametrize(("text", "kind"), [("[]", "list"), ("false", "bool"), ("0", "int"), ("''", "str")])
def test_a_file_of_something_else_is_no_recipe_of_defaults(tmp_path, text, kind):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=f"expected a mapping of sections, found {kind}"):
        Recipe.from_yaml(tmp_path / "recipe.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing but a comment\n")
    assert Recipe.from_yaml(tmp_path / "empty.yaml") == Recipe()


def test_settings_of_validation_are_converted_like_the_others():
    assert Recipe(training={"validation_decoding": {"candidates": "32"}}).validation_decoder.options["candidates"] == 32


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
    (tmp_path / "r.yaml").write_bytes(b"PAR1\xff")
    with pytest.raises(RecipeError, match=r"r.yaml cannot be read: it is no text in UTF-8, for byte 4 is 0xff$"):
        Recipe.from_yaml(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("1: 2")
    with pytest.raises(RecipeError, match="there is no setting '1'"):
        Recipe.from_yaml(tmp_path / "r.yaml")


def test_a_recipe_is_made_without_loading_what_its_parts_need():
    code = "import sys; from diffgrm import Recipe; list(Recipe().table()); Recipe(recommender='sasrec').to_yaml(); "
    code += "sys.exit(', '.join({'torch', 'lightning', 'sklearn', 'faiss', 'scipy'} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
