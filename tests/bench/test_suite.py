from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from diffgrm import Recipe
from diffgrm.apps.bench.late import fitted_settings, late_overrides
from diffgrm.apps.bench.suite import Suite
from diffgrm.foundation.schema import RecipeError

PLAIN = {
    "datasets": ["toy", "other"],
    "seeds": [3, 4],
    "reference": "base",
    "runs": {
        "base": {
            "recommender": "sasrec",
            "model": {"width": 16},
            "choose": {"model.dropout": [0.1, 0.5], "model.heads": [2]},
        },
        "wide": {"like": "base", "model": {"width": 64}, "only_on": {"other": {"training": {"epochs": 7}}}},
        "words": {"recommender": "text_knn", "seeds": [9]},
    },
}


def suite(tmp_path, **changes):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return Suite.from_yaml(path)


def test_runs_are_recipes_with_changes_for_datasets_and_seeds(tmp_path):
    found = suite(tmp_path)
    assert found.name == "small"
    recipe = found.recipe("wide", "other", {"model.dropout": 0.5}, seed=4)
    assert recipe.recommender == "sasrec" and recipe.seed == 4
    assert recipe.model.options["width"] == 64 and recipe.model.options["dropout"] == 0.5
    assert recipe.training.epochs == 7 and found.recipe("wide", "toy", {}, 3).training.epochs == 100


def test_choices_are_every_combination_and_belong_to_the_run_that_others_are_like(tmp_path):
    found = suite(tmp_path)
    assert found.choices("base") == [{"model.dropout": dropout, "model.heads": 2} for dropout in (0.1, 0.5)]
    assert found.choices("words") == [{}] and found.base("wide") == "base" and found.base("words") == "words"


def test_the_suite_of_sets_measures_the_recipes_that_are_shipped_for_them():
    found = Suite.from_yaml(Path(__file__).resolve().parents[2] / "suites" / "sets.yaml")
    for dataset, preset in (("movielens-1m", "movielens-1m"), ("steam-100k", "steam")):
        assert found.recipe("recipe of the set", dataset, {}, 0) == Recipe.preset(preset)


def test_choices_reach_into_nested_settings(tmp_path):
    choose = {"training.validation_decoding.beam": [4, 16], "model.branches.sid.compose": ["sum"]}
    base = {"recommender": "diffgrm", "choose": choose}
    found = suite(tmp_path, runs={"base": base})
    recipes = [found.recipe("base", "toy", choice, 0) for choice in found.choices("base")]
    assert [recipe.validation_decoder.options["beam"] for recipe in recipes] == [4, 16]
    assert recipes[0].model.options["branches"][0].options["compose"] == "sum"
    assert len({str(fitted_settings(recipe)) for recipe in recipes}) == 2  # each chooses its own best epoch
    with pytest.raises(RecipeError, match="decoding 'any_order_beam' has no setting 'baem'; did you mean 'beam'"):
        suite(tmp_path, runs={"base": {**base, "choose": {"training.validation_decoding.baem": [4]}}})


def test_a_stepped_range_is_the_list_of_its_values(tmp_path):
    runs = {"base": {"recommender": "sasrec", "choose": {"model.dropout": {"min": 0.1, "max": 0.3, "step": 0.1}}}}
    assert suite(tmp_path, runs=runs).choices("base") == [{"model.dropout": value} for value in (0.1, 0.2, 0.3)]


@pytest.mark.parametrize(
    ("said", "choose"),
    [
        ({"model": {"branches": ["id", "text"]}}, {"model.branches.text": [None, "text"]}),
        ({"model": {"branches": ["id", "text"]}}, {"model.branches.0": ["id", {"name": "id", "start": 0.5}]}),
        ({"item_scoring": {"co_occurrence": {"weight": 2}}}, {"item_scoring.co_occurrence": [None, {"weight": 1}]}),
    ],
)
def test_what_is_chosen_about_an_entry_may_be_said_of_the_run(tmp_path, said, choose):
    found = suite(tmp_path, runs={"base": {"recommender": "hybrid", **said, "choose": choose}})
    recipes = [found.recipe("base", "toy", choice, 0) for choice in found.choices("base")]
    assert len(recipes) == 2 and recipes[0] != recipes[1]


