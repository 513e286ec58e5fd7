"""What commands refuse to write over, before they work; and what they say of the split that a model is measured on."""

from __future__ import annotations

import json
from functools import partial

import polars as pl
import pytest

import diffgrm
from diffgrm import Recipe, toy_world
from diffgrm.evaluation import metrics
from diffgrm.foundation.registry import resolve
from helpers.commands import caller, save_tables


@pytest.fixture
def run(monkeypatch, capsys):
    return caller(monkeypatch, capsys)


@pytest.fixture(scope="module")
def world():
    return toy_world(users=40, seed=3).dataset


@pytest.fixture
def tables(world, tmp_path):
    (tmp_path / "data").mkdir()
    return save_tables(world, tmp_path / "data")


@pytest.fixture
def model(world, tmp_path):
    return resolve("recommender", "item_knn")(Recipe(recommender="item_knn")).fit(world).save(tmp_path / "model")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        "recommend M --interactions E --out E",
        "recommend M --interactions E --only I --out I",
        "recommend M --interactions E --without I --out I",
        "recommend M --interactions E --profiles U --out U",
        "recommend M --interactions E --rules U --out U",
        "recommend nowhere --interactions E --out E",
        "evaluate M --interactions E --items I --ranks E",
        "evaluate M --interactions E --items I --json I",
        "evaluate M --interactions E --items I --profiles U --json U",
        "evaluate M --interactions E --items I --segments U:plan --json U",
        "tokenize --items I --out I",
        "tokenize --items I --interactions E --out E",
        "tokenize --recipe R --items I --out x.parquet --json R",
        "tokenize --items I --out U embedding.name=precomputed embedding.path=U",
        "documents search M --queries E --out E",
        "documents evaluate M --queries E --qrels I --ranks I",
        "documents baselines --documents E --queries I --qrels U --json U",
        "semantic-ids churn E I --json I",
    ],
)
def test_no_input_is_written_over(run, tables, model, tmp_path, arguments, monkeypatch):
    monkeypatch.chdir(tmp_path / "data")
    (tmp_path / "data" / "users.parquet").write_bytes(b"precious")
    (tmp_path / "data" / "recipe.yaml").write_text("recommender: item_knn\n")
    names = {
        "M": model,
        "E": "interactions.parquet",
        "I": "../data/items.parquet",
        "U": "users.parquet",
        "R": "recipe.yaml",
    }
    before = contents(tmp_path)
    words = [":".join(str(names.get(part, part)) for part in word.split(":")) for word in arguments.split()]
    words = [f"embedding.path={names['U']}" if word.startswith("embedding.path") else word for word in words]
    code, _, error = run(*words)
    assert code == 2 and "it is read too (" in error and "would be lost; choose another name" in error, error
    assert contents(tmp_path) == before


def test_two_results_have_two_names(run, tables, model, tmp_path):
    code, _, error = run("evaluate", model, *tables, "--ranks", tmp_path / "x.parquet", "--json", tmp_path / "x.parquet")
    assert code == 2 and "cannot write two things to" in error


def test_no_model_takes_the_place_of_a_table_that_is_read(run, tables, model, tmp_path):
    before = contents(model)
    given = *tables[:2], "--items", model / "items.parquet", "--out", model
    for command in (("fit", *given, "recommender=item_knn"), ("update", model, *given)):
        code, _, error = run(*command)
        assert code == 2 and "items.parquet lies in" in error and "which the model would replace; save to another" in error
    assert contents(model) == before


def test_results_in_a_model_s_folder_are_refused(run, tables, model, tmp_path):
    before, recipe = contents(model), tmp_path / "knn.yaml"
    recipe.write_text("recommender: item_knn\nchoose: {model.decay: [0.2, 0.5]}\n")
    for command in (
        ("evaluate", model, *tables, "--json", model / "metrics.json"),
        ("recommend", model, *tables[:2], "--out", model / "items.parquet"),
        ("datasets", "toy", "--out", model / "data"),
        ("tune", recipe, "--trials", 1, *tables, "--out", model / "search"),
        ("update", model, *tables[:2], "--out", tmp_path / "new", "--run-folder", model / "run"),
    ):
        code, _, error = run(*command)
        assert code == 2 and "is a diffgrm model, and holds nothing else" in error, (command, error)
    code, _, error = run("fit", *tables, "--out", model / "inner", "recommender=popularity")
    assert code == 2 and "lies in" in error and "is a diffgrm model" in error
    assert contents(model) == before


def test_a_model_s_folder_that_holds_more_is_refused_before_anything_is_learnt(run, tables, model, tmp_path, monkeypatch):
    (model / "notes.txt").write_text("precious")
    monkeypatch.setattr(diffgrm.recommenders.base.Recommender, "fit", lambda *args, **how: pytest.fail("it began"))
    monkeypatch.setattr(diffgrm.recommenders.base.Recommender, "fit_more", lambda *args, **how: pytest.fail("it began"))
    for command in (
        ("fit", *tables, "--out", model, "recommender=popularity"),
        ("update", model, *tables[:2], "--out", model),
        ("items", "remove", model, "item 1"),
        ("demo", "--out", model),
    ):
        code, _, error = run(*command)
        assert code == 2 and "holds more than a diffgrm model: notes.txt" in error, (command, error)
    assert (model / "notes.txt").read_text() == "precious"


