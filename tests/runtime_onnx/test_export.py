from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import (
    DiffGRMRecommender,
    PopularityRecommender,
    evaluate,
    leave_one_out,
    load,
    load_onnx,
)
from diffgrm.foundation.model_folder import MANIFEST
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, DiffGRMError, MissingExtraError, ModelFolderError, RecipeError
from diffgrm.foundation.storage import State, file_digest
from diffgrm.runtime_onnx import export, graphs
from diffgrm.runtime_onnx.export import export_onnx
from diffgrm.runtime_onnx.network import DENOISE, ENCODE_HISTORY, Network
from helpers.recipes import small_recipe

HISTORY = ["item 3", "item 77", "item 410"]
VARIANTS = {
    "causal, as released, shared SIDs": [
        "model.history=causal",
        "model.init=release",
        "model.decoder_layers=2",
        "semantic_ids.collisions=share",
        "tokenizer.codebook_size=4",
    ],
    "long SIDs": ["tokenizer.name=random", "tokenizer.n_digits=8", "tokenizer.codebook_size=4", "decoding.beam=8"],
    "one digit, one item, no encoder": [
        "semantic_ids.collisions=share",
        "tokenizer={name: opq, n_digits: 1, codebook_size: 16}",
        "model.encoder_layers=0",
        "model.history=causal",
        "model.max_len=1",
    ],
}


def copy_graphs(source, monkeypatch):
    """Exports take the graphs of another export, which takes no time."""

    def copy(_, folder, *__):
        for name in (ENCODE_HISTORY, DENOISE):
            (folder / name).write_bytes((source / name).read_bytes())

    monkeypatch.setattr(export, "write_graphs", copy)


def same(ours, theirs):
    """Equal lists, but for places that change where scores are equal up to rounding."""
    assert ours.schema == theirs.schema and ours.height == theirs.height
    assert ours["user_id"].equals(theirs["user_id"]) and ours["rank"].equals(theirs["rank"])
    np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-4)
    assert (ours["item_id"] == theirs["item_id"]).mean() > 0.99


def changed(path, content):
    """Write a file of an export anew, and its manifest with it."""
    manifest = json.loads((path.parent / MANIFEST).read_text())
    path.write_bytes(content)
    manifest["files"][path.name] = {"bytes": len(content), "sha256": file_digest(path)}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def traced(exported, monkeypatch):
    """Tracing takes seconds: where the network is that of ``exported``, its graphs are taken."""

    copy_graphs(exported, monkeypatch)


# ---- equal answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beam", "k"), [(2, 10), (16, 1), (16, 10), (128, 10), (4, 480)])
def test_the_export_recommends_what_the_model_recommends(saved, exported, histories, beam, k):
    model = load(saved).override([f"decoding.beam={beam}"])
    same(load_onnx(exported, threads=1, beam=beam).recommend(histories, k), model.recommend(histories, k))


def test_filters_and_seen_items(fitted, onnx, histories):
    some = [f"item {i}" for i in range(0, 480, 7)]
    for settings in (
        {"exclude_seen": False},
        {"only": some},
        {"without": some},
        {"only": [*some, "nowhere"], "without": some[3:], "exclude_seen": False},
        {"only": ["item 3"]},
    ):
        same(onnx.recommend(histories, 5, **settings), fitted.recommend(histories, 5, **settings))


@pytest.mark.parametrize("name", VARIANTS)
def test_other_networks_and_semantic_ids(name, tiny_recipe, toy, histories, tmp_path):
    recipe = tiny_recipe.override([*VARIANTS[name], "training.epochs=1"])
    model = DiffGRMRecommender(recipe).fit(toy, progress=False)
    onnx = load_onnx(export_onnx(model, tmp_path / "export"), threads=1)
    for k in (3, 40):
        same(onnx.recommend(histories, k), model.recommend(histories, k))


def test_removed_items_and_fixed_order(saved, histories, traced, tmp_path):
    model = load(saved).override(["decoding.order=fixed", "decoding.steps=3"])
    first = model.recommend(histories, 3)["item_id"].unique().to_list()
    model = model.remove_items(first)
    onnx = load_onnx(export_onnx(model, tmp_path / "export"), threads=1)
    found = onnx.recommend(histories, 10)
    same(found, model.recommend(histories, 10))
    assert not set(found["item_id"]) & set(first)
    same(onnx.recommend(histories, 5, without=["item 1"]), model.recommend(histories, 5, without=["item 1"]))


