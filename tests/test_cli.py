from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import polars as pl
import pytest

import diffgrm
from diffgrm.foundation.registry import resolve
from helpers.commands import called
from helpers.recipes import small_recipe


@pytest.fixture(scope="module")
def files(toy, tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    toy.event_table().rename({"user_id": "shopper"}).write_csv(folder / "events.csv")
    toy.item_table.write_parquet(folder / "items.parquet")
    (folder / "recipe.yaml").write_text(tiny_recipe.to_yaml())
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process: (exit code, output, errors)."""

    return partial(called, monkeypatch, capsys)


@pytest.fixture(scope="module")
def tables(files):
    return ["--interactions", files / "events.csv", "--items", files / "items.parquet", "--column", "user_id=shopper"]


def test_fit_evaluate_and_recommend_from_files(run, files, tables, tmp_path):
    model, ranks = tmp_path / "model", tmp_path / "ranks.parquet"
    fit = ["fit", "--recipe", files / "recipe.yaml", *tables, "--out", model, "--quiet", "training.epochs=1"]
    code, out, _ = run(*fit)
    assert code == 0 and "Tokeniser report" in out and "Validation" in out and "Saved to" in out
    assert not list((tmp_path / "model.run").glob("*.ckpt")) and list((tmp_path / "model.run").glob("logs/*/metrics.csv"))
    assert run(*fit)[0] == 0  # again, over the old model

    code, out, _ = run("evaluate", model, *tables, "--json", tmp_path / "e.json", "--ranks", ranks, "--quiet")
    assert code == 0 and "ndcg@10" in out and "By kinds of held-out events" in out and "memorised" in out
    written = json.loads((tmp_path / "e.json").read_text())
    assert written["n_users"] == 120
    wanted = {
        "recall@10",
        "ndcg@10",
        "recall@10_unfiltered",
        "ndcg@10_unfiltered",
        "sid_ndcg@10",
        "validity",
        "distinctness",
    }
    assert wanted | {"coverage@10"} <= set(written["metrics"])
    assert written["metrics"]["validity"] == written["metrics"]["distinctness"] == 1
    for kinds in written["kinds"].values():
        assert sum(kind["events"] for kind in kinds.values()) == 120
        whole = sum(kind["share"] * kind["ndcg@10"] for kind in kinds.values())
        assert whole == pytest.approx(written["metrics"]["ndcg@10"])
    assert pl.read_parquet(ranks).height == 120 and "memorised" in pl.read_parquet(ranks).columns

    recs = tmp_path / "recs.parquet"
    code, out, _ = run("recommend", model, *tables[:2], *tables[4:], "--k", 4, "--out", recs, "--quiet")
    table = pl.read_parquet(recs)
    assert code == 0 and table.columns == ["user_id", "item_id", "score", "rank"] and table.height == 480
    events = pl.read_csv(files / "events.csv", infer_schema=False).rename({"shopper": "user_id"})
    assert table.join(events, on=["user_id", "item_id"]).height == 0


def test_recommend_shows_titles_and_takes_filters(run, saved, tmp_path):
    pl.DataFrame({"item_id": ["item 5", "item 6", "item 7"]}).write_csv(tmp_path / "only.csv")
    code, out, _ = run(
        "recommend", saved, "--history", "item 3", "--history", "item 6", "--only", tmp_path / "only.csv", "--k", 3
    )
    assert (code == 0 and "Aroma espresso machine" in out) or "Crema espresso machine" in out
    assert "item 5" in out and "item 7" in out and "item 6" not in out


def test_export_writes_a_folder_that_recommends_the_same(run, saved, tmp_path):
    out = tmp_path / "export"
    code, text, _ = run("export", saved, "--format", "onnx", "--out", out, "decoding.beam=8")
    assert code == 0 and "Written to" in text and "diffgrm.load_onnx(" in text
    wanted = diffgrm.load(saved).override(["decoding.beam=8"]).recommend([["item 3", "item 6"]], k=4)
    onnx = diffgrm.load_onnx(out, threads=1)
    assert onnx.decoding.beam == 8 and onnx.recommend([["item 3", "item 6"]], k=4)["item_id"].equals(wanted["item_id"])
    code, _, error = run("export", saved, "--out", saved)
    assert code == 2 and "holds files that are not an ONNX export" in error
    code, _, error = run("export", saved, "--out", out, "model.width=8")
    assert code == 2 and "can change after fit, not model.width=8" in error
    for command in (["export", saved, "--out", out], ["recommend", saved, "--history", "item 3"]):
        code, _, error = run(*command, "evaluation.ks=[1]")
        assert code == 2 and "evaluation.ks=[1] does nothing where no list is measured" in error


@pytest.mark.parametrize(
    "arguments",
    ["fit --dataset toy --out {0}", "tokenize --items {1} --out {0}.csv", "embed-batch --items {1} --out {0}"],
)
def test_settings_that_do_nothing_are_refused_by_what_makes_something(run, files, tmp_path, arguments):
    made = arguments.format(tmp_path / "made", files / "items.parquet").split()
    code, _, err = run(*made, "tokenizer.rotate=false", "tokenizer.iterations=7")
    wanted = "tokenizer.iterations = 7 does nothing with tokenizer.rotate = False; leave it out, or set tokenizer.rotate to"
    assert code == 2 and wanted in " ".join(err.split()) and not list(tmp_path.iterdir())


def test_tokenize_writes_digits_and_a_report(run, files, tables, tmp_path):
    sids = tmp_path / "sids.csv"
    for source in (tables, ["--items", files / "items.parquet"]):
        code, out, _ = run("tokenize", *source, "--out", sids, "--json", tmp_path / "r.json", "tokenizer.codebook_size=16")
        assert code == 0 and "Tokeniser report" in out
        table = pl.read_csv(sids)
        assert table.columns == ["item_id", "digit_0", "digit_1", "digit_2", "digit_3"] and table.height == 480
        assert table.drop("item_id").n_unique() == 480
        assert json.loads((tmp_path / "r.json").read_text())["distinct_sids"] == 480


def test_semantic_ids_are_the_same_however_rows_are_shuffled(run, files, tables, fitted, tmp_path):
    shuffled = pl.read_parquet(files / "items.parquet").sample(fraction=1, shuffle=True, seed=1)
    shuffled.write_parquet(tmp_path / "items.parquet")
    for events in ([], tables[:2] + tables[4:]):
        for items in (files, tmp_path):
            to = ["--out", items / "sids.csv", "tokenizer.codebook_size=16"]
            assert run("tokenize", *events, "--items", items / "items.parquet", *to)[0] == 0
        assert pl.read_csv(files / "sids.csv").equals(pl.read_csv(tmp_path / "sids.csv"))
    new = fitted.item_table.head(20).with_columns(item_id=pl.format("new {}", pl.int_range(20))).select("item_id", "text")
    lists = []
    for number, rows in enumerate((new, new.reverse())):
        model = fitted.save(tmp_path / f"model {number}")
        rows.write_csv(tmp_path / "new.csv")
        assert run("items", "add", model, "--items", tmp_path / "new.csv")[0] == 0
        lists.append(diffgrm.load(model).recommend([["item 3", "new 1"]], k=50))
    assert lists[0].equals(lists[1])


def test_recipes_are_listed_and_printed(run):
    from diffgrm.foundation.presets import FOLDER, preset_names

    code, out, _ = run("recipes")
    assert code == 0 and all(name in out for name in preset_names())
    assert run("recipes", "best")[1] == (FOLDER / "best.yaml").read_text()
    code, _, err = run("recipes", "bst")
    assert code == 2 and "there is no recipe 'bst'; did you mean 'best'?" in err


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["recipes"]])
def test_help_loads_no_torch(arguments):
    code = f"import sys; sys.argv = {['diffgrm', *arguments]}\n"
    code += "from diffgrm.apps.cli.main import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "sys.exit(', '.join({'torch', 'lightning', 'sklearn', 'faiss', 'scipy'} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_datasets_are_listed_and_written(run, tmp_path):
    code, out, _ = run("datasets")
    assert code == 0 and "movielens-100k" in out and "amazon-2014:CATEGORY" in out
    assert "CC BY-NC-SA 4.0" in " ".join(out.replace("│", " ").split())  # however narrow the terminal is
    code, out, _ = run("datasets", "toy", "--out", tmp_path)
    assert code == 0 and pl.read_parquet(tmp_path / "items.parquet").height == 480
    code, _, err = run("datasets", "movielens-100")
    assert code == 2 and "did you mean 'movielens-100k'?" in err


def test_help_explains_every_setting(run):
    from diffgrm.foundation.recipe import Recipe

    code, out, _ = run("fit", "--help")
    squeezed = "".join(out.split()).replace("│", "")
    assert code == 0
    assert all(row.path.replace(" ", "")[:12] in squeezed for row in Recipe().table())


def test_help_tells_the_settings_of_what_is_named_behind_it(run, files):
    """A class of one's own, another recipe, a recommender; and what is wrong with them."""
    own = "item_scoring.parts.rescorer:LessPopular"
    code, out, _ = run("fit", f"{own}.weight=0.7", "--help")
    assert code == 0 and f"{own}.weight" in out and "what the second look counts for" in " ".join(out.split())
    code, out, _ = run("fit", "--help", "--recipe", files / "recipe.yaml", "model.max_len=7")
    used = "".join(out.partition("Settings of the other parts")[0].split())
    assert code == 0 and "decoding.threshold" in used and "item_scoring" not in used
    code, _, err = run("fit", "--recipe", "bst", "--help")
    assert code == 2 and "there is no recipe 'bst'; did you mean 'best'?" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--out", "m"], "give --interactions FILE and --items FILE, or --dataset NAME"),
        (["fit", "--out", "m", "--dataset", "toy", "model.widht=3"], "did you mean 'width'?"),
        (["fit", "--out", "m", "--dataset", "toy", "--recipe", "nowhere.yaml"], "there is no recipe file nowhere.yaml"),
        (["fit", "--out", "m", "--dataset", "toy", "--recipe", "bst"], "there is no recipe 'bst'; did you mean 'best'?"),
        (["fit", "--out", "m", "--dataset", "toy", "--interactions", "x"], "not both"),
        (["recommend", "nowhere", "--history", "a"], "there is no model folder nowhere"),
        (["recommend", "nowhere"], "give either --interactions FILE or --history"),
        (["tokenize", "--out", "sids.xyz"], "cannot write sids.xyz: expected one of .parquet, .csv, .jsonl"),
        (["recommend", "m", "--history", "a", "--out", "nowhere/recs.csv"], "there is no folder"),
        (["recommend", "m", "--history", "a", "--out", "recs.txt"], "cannot write recs.txt: expected one of"),
    ],
)
def test_errors_are_one_message_without_a_stack_trace(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2 and message in " ".join(err.split()) and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_place_for_the_model_is_told_before_the_work_starts(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = run("fit", "--dataset", "toy", "--out", tmp_path)
    assert code == 2 and "holds files that are not a diffgrm model" in " ".join(err.split())


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "diffgrm", "--help"], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "evaluate" in done.stdout


def test_a_run_folder_keeps_the_checkpoints_of_others(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.ckpt").write_text("precious")
    fit = ["fit", "--dataset", "toy", "--out", tmp_path / "m", "--run-folder", tmp_path / "run", "recommender=popularity"]
    assert run(*fit)[0] == 0
    assert (tmp_path / "run" / "mine.ckpt").read_text() == "precious"


def test_columns_are_renamed_wherever_they_are(run, files, saved, tmp_path):
    column = ["--column", "user_id=shopper", "--column", "text=name"]
    code, _, _ = run(
        "recommend", saved, "--interactions", files / "events.csv", *column, "--out", tmp_path / "r.csv", "--quiet"
    )
    assert code == 0 and pl.read_csv(tmp_path / "r.csv").height == 1200
    code, _, err = run("tokenize", "--items", files / "items.parquet", "--out", tmp_path / "s.csv", "--column", "nonsense")
    assert code == 2 and "--column is written OURS=YOURS" in err
    twice = ["--column", "item_id=a", "--column", "item_id=b"]
    code, _, err = run("tokenize", "--items", files / "items.parquet", "--out", tmp_path / "s.csv", *twice)
    assert code == 2 and "--column tells 'item_id' twice; tell it once" in err
    code, _, err = run("cache", "--list", "--clear")
    assert code == 2 and "give one of them" in err


def test_items_come_and_go_from_the_command_line(run, fitted, tmp_path):
    model, new = fitted.save(tmp_path / "model"), tmp_path / "new.csv"
    fitted.item_table.head(2).with_columns(item_id=pl.Series(["new 0", "new 1"])).select("item_id", "text").write_csv(new)
    items = len(fitted.items)
    code, out, _ = run("items", "add", model, "--items", new)
    assert code == 0 and f"Catalogue version 1 of {model}: {items + 2} items" in " ".join(out.split())
    code, _, err = run("items", "add", model, "--items", new)
    assert code == 2 and "in the catalogue already: new 0, new 1; use update_items" in " ".join(err.split())
    assert run("items", "update", model, "--items", new, "--semantic-ids", "keep")[0] == 0
    code, out, _ = run("items", "remove", model, "new 0", "item 1")
    assert code == 0 and f"version 3 of {model}: {items + 2} items, {items} of them" in " ".join(out.split())
    code, out, _ = run("similar", model, "new 1", "--k", "3")
    assert code == 0 and "item 1 " not in out and "Similar to new 1" in out
    assert run("items", "restore", model, "item 1")[0] == 0
    found = diffgrm.load(model)
    assert found.facts["catalogue_version"] == 4 and found.items.positions(["new 1"]) == items + 1
    assert run("items", "remove", model, "nothing")[0] == 2 and diffgrm.load(model).facts["catalogue_version"] == 4


def test_explain_shows_how_items_were_found(run, saved, tmp_path):
    code, out, _ = run("explain", saved, "--history", "item 3", "--history", "item 77", "--k", "2")
    assert code == 0 and "1. item" in out and "2. item" in out and "items left" in out
    assert "best partial semantic IDs" in out and "·" in out
    assert "had a say" not in out and "had no say" not in out  # digits say all
    assert "best partial" not in run("explain", saved, "--history", "item 3", "--show", "0")[1]


def test_explain_is_asked_of_what_can_explain(run, toy, tmp_path):
    hybrid = resolve("recommender", "hybrid")(small_recipe("hybrid")).fit(toy, progress=False)
    model, history = hybrid.save(tmp_path / "hybrid"), ["--history", "item 3", "--history", "item 77"]
    code, out, _ = run("explain", model, *history, "--k", "2", "item_scoring.co_occurrence.weight=0")
    changed = hybrid.variant(["item_scoring.co_occurrence.weight=0"])
    found = changed.recommend([["item 3", "item 77"]], k=2)["item_id"].to_list()
    assert code == 0 and all(f"{rank}. {item} " in out for rank, item in enumerate(found, start=1))
    popular = diffgrm.PopularityRecommender().fit(toy).save(tmp_path / "popular")
    code, _, err = run("explain", popular, *history)
    said = "PopularityRecommender cannot explain its lists; the recommenders hybrid, diffgrm, epic and one_pass can"
    assert code == 2 and said in " ".join(err.split())


def test_rules_of_a_file_hold(run, saved, fitted, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("caps: {department: 1}\npins: {2: item 27}\n")
    asked = ["recommend", saved, "--history", "item 3", "--k", 4, "--rules", rules, "--out", tmp_path / "recs.parquet"]
    assert run(*asked)[0] == 0
    found = pl.read_parquet(tmp_path / "recs.parquet")
    assert found["item_id"].to_list() == fitted.recommend([["item 3"]], 4, rules=str(rules))["item_id"].to_list()
    assert found["item_id"][1] == "item 27"
    code, out, _ = run(*asked[:-2])
    assert code == 0 and "item 27" in out
    rules.write_text("cap: {department: 1}\n")
    code, _, err = run(*asked)
    assert code == 2 and "cap: there is no such rule; did you mean 'caps'?" in err
