"""A model folder from a stranger runs no code that it names, through any door, unless one says so."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

import diffgrm
from diffgrm import DiffGRMRecommender, HybridRecommender, Recipe, Recommender
from diffgrm.apps.serving.live import LiveModel
from diffgrm.foundation import registry
from diffgrm.foundation.schema import DataError, ModelFolderError, TrainingError
from diffgrm.foundation.storage import State
from diffgrm.recommenders.neighbours import TextKNNRecommender
from helpers.folders import change_recipe
from helpers.recipes import small_recipe

HISTORY = ["item 3", "item 77"]
EVIL = "stranger_code:Evil"
PLACES = {
    "recommender": {"recommender": EVIL},
    "embedding": {"embedding": {"name": EVIL}},
    "tokenizer": {"tokenizer": EVIL},
    "model": {"model": {"name": EVIL, "width": 32}},
    "branch": {"model": {"branches": ["sid", {"name": EVIL}]}},
    "objective": {"objective": EVIL},
    "nested objective": {"objective": {"name": "joint", "digits": {"name": EVIL}}},
    "noising": {"noising": {"name": EVIL}},
    "scorer": {"item_scoring": {"vectors": {}, EVIL: {}}},
    "decoding": {"decoding": {"name": EVIL}},
    "a module of Python": {"noising": "os:getcwd"},
    "a module of ours": {"noising": "diffgrm.apps.demo:run"},
}


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module that leaves a trace where it is imported; the trace."""
    trace = tmp_path / "it ran"
    (tmp_path / "stranger_code.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield trace
    sys.modules.pop("stranger_code", None)


@pytest.fixture(scope="module")
def hybrid_folder(toy, tmp_path_factory):
    return HybridRecommender(small_recipe("hybrid")).fit(toy, progress=False).save(tmp_path_factory.mktemp("models") / "m")


@pytest.mark.parametrize("place", PLACES)
def test_code_that_a_folder_names_is_refused_before_it_is_imported(hybrid_folder, tmp_path, stranger, place):
    folder = shutil.copytree(hybrid_folder, tmp_path / "model")
    change_recipe(folder, PLACES[place])
    named = {"a module of Python": "os:getcwd", "a module of ours": "diffgrm.apps.demo:run"}.get(place, EVIL)
    for load in (diffgrm.load, Recommender.load, HybridRecommender.from_pretrained, LiveModel):
        with pytest.raises(ModelFolderError, match=rf"names code .* own: {named} \(.*trust_code=True \(--trust-code\)"):
            load(folder)
    assert not stranger.exists() and "stranger_code" not in sys.modules


@pytest.mark.parametrize("command", ["recommend", "explain", "similar", "evaluate", "export", "serve", "items"])
def test_commands_refuse_it_too(hybrid_folder, tmp_path, stranger, command):
    folder = shutil.copytree(hybrid_folder, tmp_path / "model")
    change_recipe(folder, PLACES["noising"])
    arguments = {
        "recommend": ["recommend", folder, "--history", "item 3"],
        "explain": ["explain", folder, "--history", "item 3"],
        "similar": ["similar", folder, "item 3"],
        "evaluate": ["evaluate", folder, "--dataset", "toy"],
        "export": ["export", folder, "--out", tmp_path / "export"],
        "serve": ["serve", folder, "--port", "0"],
        "items": ["items", "remove", folder, "item 3"],
    }[command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command_line = [sys.executable, "-m", "diffgrm", *map(str, arguments)]
    done = subprocess.run(command_line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and EVIL in done.stderr and "--trust-code" in done.stderr
    assert not stranger.exists()
    done = subprocess.run([*command_line, "--trust-code"], env=environment, capture_output=True, text=True, check=False)
    assert stranger.exists()


def test_an_export_is_as_careful(hybrid_folder, tmp_path, stranger):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = diffgrm.export_onnx(diffgrm.load(hybrid_folder), tmp_path / "export")
    change_recipe(folder, PLACES["scorer"])
    with pytest.raises(ModelFolderError, match=rf"{EVIL} \(scorer\).*trust_code=True"):
        diffgrm.load_onnx(folder)
    assert not stranger.exists()


@pytest.fixture
def encoder_of_code(tmp_path, monkeypatch, stranger):
    """A sentence encoder in the folder ``enc`` of the current one whose modules are of ``stranger_code``, beside it."""
    folder = tmp_path / "enc"
    folder.mkdir()
    (folder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "stranger_code.Evil"}]')
    for name in ("config.json", "config_sentence_transformers.json"):
        (folder / name).write_text("{}")
    shutil.copy(tmp_path / "stranger_code.py", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("part", ["enc", "./enc", "absolute", "nested"])
def test_no_folder_of_this_machine_that_a_stranger_names_is_read(toy, tmp_path, stranger, encoder_of_code, part):
    folder = TextKNNRecommender().fit(toy, progress=False).save(tmp_path / "model")
    named = {"name": "sentence_transformer", "model": {"absolute": str(encoder_of_code), "nested": "enc"}.get(part, part)}
    state = State()
    if part == "nested":
        named, ids = {"name": "text_and_events", "text": named}, np.frombuffer(b"[]", np.uint8)
        state = State({"co_occurrence": np.zeros((0, 1), np.float32), "items": ids}, {"text": {}})
    state.save(folder / "encoder.safetensors")
    change_recipe(folder, {"embedding": None})
    change_recipe(folder, {"embedding": named})
    loaded = diffgrm.load(folder)
    pytest.importorskip("sentence_transformers")
    for _ in range(2):
        with pytest.raises(DataError, match=r"give it again: embedding\.model=FOLDER .* --vectors FOLDER"):
            loaded.add_items(loaded.item_table.head(1).with_columns(item_id=pl.lit("new")))
        loaded = diffgrm.load(loaded.save(tmp_path / "again"))
    trusted = diffgrm.load(folder, trust_code=True)
    with pytest.raises(DataError, match="the sentence encoder .* could not be loaded"):  # which trusts nobody's code
        trusted.add_items(loaded.item_table.head(1).with_columns(item_id=pl.lit("new")))
    assert not stranger.exists() and "stranger_code" not in sys.modules


def test_files_that_a_stranger_names_are_not_read(toy, tmp_path):
    np.save(tmp_path / "secret.npy", np.ones((1, 8), np.float32))
    folder = TextKNNRecommender().fit(toy, progress=False).save(tmp_path / "model")
    State().save(folder / "encoder.safetensors")
    change_recipe(folder, {"embedding": None})
    change_recipe(folder, {"embedding": {"name": "precomputed", "path": str(tmp_path / "secret.npy")}})
    assert diffgrm.load(folder).recipe.embedding.options["path"] is None


def test_a_part_that_was_used_before_is_still_refused(tmp_path, toy):
    recipe = small_recipe("hybrid").to_dict() | {"item_scoring": {"vectors": {}, "parts.rescorer:LessPopular": {}}}
    recommender = HybridRecommender(Recipe.from_dict(recipe)).fit(toy, progress=False)
    folder = recommender.save(tmp_path / "model")
    card = (folder / "README.md").read_text()
    assert "trust_code=True" in card and "`parts.rescorer:LessPopular`" in card and "--trust-code" in card
    with pytest.raises(ModelFolderError, match=r"parts\.rescorer:LessPopular \(scorer\)"):
        diffgrm.load(folder)
    with pytest.raises(ModelFolderError, match=r"parts\.rescorer:LessPopular \(scorer\)"):
        diffgrm.load(folder, trust_code=["parts.ramped:RareFirst"])
    with pytest.raises(ModelFolderError, match=r"parts\.rescorer:LessPopular \(scorer\)"):
        diffgrm.load(folder, trust_code="parts.rescorer:LessPopularToo parts.ramped:RareFirst")
    for trust in (True, ["parts.rescorer:LessPopular"], "parts.rescorer:LessPopular"):
        assert diffgrm.load(folder, trust_code=trust).recommend(HISTORY).height == 10
    with registry.guarded(False) as refused, pytest.raises(ValueError, match="not trusted"):
        registry.constant("scorer", "parts.rescorer:LessPopular", "candidates", None)
    assert refused == ["parts.rescorer:LessPopular (scorer)"]


def test_the_card_of_an_ordinary_model_asks_for_no_trust(saved):
    assert "trust" not in (saved / "README.md").read_text()


def test_a_recommender_name_does_not_lead_out_of_the_package(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    change_recipe(folder, {"recommender": str(tmp_path / "defaults")})
    (tmp_path / "defaults.yaml").write_text("seed: 7")
    with pytest.raises(ModelFolderError, match="names code that is not"):
        diffgrm.load(folder)


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("kind", ["checkpoint", "bare pickle"])
def test_a_checkpoint_runs_nothing(toy, tiny_recipe, tmp_path, name, kind):
    run, trace = tmp_path / "run", tmp_path / "it ran"
    DiffGRMRecommender(tiny_recipe).fit(toy, run_folder=run, progress=False)
    longer = DiffGRMRecommender(tiny_recipe)
    checkpoint = torch.load(run / name, weights_only=True)
    if kind == "checkpoint":
        torch.save(checkpoint | {"extra": Payload(trace)}, run / name)
    else:
        (run / name).write_bytes(pickle.dumps(Payload(trace), protocol=2))
    with pytest.raises(TrainingError, match=rf"{name} .*holds something else than weights and numbers"):
        longer.fit(toy, run_folder=run, resume=True, progress=False)
    assert not trace.exists()