def test_every_shape_gives_the_logits_and_users_of_the_model(fitted, exported):
    network, graphs, generator = fitted.network, Network(exported, threads=1), np.random.default_rng(0)
    width = network.digits.codes.shape[1]
    for users, questions, length, items in ((1, 1, 1, 1), (7, 1, 8, 5), (1, 33, 3, 9), (7, 5, 2, 1)):
        vectors = generator.normal(size=(items, width)).astype(np.float32)
        places, valid = generator.integers(0, items, (users, length)), np.ones((users, length), dtype=bool)
        valid[::2, 1:] = False
        codes, mask = generator.integers(0, 16, (users, questions, 3)), generator.random((users, questions, 3)) < 0.6
        mask[..., 0] = True
        encoded = graphs.encode_history(vectors, places, valid)
        ours = graphs.denoise(codes, mask, encoded)
        with torch.no_grad():
            memory = network.encode_history(*map(torch.from_numpy, (vectors, places, valid)))
            theirs = network.denoise(torch.from_numpy(codes), torch.from_numpy(mask), memory)
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
        np.testing.assert_allclose(encoded.users, network.user_vectors(memory).detach(), atol=2e-5)


def test_it_can_be_evaluated_and_tells_its_progress(onnx, fitted, toy, histories):
    split = leave_one_out(toy)
    ours, theirs = (evaluate(one, split.test, toy.items, split.item_counts).metrics for one in (onnx, fitted))
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg@10"], abs=1e-3)
    done = []
    onnx.recommend(histories, progress=done.append)
    assert sum(done) == len(histories)


