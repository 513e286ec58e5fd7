"""A model folder is whole or it is the old one; whatever is wrong with it is told."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import textwrap

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import diffgrm
from diffgrm import PopularityRecommender
from diffgrm.foundation import manifest, model_folder
from diffgrm.foundation.schema import ModelFolderError, RecipeError
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.sids import Identifiers
from helpers.folders import full_disk

HISTORY = ["item 3", "item 77"]


def beside(folder):
    """What lies where a model is saved, but for the (empty) file by which writers take turns."""
    return sorted(path.name for path in folder.parent.iterdir() if path.suffix != ".lock")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


FILES = ["encoder", "items", "model", "recipe", "semantic_ids", "tokenizer"]


def file_of(folder, stem):
    return next(p for p in folder.iterdir() if p.stem == stem)


def test_the_folder_holds_no_pickle_and_all_its_parts(saved):
    names = {p.name for p in saved.iterdir()}
    assert names == {
        "README.md",
        "encoder.safetensors",
        "items.parquet",
        "manifest.json",
        "model.safetensors",
        "recipe.yaml",
        "semantic_ids.safetensors",
        "tokenizer.safetensors",
    }


@pytest.mark.parametrize("stem", FILES)
def test_a_missing_file_is_named(copy, stem):
    path = file_of(copy, stem)
    path.unlink()
    with pytest.raises(ModelFolderError, match=f"is not whole: {path.name} is missing"):
        diffgrm.load(copy)


@pytest.mark.parametrize("stem", FILES)
def test_a_truncated_file_is_named(copy, stem):
    path = file_of(copy, stem)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ModelFolderError, match=rf"{path.name} has \d+ bytes, expected \d+ \(truncated\?\)"):
        diffgrm.load(copy)


@pytest.mark.parametrize("stem", FILES)
def test_a_foreign_file_is_named(copy, stem):
    path = file_of(copy, stem)
    path.write_bytes(bytes(b ^ 1 for b in path.read_bytes()))
    with pytest.raises(ModelFolderError, match=f"{path.name} is not the file that was saved"):
        diffgrm.load(copy)


def test_weights_that_do_not_fit_the_recipe_are_told(copy):
    weights = load_file(copy / "model.safetensors")
    weights["encoder.position"] = torch.zeros(3, 3)
    sizes = '{"n_items": 480, "n_digits": 3, "codebook_size": 16}'
    save_file(weights, copy / "model.safetensors", metadata={"sizes": sizes})
    manifest = json.loads((copy / "manifest.json").read_text())
    path = copy / "model.safetensors"
    manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": diffgrm.foundation.storage.file_digest(path)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match="does not fit the recipe beside it"):
        diffgrm.load(copy)


def test_other_folders_are_not_taken_for_models(tmp_path, copy):
    with pytest.raises(ModelFolderError, match="there is no model folder"):
        diffgrm.load(tmp_path / "nowhere")
    with pytest.raises(ModelFolderError, match=r"not a diffgrm model: it has no manifest\.json"):
        diffgrm.load(tmp_path)
    (copy / "manifest.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="another program's"):
        diffgrm.load(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ModelFolderError, match=r"manifest\.json is damaged"):
        diffgrm.load(copy)
    (copy / "manifest.json").write_text(json.dumps({"format": "diffgrm-model", "format_version": 99, "files": {}}))
    with pytest.raises(ModelFolderError, match="saved by a newer diffgrm"):
        diffgrm.load(copy)
    (copy / "manifest.json").write_text(json.dumps({"format": "diffgrm-model", "format_version": 1, "files": {}}))
    with pytest.raises(ModelFolderError, match="saved by an older diffgrm .* fit and save it again"):
        diffgrm.load(copy)


def test_files_of_the_hub_and_an_edited_card_do_no_harm(copy):
    (copy / ".gitattributes").write_text("*")
    (copy / "README.md").write_text("my own words")
    assert diffgrm.load(copy).recommend(HISTORY).height == 10


def test_saving_over_a_model_replaces_it(fitted, copy, toy):
    PopularityRecommender().fit(toy).save(copy)
    assert type(diffgrm.load(copy)) is PopularityRecommender
    assert beside(copy) == ["model"]


def test_places_taken_by_something_else_are_left_alone(fitted, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(ModelFolderError, match="holds files that are not a diffgrm model"):
        fitted.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ModelFolderError, match="is a file; give a folder"):
        fitted.save(tmp_path / "file")


def test_a_full_disk_leaves_the_old_model_whole(fitted, copy, monkeypatch):
    before = diffgrm.load(copy).recommend(HISTORY)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Identifiers, "save", full)
    with pytest.raises(ModelFolderError, match=r"could not be saved .*No space left.*what was there before is untouched"):
        fitted.save(copy)
    assert diffgrm.load(copy).recommend(HISTORY).equals(before)
    assert beside(copy) == ["model"]


def test_tables_that_could_not_be_loaded_do_not_take_the_place_of_others(fitted, copy, monkeypatch):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    save = ItemCatalogue.save

    def wrongly(self, folder):
        save(self, folder)
        table = pl.read_parquet(folder / "items.parquet")
        table.with_columns(item_id=pl.lit("one")).write_parquet(folder / "items.parquet")

    monkeypatch.setattr(ItemCatalogue, "save", wrongly)
    with pytest.raises(ModelFolderError, match=r"could not be saved .*items\.parquet.*what was there before is untouched"):
        fitted.save(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


@pytest.mark.parametrize("most", [0, 2_000, 12_000, 100_000])  # the recipe, the table, vectors, weights
def test_whatever_file_the_disk_is_full_at_the_save_is_refused_in_one_way(fitted, copy, most):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with full_disk(most), pytest.raises(ModelFolderError, match="what was there before is untouched"):
        fitted.remove_items(["item 3"]).save(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_full_disk_leaves_no_half_written_folder(fitted, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(ModelFolderError, match="No space left"):
        fitted.save(tmp_path / "model")
    assert beside(tmp_path / "model") == []


@pytest.mark.parametrize("moment", ["while its parts are written", "before the last rename"])
def test_a_kill_in_the_middle_of_a_save_leaves_the_old_model_whole(copy, moment):
    before = diffgrm.load(copy).recommend(HISTORY)
    code = f"""
        import os, signal
        import diffgrm
        from pathlib import Path
        from diffgrm.foundation import manifest
        model = diffgrm.load({str(copy)!r})
        def die(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        if {moment!r} == "while its parts are written":
            from diffgrm.recommenders.sids import Identifiers
            Identifiers.save = die
        else:
            replace = Path.replace
            def dying(self, target):
                if self.name.endswith(".new"):
                    die()
                return replace(self, target)
            Path.replace = dying
        model.save({str(copy)!r})
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    again = diffgrm.load(copy)
    assert again.recommend(HISTORY).equals(before)
    again.save(copy)  # and the place can be saved to again
    assert beside(copy) == ["model"]


def test_the_same_texts_get_the_same_sids_after_loading(fitted, saved):
    again = diffgrm.load(saved)
    codes = again.tokenizer.encode(again.encoder.encode(again.item_table))
    assert (codes == fitted.tokenizer.encode(fitted.encoder.encode(fitted.item_table))).all()
    assert (again.semantic_ids.codes == fitted.semantic_ids.codes).all()


def test_only_late_settings_can_be_overridden(saved):
    model = diffgrm.load(saved).override(["decoding.beam=3"])
    assert model.ranker().decoder.beam == 3
    with pytest.raises(
        diffgrm.foundation.schema.RecipeError,
        match=r"only decoding, .* the weights of item_scoring .* model\.width=3",
    ):
        model.override(["model.width=3"])


def test_a_manifest_of_another_program_does_not_make_a_folder_ours(fitted, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "pwa"}')
    (tmp_path / "app" / "index.html").write_text("precious")
    with pytest.raises(ModelFolderError, match="holds files that are not a diffgrm model"):
        fitted.save(tmp_path / "app")
    assert (tmp_path / "app" / "index.html").read_text() == "precious"


def test_what_a_kill_at_the_very_end_left_over_does_not_stop_the_next_save(fitted, copy):
    shutil.copytree(copy, copy.with_name(".model.old"))
    fitted.save(copy)
    assert beside(copy) == ["model"]


def test_a_manifest_without_its_parts_is_damaged(copy):
    (copy / "manifest.json").write_text('{"format": "diffgrm-model"}')
    with pytest.raises(ModelFolderError, match="format_version or files is missing"):
        diffgrm.load(copy)


def test_another_decoder_can_be_chosen_after_fit(saved):
    for name in ("one_pass", "any_order_beam"):
        model = diffgrm.load(saved).override([f"decoding.name={name}"])
        assert model.recommend(HISTORY, k=3).height == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["decoding.steps=9"], "steps"),
        (["decoding.group=planned", "decoding.sizes=[1,1]"], "sizes"),
        (["decoding.finish=items", "decoding.constrained=false"], "constrained"),
    ],
)
def test_a_decoder_that_cannot_work_is_refused_before_it_is_kept(saved, overrides, message):
    model = diffgrm.load(saved)
    with pytest.raises(RecipeError, match=message):
        model.override(overrides)
    assert model.recipe.decoding.options["steps"] is None and model.recommend(HISTORY, k=3).height == 3


