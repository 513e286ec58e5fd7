"""Exports that are whole by their hashes and mean harm; what model folders are refused for, exports are too."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from diffgrm import export_onnx, load_onnx
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import State
from diffgrm.runtime_onnx import network
from helpers.folders import change_recipe, rehash

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def whole(fitted, tmp_path_factory):
    return export_onnx(fitted, tmp_path_factory.mktemp("exports") / "[0.1]?")


@pytest.fixture
def hostile(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "lr[0.1]")


def refused(folder, match):
    rehash(folder)
    with pytest.raises(ModelFolderError, match=match):
        load_onnx(folder)


def change(path, change):
    state = State.load(path)
    State({name: change(array) for name, array in state.arrays.items()}, state.facts).save(path)


def test_a_name_means_itself_and_an_export_is_good_to_begin_with(hostile):
    (hostile.parent / "lr0").mkdir()
    assert load_onnx(hostile, threads=1).recommend([["item 3"]]).height == 10


@pytest.mark.parametrize(
    "name", ["encode_history.onnx", "denoise.onnx", "item_vectors.safetensors", "items.parquet", "recipe.yaml"]
)
def test_pipes(hostile, name):
    files = json.loads((hostile / "manifest.json").read_text())
    (hostile / name).unlink()
    os.mkfifo(hostile / name)
    refused(hostile, f"{name} is no file")
    del files["files"][name]
    (hostile / "manifest.json").write_text(json.dumps(files))
    refused(hostile, f"{name} is no file")


@pytest.mark.parametrize("name", ["item_vectors", "semantic_ids"])
def test_rows_that_do_not_fit(hostile, name):
    change(hostile / f"{name}.safetensors", lambda array: array[:-1])
    refused(hostile, "rows, but there are 480 items")


def test_vectors_that_the_graphs_do_not_take(hostile):
    change(hostile / "item_vectors.safetensors", lambda array: np.ascontiguousarray(array[:, :-1]))
    refused(hostile, "the graph of the export does not take what it is given")


def test_a_fault_of_ours_is_not_told_as_one_of_the_graph():
    class Session:
        def get_outputs(self):
            return [SimpleNamespace(name="logits")]

        def get_inputs(self):
            return [SimpleNamespace(name="codes")]

        def run(self, wanted, given):
            raise AttributeError("a fault of ours")

    with pytest.raises(AttributeError, match="a fault of ours"):
        network._run(Session(), {"codes": np.zeros(1)}, ("logits",))
    with pytest.raises(ModelFolderError, match="does not take what it is given: it asks for codes too"):
        network._run(Session(), {}, ("logits",))


def test_strange_items(hostile):
    path = hostile / "items.parquet"
    pl.read_parquet(path, glob=False).with_columns(_recommendable=pl.lit(False)).write_parquet(path)
    refused(hostile, r"items\.parquet is damaged")


@pytest.mark.parametrize("max_len", [None, "8", [8], 0, -1])
def test_facts_that_are_none(hostile, max_len):
    manifest = json.loads((hostile / "manifest.json").read_text())
    (hostile / "manifest.json").write_text(json.dumps(manifest | {"onnx": {"max_len": max_len}}))
    refused(hostile, "max_len")


def test_code_is_not_run_and_aliases_do_not_grow(hostile):
    change_recipe(hostile, {"decoding": {"name": "os:getcwd"}})
    refused(hostile, r"names code .*os:getcwd \(decoding\)")
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    (hostile / "recipe.yaml").write_text("a0: &a0 [x]\n" + "\n".join(lines) + "\n")
    refused(hostile, "its aliases make")


@pytest.mark.parametrize("section", [{"index": "os:getcwd"}, {"candidates": 10**9}, {"folder": "/"}, ["hnsw"], None])
def test_how_items_are_looked_up_is_read_as_a_recipe_is(section, hybrid_exported, tmp_path):
    folder = shutil.copytree(hybrid_exported, tmp_path / "export")
    change_recipe(folder, {"retrieval": None})
    change_recipe(folder, {"retrieval": section})
    refused(folder, "is damaged: the section retrieval of its recipe")