@pytest.mark.parametrize("scores", [False, True])
def test_pytorch_is_not_loaded(scores, exported, hybrid_exported):
    folder = hybrid_exported if scores else exported
    code = (
        "import sys, diffgrm; model = diffgrm.load_onnx(sys.argv[1], threads=1);"
        "assert model.recommend([['item 3']], k=3, without=['item 1']).height == 3; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 0


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_bad_questions_get_the_errors_of_every_recommender(onnx, fitted):
    for question, settings in (
        ([HISTORY], {"k": 0}),
        ([HISTORY], {"k": 481}),
        ([HISTORY], {"only": ["no such item"]}),
        ([["no such item"]], {}),
        ([HISTORY], {"on_empty": "ignore"}),
        ([], {}),
    ):
        with pytest.raises(DataError) as wanted:
            fitted.recommend(question, **settings)
        with pytest.raises(DataError) as found:
            onnx.recommend(question, **settings)
        assert str(found.value) == str(wanted.value)
    assert onnx.recommend([HISTORY, ["no such item"]], on_empty="skip", k=2)["user_id"].to_list() == [0, 0]
    for rules in (None, {"pins": {1: "item 1"}}):
        none, some = (onnx.recommend([[item]], on_empty="skip", k=2, rules=rules) for item in ("no such item", "item 5"))
        assert none.height == 0 and none.schema == some.schema


@pytest.mark.parametrize("setting", ["threads", "beam", "candidates"])
@pytest.mark.parametrize("number", [0, -1, 10**30, True, 1.5])
def test_numbers_that_are_none_are_refused(exported, setting, number):
    with pytest.raises(DataError, match=f"{setting} is {number}; expected a whole number from 1 to [0-9,]+, or None"):
        load_onnx(exported, **{setting: number})


def test_candidates_are_refused_where_a_beam_search_decodes(exported):
    with pytest.raises(DataError, match="this export decodes by any_order_beam, which has beam instead; give beam="):
        load_onnx(exported, candidates=8)
    assert load_onnx(exported, threads=1, beam=8).decoding.beam == 8


def test_a_beam_is_refused_where_item_scores_propose(hybrid_exported):
    with pytest.raises(DataError, match="this export decodes by item_proposals, which has candidates instead; give"):
        load_onnx(hybrid_exported, beam=8)
    onnx = load_onnx(hybrid_exported, threads=1, candidates=3)
    assert onnx.decoding.candidates == 3 and onnx.recommend([HISTORY], k=2).height == 2


def test_other_recommenders_are_refused(toy, tmp_path):
    for name, reason in (
        ("popularity", "- it has no network\n  - it has no semantic IDs$"),
        ("sasrec", "- its model 'sasrec' lacks denoise, denoise_places; .*\n  - it has no semantic IDs$"),
        ("autoregressive", "- its model 'autoregressive' lacks denoise, denoise_places; model.name=diffgrm has them$"),
    ):
        recommender = resolve("recommender", name)(small_recipe(name))
        with pytest.raises(RecipeError, match=f"the recommender '{name}' cannot be exported to ONNX.*\n  {reason}"):
            export_onnx(recommender, tmp_path / "export")
    with pytest.raises(RecipeError, match="'popularity' cannot be exported to ONNX"):
        export_onnx(PopularityRecommender().fit(toy), tmp_path / "export")
    with pytest.raises(DiffGRMError, match="not fitted"):
        export_onnx(DiffGRMRecommender(), tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_one_pass_is_exported_and_has_no_width(toy, histories, tmp_path):
    model = resolve("recommender", "one_pass")(small_recipe("one_pass").override(["training.epochs=1"]))
    model.fit(toy, progress=False)
    onnx = load_onnx(export_onnx(model, tmp_path / "export"), threads=1)
    same(onnx.recommend(histories, 5), model.recommend(histories, 5))
    for width in ("beam", "candidates"):
        with pytest.raises(DataError, match=f"{width} is 8, but this export decodes by one_pass, which looks at all items"):
            load_onnx(tmp_path / "export", **{width: 8})


def test_other_ways_of_decoding_are_refused_all_at_once(saved, tmp_path):
    with pytest.raises(RecipeError) as error:
        export_onnx(
            load(saved).override(["decoding.steps=2", "decoding.order=random"]),
            tmp_path / "export",
        )
    assert str(error.value).split("\n") == [
        "this way of decoding has no ONNX runtime; change it for the export with overrides:",
        "  - expected decoding.steps=null, found 2",
        "  - expected decoding.order=confidence or decoding.order=fixed, found random",
    ]
    with pytest.raises(RecipeError, match="expected decoding.merge=best_path, found sum_paths"):
        export_onnx(load(saved).override(["decoding.merge=sum_paths"]), tmp_path / "export")
    with pytest.raises(RecipeError, match="expected decoding.constrained=true, found false"):
        export_onnx(load(saved).override(["decoding.constrained=false"]), tmp_path / "export")
    with pytest.raises(
        RecipeError,
        match="expected decoding.name=any_order_beam or decoding.name=item_proposals or decoding.name=one_pass, found "
        "catalogue_beam",
    ):
        export_onnx(load(saved).override(["decoding.name=catalogue_beam"]), tmp_path / "export")


def test_a_place_that_holds_other_things_is_refused(fitted, saved, exported, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelFolderError, match="holds files that are not an ONNX export of diffgrm; choose a new"):
        export_onnx(fitted, tmp_path)
    with pytest.raises(ModelFolderError, match="is a diffgrm model, not an ONNX export of diffgrm"):
        export_onnx(fitted, saved)
    with pytest.raises(ModelFolderError, match="is an ONNX export of diffgrm, not a diffgrm model"):
        fitted.save(exported)


def test_each_reader_names_the_other(saved, exported):
    with pytest.raises(ModelFolderError, match=r"is an ONNX export of diffgrm, not .*; read it with diffgrm.load_onnx"):
        load(exported)
    with pytest.raises(
        ModelFolderError, match=r"is a diffgrm model, not an ONNX export of diffgrm; read it with diffgrm.load$"
    ):
        load_onnx(saved)


def test_a_missing_package_is_named(fitted, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"'onnxscript'; install it with: pip install 'diffgrm\[onnx\]'"):
        export_onnx(fitted, tmp_path / "export")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime'; install it with: pip install 'diffgrm\[onnx\]'"):
        load_onnx(exported)


# ---- the folder ---------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_is_needed_and_nothing_else(exported, fitted):
    names = {ENCODE_HISTORY, DENOISE, "items.parquet", "semantic_ids.safetensors", "recipe.yaml", "README.md", MANIFEST}
    names.add("item_vectors.safetensors")
    assert {path.name for path in exported.iterdir()} == names
    assert set(json.loads((exported / MANIFEST).read_text())["files"]) == names - {"README.md", MANIFEST}
    assert 'diffgrm.load_onnx("THIS_FOLDER")' in (exported / "README.md").read_text()
    weights = sum(p.numel() * 4 for p in fitted.network.parameters())
    assert sum((exported / name).stat().st_size for name in (ENCODE_HISTORY, DENOISE)) < weights + 2**16
    assert b".py" not in (exported / DENOISE).read_bytes()  # no traces of where the source lay


@pytest.fixture
def copied(exported, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_what_scores_whole_items_comes_along_where_it_is_asked(hybrid, hybrid_exported, tmp_path, monkeypatch):
    scoring = {"text_neighbours.safetensors", "scorer-co_occurrence.safetensors"}
    with_scores = {path.name for path in hybrid_exported.iterdir()}
    assert scoring <= with_scores
    assert list(State.load(hybrid_exported / "item_vectors.safetensors").arrays) == ["vectors"]
    copy_graphs(hybrid_exported, monkeypatch)
    by_digits = export_onnx(hybrid.variant(["decoding.name=any_order_beam"]), tmp_path / "export")
    assert {path.name for path in by_digits.iterdir()} == with_scores - scoring


def test_an_export_of_the_format_before_is_refused(copied):
    manifest = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(json.dumps(manifest | {"format_version": 2}))
    with pytest.raises(ModelFolderError, match="was saved by an older diffgrm .format 2, .*, export the model again"):
        load_onnx(copied)


def test_damage_is_found(copied):
    whole = (copied / DENOISE).read_bytes()
    (copied / DENOISE).write_bytes(whole[:1000])
    (copied / "items.parquet").unlink()
    with pytest.raises(ModelFolderError, match="is not whole: denoise.onnx has 1000 bytes.*items.parquet is missing"):
        load_onnx(copied)


def test_graphs_and_facts_of_another_kind_are_found(copied):
    changed(copied / DENOISE, b"not a graph")
    with pytest.raises(ModelFolderError, match="ONNX Runtime cannot read .*denoise.onnx"):
        load_onnx(copied)
    manifest = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(json.dumps({key: value for key, value in manifest.items() if key != "onnx"}))
    with pytest.raises(ModelFolderError, match="'onnx' is missing in it; export the model again"):
        load_onnx(copied)


@pytest.mark.parametrize(("output", "weight"), [("logits", "masked"), ("users' vectors", "encoder.norm.bias")])
def test_graphs_that_say_something_else_are_not_kept(output, weight, saved, traced, tmp_path):
    model = load(saved)
    with torch.no_grad():
        model.network.get_parameter(weight)[..., 0] += 9
    with pytest.raises(DiffGRMError, match=f"do not compute what the network does .{output} differ by"):
        export_onnx(model, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("output", ["users' vectors", "logits"])
def test_an_output_that_is_wrong_is_named(output, fitted, traced, tmp_path, monkeypatch):
    def wrong(function, of):
        def changed_output(*given, **named):
            found = function(*given, **named)
            return of(found)

        return changed_output

    if output == "logits":
        monkeypatch.setattr(Network, "denoise", wrong(Network.denoise, lambda logits: logits + 0.1))
    else:
        users = wrong(Network.encode_history, lambda memory: replace(memory, users=memory.users + 0.1))
        monkeypatch.setattr(Network, "encode_history", users)
    with pytest.raises(DiffGRMError, match=f"do not compute what the network does .{output} differ by 0.1"):
        export_onnx(fitted, tmp_path / "export")


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("no such operator")])
def test_an_export_that_fails_leaves_what_was_there(fitted, copied, tmp_path, monkeypatch, error):
    def fail(*given):
        given[-1].write_bytes(b"half")
        raise error

    monkeypatch.setattr(graphs, "_write_graph", fail)
    for target in (copied, tmp_path / "new"):
        with pytest.raises((ModelFolderError, RuntimeError), match=str(error)):
            export_onnx(fitted, target)
    assert load_onnx(copied, threads=1).recommend([HISTORY], k=2).height == 2
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["copy"]


def test_an_export_replaces_an_older_one(fitted, traced, copied):
    model = fitted.remove_items(["item 1"])
    export_onnx(model, copied)
    assert pl.read_parquet(copied / "items.parquet")["_recommendable"].sum() == 479
