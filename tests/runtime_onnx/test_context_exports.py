"""Exports of models that are told times and columns of events and users: their lists are those of the models."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import InteractionDataset, Recipe, evaluate, leave_one_out, load_onnx
from diffgrm.data.histories import HistoryEvent
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, ModelFolderError
from diffgrm.runtime_onnx.export import export_onnx
from diffgrm.runtime_onnx.network import Network
from helpers.folders import change_recipe, rehash
from helpers.recipes import small_generation, small_recipe
from helpers.worlds import EVERYTHING, ITEMS, SWITCHES, history_of, world

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SHORT = ["training.epochs=1", "training.batch_size=256", "embedding.min_items=1"]
FEW_CODES = [*SHORT, "tokenizer.codebook_size=4"]
GENERATION = ["embedding.measure=vectors", "tokenizer.codebook_size=4", "training.epochs=1", "model.pairwise_rank=2"]
MADE = {
    "hybrid": lambda: small_recipe("hybrid").override([*FEW_CODES, "model.history=causal"]),
    "diffgrm": lambda: small_recipe("diffgrm").override(FEW_CODES),
    "generation": lambda: small_generation(*GENERATION),
}
AT = "2001-02-03T21:00:00"
WEEK, DAY = 7 * 86400, 86400
CHANGES = {  # of events, of which each changes one or two inputs
    "nothing": pl.col("timestamp"),
    "gap and recency": pl.col("timestamp") - WEEK * (pl.col("timestamp") < pl.col("timestamp").max().over("user_id")),
    "hour": pl.col("timestamp") + 3 * 3600,
    "weekday": pl.col("timestamp") + DAY,
    "device": pl.lit("toaster").alias("device"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Makes a model whose tables of the context say much; gives it, its dataset and the folder of its export."""

    @cache
    def make(name):
        recipe = Recipe.from_dict(MADE[name]().to_dict() | {"events": EVERYTHING})
        table, people = world("hour", users=60)
        dataset = InteractionDataset.from_tables(table, ITEMS, events=recipe.events, profiles=people)
        model = resolve("recommender", recipe.recommender)(recipe).fit(dataset, progress=False)
        torch.manual_seed(0)
        torch.nn.init.normal_(model.network.context, std=0.5)
        model._forget()
        return model, dataset, export_onnx(model, tmp_path_factory.mktemp("exports") / "export")

    return make


def same(ours, theirs):
    """Equal lists but for rounding, in order of their users."""
    ours, theirs = (one.sort("user_id", "rank") for one in (ours, theirs))
    assert ours.select("user_id", "rank").equals(theirs.select("user_id", "rank"))
    np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-4)
    assert (ours["item_id"] == theirs["item_id"]).mean() > 0.99


@pytest.mark.parametrize("name", MADE)
def test_the_lists_are_those_of_the_model_whatever_is_told(exported, name):
    model, dataset, folder = exported(name)
    onnx, everybody, plain = load_onnx(folder, threads=1), dataset.event_table(), None
    for change in CHANGES.values():
        table = everybody.with_columns(change)
        theirs = model.recommend(table, 5)
        same(onnx.recommend(table, 5), theirs)
        assert plain is None or not theirs["score"].equals(plain["score"])  # it counts
        plain = theirs if plain is None else plain
    questions = [
        {"exclude_seen": False, "rules": {"pins": {2: "i3"}}},
        {"at": AT},
        {"at": {"u3": AT, "u5": "now"}, "without": ["i1"]},
        {"profiles": {"u3": {"plan": "paid"}, "u4": {"plan": None}}},
    ]
    for question in questions:
        theirs = model.recommend(everybody, 5, **question)
        same(onnx.recommend(everybody, 5, **question), theirs)
        assert not theirs["score"].equals(plain["score"])


@pytest.fixture(scope="module")
def told(exported):
    """A model that is told everything, its dataset and the folder of its export."""
    return exported("hybrid")


def test_lists_of_events_and_evaluation_are_asked_as_the_model_is(told):
    model, dataset, folder = told
    onnx = load_onnx(folder, threads=1)
    _, listed = history_of(dataset, "u3")
    for histories, asked in (({"u3": listed}, {"at": AT}), (listed, {"at": AT, "profiles": {0: {"plan": "paid"}}})):
        same(onnx.recommend(histories, 5, **asked), model.recommend(histories, 5, **asked))
    split = leave_one_out(dataset)
    ours, theirs = (evaluate(one, split.test, dataset.items, split.item_counts).metrics for one in (onnx, model))
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg@10"], abs=1e-3)


