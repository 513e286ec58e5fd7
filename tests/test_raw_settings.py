"""What would reach other libraries raw: numbers, devices, disks. Each is one message, before the work where it can be."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import polars as pl
import pytest

import diffgrm
from diffgrm import Recipe
from diffgrm.apps.bench.suite import Suite
from diffgrm.foundation import forks
from diffgrm.foundation.overrides import apply_overrides
from diffgrm.foundation.parts import as_part
from diffgrm.foundation.registry import names, resolve, settings
from diffgrm.foundation.schema import DiffGRMError, OutputError, RecipeError, TrainingError
from diffgrm.foundation.storage import State, atomic_file, read_parquet, write_parquet
from helpers.commands import called
from helpers.folders import full_disk
from helpers.recipes import small_recipe

HUGE = 10**30


@pytest.fixture
def run(monkeypatch, capsys):
    return partial(called, monkeypatch, capsys)


def numeric(kind):
    """Every setting that is a number, of all parts and sections."""
    for field, section in Recipe.model_fields.items():
        for key, inner in getattr(section.annotation, "model_fields", {}).items():
            if kind in str(inner.annotation):
                yield f"{field}.{key}", "hybrid"
    for part in ("embedding", "tokenizer", "model", "objective", "noising", "decoding", "scorer"):
        for name in names(part):
            for setting in settings(part, name).values():
                if kind in str(setting.hint):
                    yield f"{part}={name}.{setting.name}", part


@pytest.mark.parametrize(
    ("kind", "value"),
    [("int", HUGE), ("int", -HUGE), ("float", math.inf), ("float", -math.inf), ("float", math.nan), ("float", 1e300)],
)
def test_no_number_of_any_setting_is_out_of_this_world(kind, value):
    found = list(numeric(f"{kind}"))
    assert len(found) > 15
    for path, part in found:
        with pytest.raises(RecipeError) as error:
            if part == "hybrid":
                section, key = path.split(".")
                Recipe(**{section: {key: (10, value) if key == "ks" else value}})
            else:
                name, key = path.split("=")[1].split(".")
                diffgrm.foundation.parts.as_part(part, {"name": name, key: value})
        assert key in str(error.value) and len(str(error.value).splitlines()) <= 2, path


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.batch_size=1000000000000000000000000000000", "Input should be less than or equal to 1048576"),
        ("training.epochs=-1", "training.epochs = -1: Input should be greater than or equal to 1"),
        ("training.epochs=100000000", "training.epochs = 100000000: Input should be less than or equal to 1000000"),
        ("training.learning_rate=.nan", "training.learning_rate = nan: "),
        ("training.learning_rate=-1", "training.learning_rate = -1: Input should be greater than 0"),
        ("training.precision=fp8", "training.precision = 'fp8': Input should be 'auto', '32' or 'bf16'"),
        ("item_scoring.new_items.weight=.inf", "item_scoring.new_items.weight = inf: expected a number, of a size from"),
        ("item_scoring.co_occurrence.weight=.nan", "item_scoring.co_occurrence.weight = nan: "),
        (
            "training.weight_decay=1.0e-300",
            "training.weight_decay = 1e-300: expected a number, of a size from 1e-30 to 1e+30, or 0",
        ),
        ("seed=-1", "seed = -1: Input should be greater than or equal to 0"),
        ("seed=4294967296", "seed = 4294967296: Input should be less than 2147481648"),
        ("model.heads=3", "model.width 128 is not a multiple of model.heads 3; change either"),
        (
            "decoding={name: any_order_beam, beam: 1000000000}",
            "decoding.beam = 1000000000: Input should be less than or equal",
        ),
    ],
)
def test_they_are_told_in_one_line_before_anything_is_read(run, tmp_path, setting, message):
    with pytest.raises(RecipeError) as error:
        Recipe.from_dict(apply_overrides({}, [setting]))
    assert message in str(error.value) and len(str(error.value).splitlines()) == 2
    code, _, err = run("fit", "--dataset", "no such", "--out", tmp_path / "m", setting)
    assert code == 2 and message in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("weight", [math.inf, math.nan, 1e39])
def test_weights_after_fit_are_numbers_too(fitted, run, saved, weight):
    with pytest.raises(RecipeError, match="evaluation.ks"):
        fitted.variant([f"evaluation.ks=[{HUGE}]"])
    model, override = small_recipe("hybrid"), f"item_scoring.co_occurrence.weight={weight}".replace("inf", ".inf")
    with pytest.raises(RecipeError, match="item_scoring.co_occurrence.weight = "):
        model.override([override.replace("nan", ".nan")])
    code, _, err = run("recommend", saved, "--history", "item 3", "decoding.beam=1000000000")
    assert code == 2 and "decoding.beam = 1000000000" in err


@pytest.mark.parametrize("pair", ["seconds=inf", "seconds=nan", f"k={HUGE}", "body_seconds=1e99", "queue=-1"])
def test_bounds_of_a_server_are_numbers_too(pair):
    pytest.importorskip("fastapi")
    from diffgrm.apps.serving.run import read_limits
    from diffgrm.apps.serving.settings import Limits

    with pytest.raises(DiffGRMError, match=f"{pair.split('=')[0]}: .*(expected a|greater than)"):
        read_limits(dict([pair.split("=")]), Limits)


@pytest.mark.parametrize("seeds", [[0, -1], [10**30]])
def test_seeds_of_a_suite_are_told_before_anything_runs(tmp_path, seeds):
    suite = f"datasets: [toy]\nreference: a\nseeds: {seeds}\nruns: {{a: {{recommender: popularity}}}}\n"
    (tmp_path / "s.yaml").write_text(suite)
    with pytest.raises(RecipeError, match=r"seeds\.[01] = .*: Input should be"):
        Suite.from_yaml(tmp_path / "s.yaml")


# ---- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:77", "", "cpu:x", "mps:9"])
def test_devices_that_are_not_there_are_named(fitted, toy, run, saved, device):
    for recommender in (fitted, diffgrm.PopularityRecommender().fit(toy)):
        with pytest.raises(DiffGRMError, match=f"the device '{device}' cannot be used here .*expected auto, cpu, or a GPU"):
            recommender.to(device)
    code, _, err = run("recommend", saved, "--history", "item 3", "--device", device)
    assert code == 2 and f"the device '{device}' cannot be used here" in err
    assert fitted.to("auto").to("cpu").recommend([["item 3"]], k=2).height == 2


@pytest.mark.parametrize(
    "wrong",
    ["training.accelerator=foo", "training.accelerator=tpu", "training.strategy=foo", "training.devices=1000"],
)
def test_machines_that_are_not_this_one_are_told_before_anything_is_learnt(toy, run, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", None)  # nothing is made of the items
    recipe = small_recipe("diffgrm").override([wrong, "training.batch_size=2000"])
    recommender = resolve("recommender", "diffgrm")(recipe)
    with pytest.raises(TrainingError, match=f"cannot train with .*{wrong.split('.')[1]}.* Leave the three out"):
        recommender.fit(toy, run_folder=tmp_path / "run", progress=False)
    code, _, err = run("fit", "--dataset", "toy", "--out", tmp_path / "m", "training.batch_size=2000", wrong)
    assert code == 2 and "this machine cannot train with" in err and not (tmp_path / "m").exists()


def test_half_precision_trains_on_any_machine(toy):
    recipe = small_recipe("diffgrm").override(["training.precision=bf16", "training.epochs=1", "training.gradient_clip=1"])
    fitted = resolve("recommender", "diffgrm")(recipe).fit(toy, progress=False)
    assert fitted.recommend([["item 3"]], k=3).height == 3


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("diffgrm", ["objective=joint"], "'joint' teaches item scores, which the recommender 'diffgrm' does not rank by"),
        (
            "sasrec",
            ["model.name=diffgrm"],
            "'diffgrm' answers as Denoises, which the objective 'next_item' .*does not teach",
        ),
        ("sasrec", ["model.name=autoregressive"], "answers as PredictsDigits, which the objective 'next_item'"),
    ],
)
def test_what_would_be_fitted_to_nothing_is_refused_before_anything_is_learnt(toy, monkeypatch, name, changes, message):
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", None)
    with pytest.raises(RecipeError, match=message):
        resolve("recommender", name)(small_recipe(name).override(changes)).fit(toy, progress=False)


def test_networks_that_cannot_be_made_are_refused_before_anything_is_learnt(toy, monkeypatch, tmp_path):
    (tmp_path / "short_lab.py").write_text(
        "from diffgrm.networks.diffgrm import DiffGRM\n"
        "class NoLength(DiffGRM):\n"
        "    def __init__(self, n_digits: int, codebook_size: int) -> None:\n"
        "        super().__init__(n_digits, codebook_size, width=8, heads=2)\n"
        "        self.max_len = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", None)
    recipe = Recipe(recommender="diffgrm", model="short_lab:NoLength")
    with pytest.raises(RecipeError, match="'NoLength' must have max_len: int, found None"):
        resolve("recommender", "diffgrm")(recipe).fit(toy, progress=False)


def test_run_folders_that_cannot_be_are_told_first(toy, run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder, message in (
        (tmp_path / "file", "is a file; "),
        (tmp_path / "file" / "run", "is no folder; choose another"),
    ):
        with pytest.raises(TrainingError, match=message):
            resolve("recommender", "sasrec")(small_recipe("sasrec")).fit(toy, run_folder=folder, progress=False)
        code, _, err = run("fit", "--dataset", "toy", "--out", tmp_path / "m", "--run-folder", folder)
        assert code == 2 and str(tmp_path / "file") in err and "Traceback" not in err
    assert (tmp_path / "file").read_text() == "mine"


def test_k_and_counts_of_any_size_are_one_message(fitted, run, saved):
    with pytest.raises(DiffGRMError, match="k is 1000000000000000000000000000000, but the catalogue has only 480 items"):
        fitted.recommend([["item 3"]], k=HUGE)
    for command in (["recommend", saved, "--history", "item 3"], ["similar", saved, "item 3"]):
        code, _, err = run(*command, "--k", HUGE)
        assert code == 2 and "but the catalogue has only 480 items" in err
    assert run("explain", saved, "--history", "item 3", "--k", 1, "--show", HUGE)[0] == 0


# ---- disks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_full_disk_is_one_message_and_the_old_file_stays(saved, run, tmp_path, suffix):
    pl.DataFrame({"user_id": range(2000), "item_id": ["item 3"] * 2000}).write_parquet(tmp_path / "events.parquet")
    out = tmp_path / f"lists{suffix}"
    out.write_text("old")
    command = ["recommend", saved, "--interactions", tmp_path / "events.parquet", "--k", 10, "--out", out, "--quiet"]
    with full_disk(2000):
        code, _, err = run(*command, "decoding.beam=10")
    assert code == 2 and f"{out} could not be written: " in err and "what was there before is whole. Make room" in err
    assert out.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["events.parquet", out.name]


def test_whatever_writes_says_so_in_words_of_ours(fitted, tmp_path):
    with full_disk(2000):
        with pytest.raises(OutputError, match="x could not be written"), atomic_file(tmp_path / "x") as path:
            State({"a": pl.Series(range(10_000)).to_numpy()}).save(path)
        with pytest.raises(OutputError, match="x could not be written"), atomic_file(tmp_path / "x") as path:
            write_parquet(pl.DataFrame({"a": [os.urandom(50) for _ in range(1000)]}), path)
        with pytest.raises(DiffGRMError, match=r"could not be saved .*what was there before is untouched"):
            fitted.save(tmp_path / "model")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_full_disk_under_training_is_one_message(toy, tmp_path):
    wanted = "training stopped, for files could not be read or written"
    with full_disk(2000), pytest.raises(TrainingError, match=wanted):
        resolve("recommender", "sasrec")(small_recipe("sasrec")).fit(toy, run_folder=tmp_path / "run", progress=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "best"], ["--help"]])
def test_output_that_cannot_be_written_is_one_message(arguments):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "diffgrm", *arguments]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="of shells that can close a stream")
@pytest.mark.parametrize(("closed", "status"), [(">&-", 0), ("<&- >&- 2>&-", 0), (">&- 2>&-", 2)])
def test_output_that_is_closed_ends_a_command_as_it_would_end(tmp_path, closed, status):
    command = f"exec {sys.executable} -m diffgrm recipes {'best' if status == 0 else 'worst'} {closed}"
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    assert done.returncode == status and "Traceback" not in done.stderr


def test_too_little_memory_is_one_message(run, monkeypatch):
    def none_left(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")

    monkeypatch.setattr("diffgrm.foundation.presets.preset_text", none_left)
    code, _, err = run("recipes", "best")
    assert code == 2 and "there is not memory enough; lower model.width" in err


# ---- what model folders keep -----------------------------------------------------------------------------------------


def test_no_path_goes_into_a_model_folder(tmp_path, monkeypatch):
    def kept(**embedding):
        return Recipe(embedding=embedding).portable().embedding.options

    assert kept(name="sentence_transformer", model=str(tmp_path / "mine"))["model"] is None
    assert kept(name="sentence_transformer", model="org/name")["model"] == "org/name"
    assert kept(name="sentence_transformer", model="x" * 300)["model"] == "x" * 300
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert kept(name="sentence_transformer", model="org/name")["model"] is None
    assert kept(name="precomputed", path="vectors.npy")["path"] is None
    encoder = Recipe(embedding={"name": "sentence_transformer", "model": None}).embedding.build()
    pytest.importorskip("sentence_transformers")
    with pytest.raises(DiffGRMError, match=r"does not keep in which folder its sentence encoder lies.*; give it again"):
        encoder.encode(pl.DataFrame({"item_id": ["a"], "text": ["b"]}))


def test_names_that_are_too_long_for_a_file_are_told():
    name, items = "x" * 300, pl.DataFrame({"item_id": ["a"], "text": ["b"]})
    parts = [{"name": "precomputed", "path": name}, {"name": "item_scorer", "model": name}]
    for recipe in [*(Recipe(embedding=part) for part in parts), Recipe(tokenizer={"name": "from_file", "path": name})]:
        assert recipe.files() == [] and recipe.by_content()["recommender"] == recipe.recommender
    assert as_part("embedding", parts[1]).build().identity()["model"] is None
    for read in (
        lambda: as_part("embedding", parts[0]).build().encode(items),
        lambda: as_part("tokenizer", {"name": "from_file", "path": name}).build().check(items["item_id"]),
        lambda: Recipe.from_yaml(name),
        lambda: diffgrm.load(name),
    ):
        with pytest.raises(DiffGRMError, match=name):
            read()


def test_tables_are_not_read_in_forked_children(tmp_path, monkeypatch):
    write_parquet(pl.DataFrame({"a": [1]}), tmp_path / "a.parquet")
    monkeypatch.setitem(forks._state, "left_behind", True)
    with pytest.raises(DiffGRMError, match="forked"):
        read_parquet(tmp_path / "a.parquet")