def test_a_setting_of_an_entry_that_is_said_and_chosen_is_refused(tmp_path):
    base = {"recommender": "hybrid", "model": {"branches": [{"name": "id", "start": 1}, "text"]}}
    with pytest.raises(RecipeError, match="'base' says model.branches.id.start of all datasets, and chooses it"):
        suite(tmp_path, runs={"base": {**base, "choose": {"model.branches.id.start": [0.5, 1]}}})


def test_a_run_that_is_like_another_with_another_part_keeps_the_settings_that_both_parts_know(tmp_path):
    base = {
        "recommender": "diffgrm",
        "model": {"width": 32, "dropout": 0.3, "history": "causal"},
        "training": {"validation_decoding": {"beam": 7}},
        "decoding": {"name": "any_order_beam", "beam": 9, "steps": 2},
    }
    left = {"like": "base", "recommender": "autoregressive", "noising": None}
    left |= {"model": {"name": "autoregressive"}, "decoding": {"name": "left_to_right"}}
    runs = {"base": base, "left": left, "only": {"like": "base", "decoding": {"name": "one_pass"}}}
    found = suite(tmp_path, runs=runs)
    recipe = found.recipe("left", "toy", {}, 0)
    kept = {key: recipe.model.options[key] for key in base["model"]}
    assert recipe.model.name == "autoregressive" and kept == base["model"]
    assert recipe.decoding.options["beam"] == 9 and recipe.validation_decoder.options["beam"] == 7
    one_pass = found.recipe("only", "toy", {}, 0)
    assert one_pass.validation_decoder.name == "one_pass" and found.fitted_by("only") == "base"


@pytest.mark.parametrize(
    ("changes", "fitted_by"),
    [
        ({"item_scoring": {"co_occurrence": {"weight": 1.0}}}, "base"),
        ({"item_scoring": {"co_occurrence": None}}, "base"),
        ({"item_scoring": {"co_occurrence": {"neighbours": 50}}}, "run"),
        ({"item_scoring": {"new_items": {"weight": 1.0}}}, "run"),
        ({"only_on": {"toy": {"item_scoring": {"new_items": {}}}}}, "run"),
        ({"item_scoring": {"vectors": {"weight": 2.0}}, "decoding": {"candidates": 32}}, "base"),
        ({"choose": {"item_scoring.co_occurrence.weight": [1, 2]}}, "base"),
        ({"choose": {"item_scoring.co_occurrence.shrink": [1, 2]}}, "run"),
        ({"item_loss": {"negatives": 9}}, "run"),
    ],
)
def test_a_run_whose_item_scorers_only_weigh_otherwise_uses_the_fit_of_the_one_it_is_like(tmp_path, changes, fitted_by):
    base = {"recommender": "hybrid", "item_scoring": {"new_items": None}}
    found = suite(tmp_path, runs={"base": base, "run": {"like": "base", **changes}})
    assert found.fitted_by("run") == fitted_by


def test_late_settings_are_overrides_of_what_was_fitted():
    fitted = Recipe()
    wanted = Recipe(item_scoring={"co_occurrence": None, "new_items": {"weight": 3}}, decoding={"candidates": 9})
    assert fitted_settings(wanted.override(["item_scoring.co_occurrence={}"])) == fitted_settings(fitted)
    made = fitted.override(late_overrides(wanted, fitted))
    weights = {name: scorer.options["weight"] for name, scorer in made.item_scoring.scorers.items()}
    assert weights == {"vectors": 1.0, "co_occurrence": 0.0, "new_items": 3.0} and made.decoding == wanted.decoding
    other = Recipe(item_scoring={"co_occurrence": {"shrink": 3}})
    assert fitted_settings(other) != fitted_settings(fitted)