def test_what_a_request_lacks_or_says_for_nothing_gets_the_errors_of_the_model(told):
    model, dataset, folder = told
    onnx = load_onnx(folder, threads=1)
    table, _ = history_of(dataset, "u3")
    for histories, asked in (
        (["i1", "i2"], {}),
        (table.drop("timestamp"), {}),
        (table.drop("device"), {}),
        (table, {"at": "1950-01-01"}),
        (table, {"profiles": {"u3": {"level": 1}}}),
        (table, {"profiles": {"nobody": {"plan": "free"}}}),
    ):
        with pytest.raises(DataError) as wanted:
            model.recommend(histories, k=2, **asked)
        with pytest.raises(DataError) as found:
            onnx.recommend(histories, k=2, **asked)
        assert str(found.value) == str(wanted.value)


def test_pytorch_is_not_loaded(told, tmp_path):
    table, _ = history_of(told[1], "u3")
    table.write_parquet(tmp_path / "events.parquet")
    code = (
        "import sys, diffgrm; model = diffgrm.load_onnx(sys.argv[1], threads=1);"
        "found = model.recommend(sys.argv[2], k=3, at='2030-01-01', profiles={'u3': {'plan': 'free'}});"
        "assert found.height == 3; sys.exit('torch' in sys.modules)"
    )
    arguments = [str(told[2]), str(tmp_path / "events.parquet")]
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == 0


def test_types_are_told_as_the_model_is_told_them_and_gaps_alone_beside_them(tmp_path):
    events = {"event": "device", "targets": ["phone", "desktop"], **SWITCHES["gap"]}
    recipe = Recipe.from_dict(small_recipe("hybrid").override(FEW_CODES).to_dict() | {"events": events})
    table = world("hour", users=60)[0]
    dataset = InteractionDataset.from_tables(table, ITEMS, events=recipe.events)
    model = resolve("recommender", "hybrid")(recipe).fit(dataset, progress=False)
    torch.manual_seed(0)
    for learnt in (model.network.event_types, model.network.context):
        torch.nn.init.normal_(learnt, std=0.5)
    model._forget()
    onnx = load_onnx(export_onnx(model, tmp_path / "export"), threads=1)
    theirs = model.recommend(table, 5)
    same(onnx.recommend(table, 5), theirs)
    turned = table.with_columns(
        device=pl.when(pl.col("device") == "phone").then(pl.lit("desktop")).otherwise(pl.lit("phone"))
    )
    same(onnx.recommend(turned, 5), model.recommend(turned, 5))
    assert not onnx.recommend(turned, 5)["score"].equals(onnx.recommend(table, 5)["score"])  # it counts
    one = [HistoryEvent("i1", "desktop", time=5), HistoryEvent("i1", "phone", time=9)]  # one item in two ways
    same(onnx.recommend(one, 5, exclude_seen=False), model.recommend(one, 5, exclude_seen=False))
    with pytest.raises(DataError, match="which the model does not know"):
        onnx.recommend([HistoryEvent("i1", "toaster", time=5)], 5)
    change_recipe(tmp_path / "export", {"events": {"event": None, "targets": [], "time_inputs": ["gap"]}})
    refused(tmp_path / "export", "asks for types too; export the model again")


# ---- of strangers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(told, tmp_path):
    return shutil.copytree(told[2], tmp_path / "export")


def refused(folder, match):
    rehash(folder)
    with pytest.raises(ModelFolderError, match=match):
        load_onnx(folder, threads=1)


def test_profiles_that_the_recipe_lacks_are_refused(hostile):
    path = hostile / "users.parquet"
    pl.read_parquet(path).with_columns(pl.lit(9, pl.Int16).alias("0")).write_parquet(path)
    refused(hostile, "numbers of values that the recipe lacks")


def test_a_recipe_that_tells_something_else_than_the_graph_takes_is_refused(hostile, monkeypatch):
    change_recipe(hostile, {"events": {"time_inputs": ["gap"]}})
    refused(hostile, "the graph of the export does not take what it is given")
    monkeypatch.setattr(Network, "told", set())
    refused(hostile, "its graph takes no context, of which its recipe tells networks")
    monkeypatch.undo()
    change_recipe(hostile, {"events": {"time_inputs": [], "event_columns": {}, "user_columns": {}}})
    refused(hostile, "asks for context too; export the model again")


@pytest.mark.parametrize("causal", [None, 1, "true"])
def test_whether_it_is_causal_is_checked(hostile, causal):
    manifest = json.loads((hostile / "manifest.json").read_text())
    (hostile / "manifest.json").write_text(json.dumps(manifest | {"onnx": {**manifest["onnx"], "causal": causal}}))
    refused(hostile, "its causal is .*; expected true or false")


def test_times_in_too_small_a_unit_are_refused(exported, tmp_path):
    model, dataset, _ = exported("diffgrm")
    model = copy.copy(model)
    model.take(model.parts, model.catalogue, model.facts | {"events_from": 1_700_000_000})
    onnx = load_onnx(export_onnx(model, tmp_path / "export"), threads=1)
    with pytest.raises(DataError, match="all times would be of 1970, and the model learnt from events of 2023-11-14"):
        onnx.recommend(dataset.event_table(), k=3)