@pytest.mark.parametrize("name", ["notes.txt", ".git", "other"])
def test_a_save_removes_nothing_that_is_not_the_model_s(fitted, copy, name):
    if name == "notes.txt":
        (copy / name).write_text("precious")
    else:
        shutil.copytree(copy, copy / name)  # another model's folder, or one of another program
    with pytest.raises(ModelFolderError, match=rf"holds more than a diffgrm model: {name}\. A save replaces the whole"):
        fitted.save(copy)
    assert (copy / name).exists() and beside(copy) == ["model"]
    (copy / name).rename(copy.parent / "elsewhere")
    (copy / "README.md").write_text("my own words")
    (copy / ".DS_Store").write_text("icons")
    fitted.save(copy)
    assert beside(copy) == ["elsewhere", "model"]


def test_what_an_older_save_wrote_is_the_model_s(fitted, copy):
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "old.bin").write_text("of an earlier format")
    content |= {"format_version": 1, "files": {**content["files"], "old.bin": {}}}
    (copy / "manifest.json").write_text(json.dumps(content))
    fitted.save(copy)
    assert not (copy / "old.bin").exists() and diffgrm.load(copy).recommend(HISTORY).height == 10


def test_no_model_is_saved_inside_of_another_s_folder(fitted, copy):
    for place in (copy / "inner", copy / "a" / "b"):
        with pytest.raises(ModelFolderError, match=r"(inner|b) lies in .*model, which is a diffgrm model: .* choose"):
            fitted.save(place)
    (copy.parent / "link").symlink_to(copy)
    with pytest.raises(ModelFolderError, match="lies in .*model, which is"):
        fitted.save(copy.parent / "link" / "inner")
    assert not (copy / "inner").exists() and not (copy / "a").exists()


def test_a_change_is_refused_before_the_work_where_the_folder_holds_more(copy):
    (copy / "notes.txt").write_text("precious")
    with pytest.raises(ModelFolderError, match=r"holds more than a diffgrm model: notes\.txt"):
        model_folder.change(copy, lambda: pytest.fail("the work began"), lambda changed: None)