def test_a_run_may_start_from_a_recipe_file_beside_the_suite(tmp_path):
    (tmp_path / "start.yaml").write_text("recommender: item_knn\nmodel: {neighbours: 7}\n")
    runs = {"base": {"recipe": "start.yaml", "model": {"decay": 0.5}}}
    options = suite(tmp_path, runs=runs).recipe("base", "toy", {}, 0).model.options
    assert options["neighbours"] == 7 and options["decay"] == 0.5


def test_files_that_recipes_name_lie_where_the_suite_says_from_its_own_folder(tmp_path):
    runs = {
        "base": {"recommender": "diffgrm", "tokenizer": {"name": "from_file", "path": "../sids.json"}},
        "both": {
            "like": "base",
            "embedding": {"name": "text_and_events", "text": {"name": "precomputed", "path": "/vectors.npy"}},
            "tokenizer": {"path": "own.json"},
        },
        "hub": {"like": "base", "embedding": {"name": "sentence_transformer", "model": "org/name"}},
        "sum": {"recommender": "ensemble", "model": {"members": ["fitted", {"recommender": "popularity"}]}},
    }
    found = suite(tmp_path, runs=runs)
    options = {name: found.recipe(name, "toy", {}, 0) for name in runs}
    assert options["base"].tokenizer.options["path"] == str(tmp_path / "../sids.json")
    assert options["both"].tokenizer.options["path"] == str(tmp_path / "own.json")
    assert options["both"].embedding.options["text"].options["path"] == "/vectors.npy"
    assert options["hub"].embedding.options["model"] == "org/name"
    assert options["sum"].model.options["members"] == (str(tmp_path / "fitted"), {"recommender": "popularity"})


