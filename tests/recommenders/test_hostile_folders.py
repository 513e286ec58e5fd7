"""Folders that are whole by their hashes and mean harm: refused in bounded time and memory, with a word on why."""

from __future__ import annotations

import json
import os
import shutil
import stat

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import diffgrm
from diffgrm import DiffGRMRecommender, HybridRecommender, Recipe
from diffgrm.foundation import registry
from diffgrm.foundation.schema import DataError, DiffGRMError, ModelFolderError
from diffgrm.foundation.storage import State
from helpers.commands import called
from helpers.folders import change_recipe, rehash
from helpers.recipes import small_recipe

HISTORY = ["item 3", "item 77"]


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """A hybrid with all kinds of files, one of whose items came later."""
    raw = small_recipe("hybrid").to_dict()
    raw["model"]["branches"] = ["sid", "text", "id"]
    recommender = HybridRecommender(Recipe.from_dict(raw)).fit(toy, progress=False)
    grown = recommender.add_items(recommender.item_table.head(1).with_columns(item_id=pl.lit("new")))
    return grown.save(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture
def hostile(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refused(folder, match):
    with pytest.raises(ModelFolderError, match=match) as error:
        diffgrm.load(folder)
    assert str(folder) in str(error.value)


def manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_it_is_a_good_folder_to_begin_with(hostile):
    rehash(hostile)
    assert diffgrm.load(hostile).recommend(HISTORY).height == 10


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"width": 10**9}},
        {"model": {"width": 2**40}},
        {"model": {"encoder_layers": 10**9}},
        {"model": {"decoder_layers": 10**9}},
        {"model": {"max_len": 10**12}},
        {"model": {"feed_forward": 10**15}},
        {"model": {"width": 10**30}},
        {"model": {"branches": ["sid", "text", "id"] * 9}},
        {"model": {"branches": ["sid"]}},
        {"tokenizer": {"codebook_size": 65_536}},
        {"tokenizer": {"n_digits": 64}},
        {"tokenizer": {"n_digits": 10**12}},
    ],
    ids=str,
)
def test_sizes_in_the_recipe(hostile, changes):
    change_recipe(hostile, changes)
    refused(
        hostile,
        r"does not fit the recipe beside it|codes of the sizes|the recipe has problems|fit the files|each branch once",
    )


@pytest.mark.parametrize(
    "sizes",
    [
        *({"n_items": size} for size in (10**12, -1, 0, "480", True)),
        {"n_digits": 10**12},
        {"codebook_size": 2**40},
        {"text_width": 10**9},
        {"width": 10**9},
        None,
        [1],
    ],
    ids=str,
)
def test_sizes_in_the_header_of_the_weights(hostile, sizes):
    path = hostile / "model.safetensors"
    with safe_open(path, framework="numpy") as file:
        known = json.loads(file.metadata()["sizes"])
    content = known | sizes if isinstance(sizes, dict) else sizes
    save_file(load_file(path), path, metadata={"sizes": json.dumps(content)})
    rehash(hostile)
    refused(hostile, "does not fit the files beside it|its sizes are")


@pytest.mark.parametrize("change", ["one less", "one more", "another shape"])
def test_other_weights(hostile, change):
    path = hostile / "model.safetensors"
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("norm.weight"))
    match change:
        case "one less":
            del weights[name]
        case "one more":
            weights["another"] = np.zeros(3, np.float32)
        case _:
            weights[name] = np.zeros(3, np.float32)
    save_file(weights, path, metadata=header)
    rehash(hostile)
    refused(hostile, r"model\.safetensors does not fit the recipe beside it")


def bomb(start: str) -> str:
    lines = [f"a0: &a0 {start}"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    return "model:\n" + "\n".join(f"  {line}" for line in lines) + "\n"


def merges() -> str:
    lines = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 30)]
    return "model:\n  a0: &a0 {x: 1}\n" + "\n".join(f"  {line}" for line in lines) + "\n"


YAML = {
    "anchors": bomb("[x]"),
    "anchors of mappings": bomb("{k: x}"),
    "merges": merges(),
    "a circle": "model: &a [*a]",
    "nesting": "a: " + "[" * 50_000,
    "a number": "a: " + "1" * 5000,
    "a date": "seed: 9999-99-99",
    "length": "x" * 10**6,
    "a list": "- 1",
    "no yaml": "seed: [",
    "a mapping as key": "? {a: 1}\n: 2",
    "a control character": "seed: 1\x07",
}


@pytest.mark.parametrize("kind", YAML)
def test_yaml_that_grows(hostile, kind):
    (hostile / "recipe.yaml").write_text(YAML[kind])
    rehash(hostile)
    refused(hostile, r"recipe\.yaml|the recipe has problems")


