"""Model folders of the format before (2) are read as they are, and answer as they did.

``format_2.zip`` was written by the last commit of that format: tiny models of the toy storefront, each with the lists that
it gave for three histories, after an item was removed and (where the method takes new ones) one was added.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import polars as pl
import pytest
import yaml

import diffgrm
from diffgrm import HybridRecommender, Recipe
from diffgrm.foundation.manifest import FORMAT_VERSION
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import file_digest
from diffgrm.recommenders.old_folders import recipe_of_format_2
from helpers.folders import rehash

ZIP = Path(__file__).with_name("format_2.zip")
HISTORIES = [["item 3", "item 77", "item 410"], ["item 12"], ["item 5", "item 400"]]
METHOD = {  # what an old folder holds now
    "diffgrm": "hybrid",
    "diffgrm-three-branches": "hybrid",
    "diffgrm-digits-only": "diffgrm",
    "autoregressive": "autoregressive",
    "sasrec": "sasrec",
    "sid_sasrec": "sid_sasrec",
    "item_knn": "item_knn",
    "text_knn": "text_knn",
}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format_2")
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(folder)
    return folder


def version(folder):
    return json.loads((folder / "manifest.json").read_text())["format_version"]


def same(found, wanted):
    assert (found["score"] - wanted["score"]).abs().max() < 1e-5
    # which of those that nothing speaks for (score 0) come in was left open then
    assert found.filter(found["score"] != 0).drop("score").equals(wanted.filter(wanted["score"] != 0).drop("score"))


@pytest.mark.parametrize("name", METHOD)
def test_an_old_folder_answers_as_it_did_and_is_left_as_it_is(old, name, tmp_path):
    folder, wanted = old / name / "model", pl.read_parquet(old / name / "lists.parquet")
    before = {path.name: file_digest(path) for path in folder.iterdir()}
    recommender = diffgrm.load(folder)
    assert recommender.recipe.recommender == METHOD[name] and not recommender.recommendable[30]
    same(recommender.recommend(HISTORIES, k=8), wanted)
    assert {path.name: file_digest(path) for path in folder.iterdir()} == before and version(folder) == 2
    again = diffgrm.load(recommender.save(tmp_path / "new"))
    assert version(tmp_path / "new") == FORMAT_VERSION
    assert again.recommend(HISTORIES, k=8).equals(recommender.recommend(HISTORIES, k=8))
    if recommender.takes_new_items:
        more = again.add_items(again.item_table.head(1).with_columns(item_id=pl.lit("newer")))
        assert more.recommend([["newer", "item 5"]], k=3).height == 3


@pytest.mark.parametrize("method", ["autoregressive", "one_pass"])
def test_other_methods_that_learnt_items_are_hybrids_too(old, method):
    raw = yaml.safe_load((old / "diffgrm-three-branches" / "model" / "recipe.yaml").read_text())
    raw |= {"recommender": method, "decoding": {"name": "one_pass"}}
    raw["training"]["validation_decoding"] = {}
    if method == "autoregressive":
        raw |= {"model": {"name": "autoregressive"}, "decoding": {"name": "left_to_right"}}
        del raw["noising"]
    recipe = Recipe.from_dict(recipe_of_format_2(raw))
    assert recipe.recommender == "hybrid" and recipe.decoding.name == raw["decoding"]["name"]
    assert recipe.model.name == raw["model"]["name"] and "scorers" in HybridRecommender(recipe).new_parts()


def test_its_settings_are_those_it_had(old):
    recipe = diffgrm.load(old / "diffgrm-three-branches" / "model").recipe
    assert [branch.name for branch in recipe.model.options["branches"]] == ["sid", "text", "id"]
    weights = {name: part.options["weight"] for name, part in recipe.item_scoring.scorers.items()}
    assert weights == {"vectors": 1.0, "co_occurrence": 1.0, "new_items": 0.5}
    assert recipe.objective.options["item_weight"] == 3.0 and recipe.objective.options["digit_fraction"] == 0.2
    assert recipe.item_loss.cosine and recipe.decoding.options["weight"] == 0.1
    digits = diffgrm.load(old / "diffgrm-digits-only" / "model").recipe
    assert digits.objective.name == "diffusion" and digits.objective.options["label_smoothing"] == 0.1
    assert "item_loss" not in digits.sections


def test_one_that_does_not_hold_what_its_format_says_is_refused(old, tmp_path):
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "diffgrm" / "model"
    path = folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    del recipe["loss"]["item_weight"]
    path.write_text(yaml.safe_dump(recipe))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["recipe.yaml"] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match="does not hold what its format says: KeyError"):
        diffgrm.load(folder)


@pytest.mark.parametrize("file", ["items.parquet", "model.safetensors", "semantic_ids.safetensors"])
@pytest.mark.parametrize("kind", ["another table", "rows without end", "nothing"])
def test_strange_files_of_an_old_folder_are_told(old, tmp_path, file, kind):
    folder = shutil.copytree(old / "diffgrm" / "model", tmp_path / "model")
    if kind == "nothing":
        (folder / file).write_bytes(b"")
    else:
        rows = 5_000_000 if kind == "rows without end" else 1
        pl.DataFrame({"item_id": pl.repeat("a", rows, eager=True)}).write_parquet(folder / file)
    rehash(folder)
    with pytest.raises(ModelFolderError, match=re.escape(str(folder))):
        diffgrm.load(folder)