def test_a_file_is_known_by_what_it_holds_wherever_the_suite_lies(tmp_path):
    """Of the tokenizer's file and of a folder of vectors in a nested part; what they hold tells identities apart."""
    runs = {
        "base": {
            "recommender": "diffgrm",
            "embedding": {"name": "text_and_events", "text": {"name": "sentence_transformer", "model": "ENCODER"}},
            "tokenizer": {"name": "from_file", "path": "sids.json"},
        }
    }

    def identity(folder, sids, encoder):
        (folder / "encoder").mkdir(parents=True)
        (folder / "sids.json").write_text(sids)
        (folder / "encoder" / "weights").write_text(encoder)
        wanted = json.loads(json.dumps(runs).replace("ENCODER", str(folder / "encoder")))
        recipe = suite(folder, runs=wanted).recipe("base", "toy", {}, 0)
        assert str(folder) in str(recipe.to_dict()) and str(folder) not in str(fitted_settings(recipe))
        return fitted_settings(recipe)

    here = identity(tmp_path / "here", "[1]", "a")
    assert here == identity(tmp_path / "there", "[1]", "a")
    assert here != identity(tmp_path / "other", "[2]", "a") and here != identity(tmp_path / "trained", "[1]", "b")
    (tmp_path / "here" / "sids.json").write_text("[23]")
    changed = Suite.from_yaml(tmp_path / "here" / "small.yaml").recipe("base", "toy", {}, 0)
    assert fitted_settings(changed) != here
    (tmp_path / "here" / "sids.json").unlink()  # a fit will say that it is not there
    assert str(tmp_path) in str(fitted_settings(changed))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"reference": "bse"}, "reference 'bse' is not among the runs; did you mean 'base'"),
        ({"runs": {"base": {"like": "bas"}}}, "'base' is like 'bas', which is no run; did you mean 'base'"),
        ({"runs": {"base": {"like": "b"}, "b": {"like": "base"}}}, "is like itself"),
        (
            {"runs": {"base": {"recommender": "sasrec", "only_on": {"tyo": {}}}}},
            "has changes for 'tyo'; did you mean 'toy'",
        ),
        ({"runs": {"base": {"recommender": "sasrec", "model": {"widht": 3}}}}, "did you mean 'width'"),
        (
            {"runs": {"base": {"recommender": "sasrec", "chose": {"model.width": [8, 16]}}}},
            "'base' has the key 'chose', which is none of a run; did you mean 'choose'",
        ),
        ({"runs": {"base": {"recommender": "sasrec", "modle": {}}}}, "there is no setting 'modle'; did you mean 'model'"),
        ({"runs": {"base": {"recommender": "sasrec"}, "b": {"like": "base", "noisng": None}}}, "did you mean 'noising'"),
        ({"runs": {"base": {"recommender": "sasrec", "choose": {"model.width": [16, -1]}}}}, "model.width = -1"),
        (
            {"runs": {"base": {"recommender": "sasrec", "item_loss": {"negatives": 8}}}},
            r"(?s)run 'base' on toy: .*item_loss.negatives = 8 does nothing with item_loss.kind = softmax",
        ),
        (
            {"runs": {"base": {"recommender": "ensemble", "members": ["bse"]}}},
            "has 'bse' under members, no run; did you mean 'base'",
        ),
        (
            {"runs": {"base": {"recommender": "ensemble", "members": ["a"]}, "a": {"like": "base", "decoding": {}}}},
            "run 'base' has 'a' under members, which is a peer, uses other runs itself, or is the fit of another run",
        ),
        (
            {"runs": {"base": {"recommender": "item_knn", "members": ["a", "a"]}, "a": {"recommender": "random"}}},
            "run 'base' has members, but its recommender knows none; set recommender: ensemble",
        ),
        (
            {"runs": {"base": {"recommender": "ensemble", "backbone": "a"}, "a": {"recommender": "diffgrm"}}},
            "run 'base' has backbone, but its recommender knows none; set recommender: epic",
        ),
        (
            {"runs": {"base": {"recipe": "epic", "backbone": "bsae"}}},
            "'base' has 'bsae' under backbone, no run; did you mean 'base'",
        ),
        (
            {
                "runs": {
                    "base": {"recipe": "epic", "backbone": "a", "model": {"backbone": "x"}},
                    "a": {"recipe": "llada-rec"},
                }
            },
            "run 'base' says model.backbone and says backbone; say one of both",
        ),
        (
            {
                "runs": {
                    "base": {"recipe": "epic", "backbone": "a"},
                    "a": {"recipe": "llada-rec"},
                    "x": {"like": "base", "model": {"backbone": {"recipe": "llada-rec"}}},
                }
            },
            "run 'x' says model.backbone and is like one that says backbone; begin with its recipe",
        ),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py", "seed": 7}}},
            "'x' says seed, but a suite runs it for each of its seeds",
        ),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py", "semantic_ids_off": "base"}}},
            "'x' has the key 'semantic_ids_off', which is none of a peer; did you mean 'semantic_ids_of'",
        ),
        (
            {"runs": {"base": {"recommender": "sasrec", "choose": {"model.dropout": {"min": 0.1, "max": 0.5}}}}},
            "'base' chooses model.dropout from a range without a step, but a suite tries every value",
        ),
        (
            {
                "runs": {
                    "base": {
                        "recommender": "item_knn",
                        "choose": {"model": [{"shrink": 5}, {"decay": 0.2}], "model.shrink": [0, 7]},
                    }
                }
            },
            "'base' chooses model.shrink, which values of model say too; say it under one of both",
        ),
        (
            {
                "runs": {
                    "base": {
                        "recommender": "item_knn",
                        "choose": {"model.shrink": [0, 7]},
                        "only_on": {"other": {"model": {"shrink": 5}}},
                    }
                }
            },
            "'base' says model.shrink of other, and chooses it; leave one out",
        ),
        (
            {"runs": {"base": {"recommender": "item_knn", "model": {"shrink": 5}, "choose": {"model.shrink": [0, 7]}}}},
            "'base' says model.shrink of all datasets, and chooses it; leave one out",
        ),
        ({"runs": {"base": {"recommender": "sasrec", "choose": {"seed": 3}}}}, "choose.seed: .*expected a list of values"),
        (
            {"runs": {"base": {"recommender": "popularity"}, "Base": {"recommender": "random"}}},
            "the runs 'Base' and 'base' would share the folder 'base'; rename one",
        ),
        ({"runs": {"base": {"recommender": "popularity"}, "+": {"recommender": "random"}}}, r"the run '\+' has no letter"),
        ({"datasets": ["toy", "toy"]}, "datasets name 'toy' more than once"),
        ({"seeds": [0, 1, 0]}, "seeds name 0 more than once"),
        ({"runs": {"base": {"recommender": "popularity", "seeds": [3, 3]}}}, "seeds of 'base' name 3 more than once"),
        ({"runs": {"base": {"recommender": "popularity", "seeds": []}}}, r"runs.base.seeds = \[\]"),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"like": "base", "recipe": "best"}}},
            "'x' has a recipe and is like 'base', but begins with one of them",
        ),
        ({"runs": {"base": {"recommender": "popularity", "seed": 7}}}, "'base' says seed, but a suite fits for each"),
        (
            {"runs": {"base": {"recommender": "popularity", "choose": {"seed": [1, 2]}}}},
            "'base' says seed, but a suite fits",
        ),
        ({"runs": {"base": {"recommender": "popularity", "python": "p"}}}, "'base' says python, which runs a peer"),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py", "like": "base"}}},
            "'x' is a peer, which like says nothing of",
        ),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py", "choose": {"width": [1]}}}},
            "'x' is a peer, which choose says nothing of",
        ),
        ({"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py"}}}, "run 'x': there is no script .*p.py"),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py", "semantic_ids_of": "bse"}}},
            "run 'x' has 'bse' under semantic_ids_of, no run; did you mean 'base'",
        ),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py", "semantic_ids_of": "base"}}},
            "run 'x' has 'base' under semantic_ids_of, whose recipe has no section tokenizer; name another run",
        ),
        (
            {"runs": {"base": {"recommender": "popularity"}, "x": {"peer": "p.py", "vectors_of": "base"}}},
            "run 'x' has 'base' under vectors_of, whose recipe has no section embedding",
        ),
        (
            {"runs": {"base": {"recommender": "popularity", "choose": {"evaluation.ks": [[5], [9]]}}}},
            "'base' chooses evaluation.ks, but choices that differ in it are not comparable",
        ),
        (
            {"runs": {"base": {"recommender": "sasrec", "choose": {"training": [{"validation_users": 5}]}}}},
            "'base' chooses training.validation_users, but choices",
        ),
        (
            {
                "runs": {
                    "base": {"recommender": "item_knn", "choose": {"model.shrink": [50, 100]}},
                    "x": {"like": "base", "choose": {"model.decay": [0.2, 0.9]}},
                }
            },
            "'x' chooses for itself, and would lose what is chosen of model.shrink for 'base', which it is like",
        ),
        (
            {
                "runs": {
                    "base": {"recommender": "diffgrm", "training": {"validation_decoding": {"beam": 4}}},
                    "x": {"like": "base", "training": {"validation_decoding": None}},
                }
            },
            r"run 'x' on toy: .*\s.*training.validation_decoding = None",
        ),
        ({"clock": {"tyo": "day"}}, "clock names a column for 'tyo'; did you mean 'toy'"),
        ({"data": {"split": "temporl"}}, "data.split = 'temporl': .*'leave_one_out', 'temporal' or 'validation_only'"),
        ({"data": {"target": "last"}}, "data.target = last does nothing with data.split = leave_one_out"),
        (
            {"runs": {"base": {"recommender": "sasrec", "data": {"split": "temporal"}}}},
            "'base' has data settings of its own, but all runs share one split; set data beside runs",
        ),
        (
            {"runs": {"base": {"recommender": "sasrec", "choose": {"data.split": ["temporal"]}}}},
            "'base' has data settings of its own",
        ),
        (
            {
                "data": {"split": "temporal", "target": "successive"},
                "runs": {"base": {"recommender": "popularity"}, "other": {"peer": "peer.py"}},
            },
            "'other' is a peer, which makes one list a user; data.target = successive asks for more",
        ),
        (
            {"runs": {"base": {"recommender": "popularity", "choose": {"events.min_rating": [3, 4]}}}},
            "'base' chooses among settings of events, by which validation would ask for other targets; give each a run",
        ),
        (
            {"runs": {"base": {"recommender": "popularity"}, "other": {"peer": "p.py", "events": {"ratng": "stars"}}}},
            r"run 'other' on toy: there is no setting 'ratng'",
        ),
        (
            {
                "runs": {
                    "base": {"recommender": "popularity"},
                    "other": {"peer": "p.py", "events": {"event": "kind", "targets": ["buy"]}},
                }
            },
            "run 'other' is a peer, which cannot be told types of events; leave events.event out",
        ),
        *(
            (
                {"runs": {"base": {"recommender": "popularity"}, "other": {"peer": "p.py", "events": {key: value}}}},
                f"run 'other' is a peer, which cannot be told {what}; leave events.{key} out",
            )
            for key, value, what in (
                ("weight", "stars", "weights of events"),
                ("time_inputs", ["hour"], "times of events"),
                ("event_columns", {"device": ["phone"]}, "columns of events"),
                ("user_columns", {"plan": ["free"]}, "columns of users"),
            )
        ),
        ({"datasets": []}, r"datasets = \[\]: "),
        ({"dataset": ["toy"]}, "there is no setting 'dataset'; did you mean 'datasets'"),
        ({"seeds": "x"}, r"seeds = 'x': expected a list, such as \[a, b\]"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(tmp_path, changes, text):
    with pytest.raises(RecipeError, match=text):
        suite(tmp_path, **changes)


def test_files_that_are_no_suites_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="there is no suite file"):
        Suite.from_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(RecipeError, match="expected a mapping with datasets and runs, found list"):
        Suite.from_yaml(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="cannot be read"):
        Suite.from_yaml(tmp_path / "broken.yaml")
    (tmp_path / "broken.yaml").write_bytes(b"\xfe")
    with pytest.raises(RecipeError, match="cannot be read: it is no text in UTF-8, for byte 0 is 0xfe"):
        Suite.from_yaml(tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"decay": 0.3}, "choose": {"model.shrink": [10, 20]}},
        {"choose": {"model": [{"decay": 0.3, "shrink": 10}, {"decay": 0.1}]}},
        {"choose": {"model.decay": [0.3], "model.shrink": [10, 20]}},
        {
            "only_on": {"toy": {"model": {"decay": 0.3}}, "other": {"model": {"decay": 1}}},
            "choose": {"model.shrink": [1, 2]},
        },
    ],
)
def test_a_choice_may_leave_out_what_the_run_says_otherwise(tmp_path, changes):
    base = {"recommender": "item_knn", "choose": {"model.decay": [0.1, 0.2]}}
    assert suite(tmp_path, runs={"base": base, "x": {"like": "base", **changes}}).base("x") == "x"


def test_two_runs_of_one_name_are_refused(tmp_path):
    runs = "  a: {recommender: popularity}\n  a: {recommender: random}\n"
    (tmp_path / "suite.yaml").write_text(f"datasets: [toy]\nreference: a\nruns:\n{runs}")
    with pytest.raises(RecipeError, match=r"suite.yaml cannot be read: the key 'a' stands twice .*lines 4 and 5"):
        Suite.from_yaml(tmp_path / "suite.yaml")


def test_the_shipped_suites_are_valid():
    folder = Path(__file__).resolve().parents[2] / "suites"
    shipped = {path.stem for path in folder.glob("*.yaml")}
    assert shipped >= {"quick", "beauty", "beauty-controls", "sports", "paper", "peers"}
    for path in folder.glob("*.yaml"):
        Suite.from_yaml(path)