def test_a_dataset_is_not_written_over_tables(run, tmp_path, monkeypatch):
    (tmp_path / "items.parquet").write_bytes(b"precious")
    monkeypatch.setattr("diffgrm.data.sources.listing.rated_table", lambda name: pytest.fail("it was fetched"))
    code, _, error = run("datasets", "toy", "--out", tmp_path)
    assert code == 2 and "holds items.parquet already; write to another folder, or move what is there" in error
    code, _, error = run("datasets", "--out", tmp_path / "mine")
    assert code == 2 and "--out is for the tables of a dataset: name one too" in error
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]


def test_searches_and_suites_begin_in_folders_of_their_own(run, tables, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "best.yaml").write_text("precious")
    (tmp_path / "knn.yaml").write_text("recommender: item_knn\nchoose: {model.decay: [0.2, 0.5]}\n")
    (tmp_path / "suite.yaml").write_text(
        "datasets: [toy]\nseeds: [0]\nreference: knn\nruns: {knn: {recommender: item_knn}}\n"
    )
    for command, what in (
        (("tune", tmp_path / "knn.yaml", "--trials", 1, *tables), "a search for settings"),
        (("bench", tmp_path / "suite.yaml"), "a suite"),
    ):
        code, _, error = run(*command, "--out", tmp_path / "mine", "--quiet")
        assert code == 2 and f"holds files that are not of {what}: best.yaml; choose a new or empty folder" in error, error
    assert contents(tmp_path / "mine") == {tmp_path / "mine" / "best.yaml": b"precious"}


def test_segments_are_read_before_anybody_is_ranked(run, tables, model, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "evaluate", lambda *args, **how: pytest.fail("it began"))
    users = tmp_path / "users.csv"
    users.write_text("user_id,plan\nnobody,free\n")
    for segment, words in (
        ("nofile.csv:plan", "there is no table of users file nofile.csv"),
        (f"{users}:plans", "plans"),
        (f"{users}:plan", "knows none of the users that are evaluated: it has nobody; they are user"),
    ):
        code, _, error = run("evaluate", model, *tables, "--segments", segment)
        assert code == 2 and words in error, error


def test_another_split_than_that_of_the_fit_is_told_before_the_numbers(run, world, tables, model, tmp_path):
    events = world.event_table()
    (tmp_path / "part").mkdir()
    part = [tmp_path / "part" / "e.parquet", tmp_path / "e.json"]
    events.filter(pl.int_range(pl.len()).over("user_id") < pl.len().over("user_id") - 2).write_parquet(part[0])
    code, out, error = run("evaluate", model, *tables, "--json", part[1], "--quiet")
    assert code == 0 and "fitted on" not in out, error
    told = partial(dict.get, json.loads(part[1].read_text()))
    assert told("split_of_the_fit") is True and told("learnt_from_another_split_before") is False
    early = ["--interactions", part[0], *tables[2:]]
    code, out, error = run("evaluate", model, *early, "--json", part[1], "--quiet")
    assert code == 0 and 0 < out.index("not the split that the model was fitted on") < out.index("recall@10"), error
    assert json.loads(part[1].read_text())["split_of_the_fit"] is False


@pytest.fixture
def trained(world, tmp_path):
    recipe = Recipe(
        recommender="sasrec",
        model={"width": 8, "heads": 1, "layers": 1, "feed_forward": 8, "max_len": 6},
        training={"batch_size": 128, "epochs": 1, "warmup_steps": 2},
    )
    return resolve("recommender", "sasrec")(recipe).fit(world, progress=False).save(tmp_path / "model")


def test_updates_one_after_another_have_one_run_folder(run, trained, tables, tmp_path):
    folder = tmp_path / "run"
    ask = [
        "update",
        trained,
        *tables[:2],
        "--out",
        tmp_path / "more",
        "--run-folder",
        folder,
        "--quiet",
        "training.epochs=1",
    ]
    for _ in range(2):
        code, _, error = run(*ask)
        assert code == 0 and not list(folder.rglob("*.ckpt")), error
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["part_0", "part_1"]
    (folder / "last.ckpt").write_text("of an update that was killed, or of a fit")
    code, _, error = run(*ask)
    assert code == 2 and "an update cannot be resumed; choose another run folder, or delete it" in error, error
    assert "--resume" not in error and (folder / "last.ckpt").is_file()


def test_an_update_says_so_where_the_weights_stay(run, trained, tables, tmp_path):
    ask = ["update", trained, *tables[:2], "--out", tmp_path / "more", "--quiet"]
    code, out, error = run(*ask, "training.epochs=1", "training.learning_rate=1e-12")
    assert code == 0 and "No epoch was better than the weights as they were, so that these stayed; items and" in out, error
    code, out, error = run(*ask, "training.epochs=0")
    assert code == 0 and "Weights stayed; items and counts are those of the events given." in out, error
    strange = pl.read_parquet(tables[1]).with_columns(item_id=pl.lit("unheard of"))
    strange.write_parquet(tmp_path / "data" / "strange.parquet")
    code, _, error = run(
        "update", trained, "--interactions", tmp_path / "data" / "strange.parquet", "--out", tmp_path / "x"
    )
    assert code == 2 and "'unheard of'; add them to the item table (--items), or drop the events" in error