@pytest.mark.parametrize(
    "name", ["manifest.json", "recipe.yaml", "items.parquet", "model.safetensors", "semantic_ids.safetensors"]
)
@pytest.mark.parametrize("kind", ["pipe", "folder", "endless device", "link to itself"])
@pytest.mark.parametrize("listed", [True, False])
def test_what_is_no_file(hostile, name, kind, listed):
    path = hostile / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "endless device" else path)
    if not listed and name != "manifest.json":
        files = json.loads((hostile / "manifest.json").read_text())["files"]
        manifest(hostile, files={other: facts for other, facts in files.items() if other != name})
    refused(hostile, f"{name} is no file|{name} is missing|it has no {name}")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "a\\b", "nul\0"])
def test_names_that_lead_out_of_the_folder(hostile, name):
    (hostile.parent / "secret").write_text("secret")
    files = json.loads((hostile / "manifest.json").read_text())["files"]
    manifest(hostile, files=files | {name: {"bytes": 6, "sha256": "0"}})
    refused(hostile, "is no name of a file in it")


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, '{"a": ' + "1" * 10**4 + "}", "\udcff", '{"format": "diffgrm-model", "format_version": 3, "files": []}'],
    ids=["nesting", "a number", "not utf-8", "a list of files"],
)
def test_manifests_that_are_none(hostile, text):
    (hostile / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(hostile, "manifest.json is damaged")


@pytest.mark.parametrize(
    "changes",
    [{"facts": None}, {"facts": {}}, {"facts": [1]}, {"files": {"items.parquet": 3}}, {"format_version": "3"}],
    ids=str,
)
def test_facts_that_are_none(hostile, changes):
    manifest(hostile, **changes)
    refused(hostile, "damaged|no size and SHA-256|not what fit notes")


def test_a_catalogue_version_is_a_number(hostile):
    facts = json.loads((hostile / "manifest.json").read_text())["facts"]
    manifest(hostile, facts=facts | {"catalogue_version": "x" * 9})
    refused(hostile, "catalogue_version is no whole number")
    manifest(hostile, facts=facts | {"asked_in_fit": {"hashes": [], "whole": False}})
    refused(hostile, "expected the smallest hashes")


@pytest.mark.parametrize("told", ["x", {}, {"epochs": "x" * 9, "validation": {}, "validation_before": {}, "fitted": []}])
def test_what_is_told_of_an_item_scorer_that_went_on_is_what_an_update_notes(told, hostile):
    facts = json.loads((hostile / "manifest.json").read_text())["facts"]
    before = {"times": 1, "fingerprint": "", "fitted_at": "", "training_events": 1, "new_items": 0}
    manifest(hostile, facts=facts | {"went_on": before, "item_scorer": told})
    refused(hostile, "the facts in the manifest are not what fit notes")


ITEMS = {
    "no table": lambda table: None,
    "no rows": lambda table: table.head(0),
    "fewer rows": lambda table: table.head(7),
    "rows twice": lambda table: pl.concat([table, table]),
    "null ids": lambda table: table.with_columns(item_id=pl.lit(None, pl.String)),
    "ids that are numbers with commas": lambda table: table.with_columns(item_id=pl.int_range(pl.len()) + 0.5),
    "no text": lambda table: table.drop("text"),
    "texts that are lists": lambda table: table.with_columns(text=pl.concat_list("text")),
    "no counts": lambda table: table.drop("training_events"),
    "counts below 0": lambda table: table.with_columns(training_events=pl.lit(-1, pl.Int64)),
    "counts that are text": lambda table: table.with_columns(training_events=pl.lit("x")),
    "nothing to recommend": lambda table: table.with_columns(_recommendable=pl.lit(False)),
    "marks that are numbers": lambda table: table.with_columns(_recommendable=pl.lit(1)),
    "very many rows": lambda table: table.head(1).select(pl.all().repeat_by(5_000_000).explode()),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_strange_items(hostile, kind):
    path = hostile / "items.parquet"
    table = ITEMS[kind](pl.read_parquet(path))
    path.write_bytes(b"PAR1" + b"\xff" * 500 + b"PAR1") if table is None else table.write_parquet(path)
    rehash(hostile)
    refused(hostile, r"items\.parquet is damaged|rows, but there are")


@pytest.mark.parametrize("at", range(4, 200, 13))
def test_flipped_bytes_in_items_are_an_error_or_nothing(hostile, at):
    path = hostile / "items.parquet"
    content = bytearray(path.read_bytes())
    content[-at] ^= 0x55
    path.write_bytes(content)
    rehash(hostile)
    try:
        diffgrm.load(hostile).recommend(HISTORY)
    except ModelFolderError as error:
        assert "items.parquet" in str(error) or "rows, but there are" in str(error)


def shorter(state):
    return State({name: array[:-1] for name, array in state.arrays.items()}, state.facts)


def without_facts(state):
    return State(state.arrays)


def far_away(state):
    arrays = dict(state.arrays)
    for name in ("indices", "codes"):
        if name in arrays:
            arrays[name] = arrays[name] + np.int32(2**30)
    return State(arrays, state.facts)


def of_texts(state):
    return State({name: array.astype(np.uint8) for name, array in state.arrays.items()}, state.facts)


def too_many(state):
    return State(state.arrays, state.facts | dict.fromkeys(("items", "codebook_size"), 10**12))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("semantic_ids", shorter),
        ("semantic_ids", without_facts),
        ("semantic_ids", far_away),
        ("semantic_ids", too_many),
        ("text_vectors", shorter),
        ("text_neighbours", shorter),
        ("text_neighbours", without_facts),
        ("text_neighbours", far_away),
        ("text_neighbours", too_many),
        ("text_neighbours", of_texts),
        ("scorer-co_occurrence", shorter),
        ("scorer-co_occurrence", without_facts),
        ("scorer-co_occurrence", far_away),
        ("scorer-co_occurrence", too_many),
        ("encoder", shorter),
        ("encoder", without_facts),
        ("tokenizer", shorter),
        ("tokenizer", without_facts),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_files_that_do_not_go_together(hostile, name, change):
    path = hostile / f"{name}.safetensors"
    change(State.load(path)).save(path)
    rehash(hostile)
    refused(
        hostile, name.split("-")[0] + "|words have weights|does not hold|sparse matrix|neighbours by text|were there at fit"
    )


ARRAYS = {
    "item_knn": ("similarity.safetensors", "data"),
    "text_knn": ("text_vectors.safetensors", "vectors"),
    "transition_graph": ("transitions.safetensors", "data"),
    "encoder": ("encoder.safetensors", "idf"),
    "scorer": ("scorer-co_occurrence.safetensors", "data"),
    "neighbours": ("text_neighbours.safetensors", "data"),
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ARRAYS)
def test_numbers_that_are_not_finite(toy, hostile, kind, value, tmp_path):
    folder, (name, array) = hostile, ARRAYS[kind]
    if kind.endswith(("knn", "graph")):
        folder = registry.resolve("recommender", kind)().fit(toy, progress=False).save(tmp_path / kind)
    state = State.load(folder / name)
    state.arrays[array] = state.arrays[array].astype(np.float32)
    state.arrays[array].flat[3] = value
    save_file(state.arrays, folder / name, metadata={"facts": json.dumps(state.facts)})
    rehash(folder)
    refused(folder, rf"{name} cannot be used: {array} should hold finite numbers, and some are NaN or infinite")


def test_numbers_that_are_too_large(toy, tmp_path):
    folder = registry.resolve("recommender", "item_knn")().fit(toy, progress=False).save(tmp_path / "model")
    state = State.load(folder / "similarity.safetensors")
    state.arrays["data"][:] = 1e300
    state.save(folder / "similarity.safetensors")
    rehash(folder)
    with pytest.raises(DiffGRMError, match="no list can be made of the scores: for 1 of 1 users some are NaN or infinite"):
        diffgrm.load(folder).recommend(HISTORY)


def test_a_learnt_scorer_without_its_file(hostile):
    files = json.loads((hostile / "manifest.json").read_text())["files"]
    (hostile / "scorer-co_occurrence.safetensors").unlink()
    manifest(hostile, files={name: facts for name, facts in files.items() if not name.startswith("scorer")})
    refused(hostile, r"scorer-co_occurrence\.safetensors is missing")


def test_files_follow_the_umask(fitted, tmp_path):
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            folder = fitted.save(tmp_path / f"{umask:o}")
        finally:
            os.umask(before)
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {mode}


def test_a_model_does_not_tell_where_its_vectors_lay(toy, tmp_path, monkeypatch, capsys):
    vectors = np.random.default_rng(0).normal(size=(toy.n_items, 8)).astype(np.float32)
    (tmp_path / "private").mkdir()
    path = tmp_path / "private" / "vectors.npy"
    np.save(path, vectors)
    raw = small_recipe("diffgrm").to_dict() | {"embedding": {"name": "precomputed", "path": str(path)}}
    recommender = DiffGRMRecommender(Recipe.from_dict(raw)).fit(toy, progress=False)
    folder = recommender.save(tmp_path / "model")
    assert not [file.name for file in folder.iterdir() if b"private" in file.read_bytes()]
    again = diffgrm.load(folder)
    assert again.recommend(HISTORY).equals(recommender.recommend(HISTORY))
    new = again.item_table.head(2).with_columns(item_id=pl.Series(["new 0", "new 1"]))
    with pytest.raises(DataError, match=r"vectors of 2 items are needed.*embedding\.path=FILE.*--vectors"):
        again.add_items(new)
    np.save(tmp_path / "later.npy", vectors[:2])
    grown = again.override([f"embedding.path={tmp_path / 'later.npy'}"]).add_items(new)
    assert grown.recommend([["new 0"]]).height == 10
    assert diffgrm.load(grown.save(tmp_path / "grown")).recipe.embedding.options["path"] is None
    new.write_parquet(tmp_path / "new.parquet")
    command = ["items", "add", folder, "--items", tmp_path / "new.parquet"]
    code, _, errors = called(monkeypatch, capsys, *command)
    assert code == 2 and "--vectors FILE" in errors
    code, _, errors = called(monkeypatch, capsys, *command, "--vectors", tmp_path / "later.npy")
    assert code == 0 and len(diffgrm.load(folder).items) == toy.n_items + 2, errors
