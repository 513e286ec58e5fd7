"""An export gives the lists of the recommender that was exported, over all that can be."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import DiffGRMRecommender, HybridRecommender, Recipe, load_onnx
from diffgrm.runtime_onnx import export
from diffgrm.runtime_onnx.export import export_onnx
from helpers.recipes import small_generation, small_recipe

SOME = [f"item {i}" for i in range(0, 480, 7)]
QUESTIONS = {
    "few": {"k": 5},
    "many": {"k": 60},
    "all": {"k": 400, "exclude_seen": False},
    "seen": {"k": 7, "exclude_seen": False},
    "only": {"k": 10, "only": SOME},
    "only, with seen": {"k": 10, "only": SOME, "exclude_seen": False},
    "without": {"k": 10, "without": SOME},
    "without, with seen": {"k": 10, "without": SOME, "exclude_seen": False},
    "both": {"k": 3, "only": [*SOME, "nowhere"], "without": SOME[3:], "exclude_seen": False},
    "one seen item": {"k": 3, "only": ["item 3"]},
    "rules": {"k": 6, "rules": {"where": {"colour": {"in": ["red", "blue"]}}, "caps": {"brand": 1}}},
    "boosts": {"k": 10, "rules": {"boosts": [{"by": 1.5, "where": {"brand": {"in": ["Lumen", "Crumb"]}}}]}},
}
RESCORER = "parts.rescorer:LessPopular"


def hybrid_recipe(**sections):
    raw = small_recipe("hybrid").to_dict()
    return Recipe.from_dict(raw | {name: raw[name] | more for name, more in sections.items()})


@pytest.fixture(scope="module")
def hybrid(toy):
    return HybridRecommender(hybrid_recipe()).fit(toy, progress=False)


@pytest.fixture(scope="module")
def rescored(toy):
    recipe = hybrid_recipe(item_scoring={RESCORER: {"weight": 0.5, "candidates": 80}}, training={"epochs": 1})
    return HybridRecommender(recipe).fit(toy, progress=False)


@pytest.fixture(scope="module")
def fitted_by_shared(toy):
    shared = ["semantic_ids.collisions=share", "tokenizer.codebook_size=4", "training.epochs=1"]
    return DiffGRMRecommender(small_recipe("diffgrm").override(shared)).fit(toy, progress=False)


@pytest.fixture(scope="module")
def paired(toy):
    """In one pass, with scores of every two digits that count as much as those of single ones."""
    recipe = small_generation("embedding.measure=vectors", "model.pairwise_rank=4", "training.epochs=1")
    made = DiffGRMRecommender(recipe).fit(toy, progress=False)
    torch.manual_seed(0)
    torch.nn.init.normal_(made.network.pairs.user.weight, std=0.2)
    return made


@pytest.fixture(scope="module")
def generation(toy):
    """In one pass, from the state of the newest item; in a space without directions that hardly any user asks about, in
    which rounding would show."""
    return DiffGRMRecommender(small_generation("embedding.measure=vectors")).fit(toy, progress=False)


def close(ours, theirs):
    """[M] bool, whether scores are equal but for rounding."""
    return np.isclose(ours, theirs, rtol=0, atol=1e-4)


def changed(recommender):
    """The recommender with new items, of which one goes again, with others that go, and with texts that change."""
    rows = recommender.item_table.head(3).with_columns(item_id=pl.Series(["new 0", "new 1", "new 2"]))
    moved = recommender.item_table[[200]].with_columns(item_id=pl.lit("item 9"))
    grown = recommender.add_items(rows).remove_items(["new 2", "item 77", *SOME[:9:2]])
    return grown.update_items(moved, "move")


MADE = {
    "hybrid": lambda use, toy: use("hybrid"),
    "digits have a say": lambda use, toy: use("hybrid").variant(["decoding.weight=0.1"]),
    "few candidates": lambda use, toy: use("hybrid").variant(["decoding.weight=0.5", "decoding.candidates=4"]),
    "looked up": lambda use, toy: use("hybrid").variant(["retrieval.index=hnsw", "retrieval.candidates=480"]),
    "vectors alone": lambda use, toy: use("hybrid").variant(
        ["item_scoring.co_occurrence.weight=0", "item_scoring.new_items.weight=0"]
    ),
    "a catalogue that changed": lambda use, toy: changed(use("hybrid")),
    "hybrid by digits": lambda use, toy: use("hybrid").variant(["decoding.name=any_order_beam", "decoding.beam=16"]),
    "cosine": lambda use, toy: HybridRecommender(
        hybrid_recipe(item_loss={"cosine": True, "temperature": 0.07}, training={"epochs": 1})
    ).fit(toy, progress=False),
    "a second look": lambda use, toy: use("rescored"),
    "a second look, then digits": lambda use, toy: use("rescored").variant(["decoding.weight=0.1"]),
    "digits only": lambda use, toy: use("fitted"),
    "digits only, a catalogue that changed": lambda use, toy: changed(use("fitted")),
    "gates": lambda use, toy: DiffGRMRecommender(
        small_recipe("diffgrm").override(["model.gated=true", "model.history=causal", "training.epochs=1"])
    ).fit(toy, progress=False),
    "one pass": lambda use, toy: use("generation"),
    "one pass, a catalogue that changed": lambda use, toy: changed(use("generation")).variant(["decoding.new_items=1.5"]),
    "one pass, shared semantic IDs": lambda use, toy: use("fitted_by_shared").variant(["decoding.name=one_pass"]),
    "pairs of digits": lambda use, toy: use("paired"),
    "pairs of digits, a catalogue that changed": lambda use, toy: changed(use("paired")),
    "newest state, by a beam": lambda use, toy: use("generation").variant(["decoding.name=any_order_beam"]),
}


@pytest.fixture(scope="module", autouse=True)
def graphs_made_once(tmp_path_factory):
    """Trace each network once: a graph holds nothing of the catalogue, nor of how lists are made."""
    traced, trace = {}, export.write_graphs

    def write(items, folder, more, told):
        weights = b"".join(values.numpy().tobytes() for values in items.network.state_dict().values())
        asked = weights, items.comparison, more, told
        if asked not in traced:
            traced[asked] = tmp_path_factory.mktemp("graphs")
            trace(items, traced[asked], more, told)
        shutil.copytree(traced[asked], folder, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "write_graphs", write)
        yield


@pytest.fixture(scope="module", params=MADE)
def both(request, toy, tmp_path_factory):
    """An export and the recommender that was exported."""
    recommender = MADE[request.param](request.getfixturevalue, toy)
    folder = export_onnx(recommender, tmp_path_factory.mktemp("exports") / "export")
    return load_onnx(folder, threads=1, trust_code=True), recommender


@pytest.fixture(scope="module")
def histories(toy):
    """Of every length from 1 item to more than the network looks at."""
    found = {f"user {i}": toy.items.ids(toy.events[i][: 1 + i % 12]) for i in range(len(toy.events))}
    return found | {"long": toy.items.ids(np.arange(0, 400, 9)), "repeats": ["item 5"] * 9 + ["nowhere", "item 6"]}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_lists_are_those_of_the_recommender(question, both, histories):
    ours, theirs = (one.recommend(histories, **QUESTIONS[question]) for one in both)
    assert ours.schema == theirs.schema and ours.select("user_id", "rank").equals(theirs.select("user_id", "rank"))
    last = theirs.group_by("user_id").agg(last=pl.col("score").min())
    joined = ours.join(theirs, on=["user_id", "item_id"], how="left", maintain_order="left")
    joined = joined.join(last, on="user_id", how="left", maintain_order="left")
    of_item = joined["score_right"].fill_null(joined["last"])  # items change places only where scores are nearly equal
    apart = (ours["item_id"] != theirs["item_id"]).to_numpy()
    other = ~(close(ours["score"], theirs["score"]) & close(ours["score"], of_item))
    # Where two digits are equally sure, rounding decides which is filled first, and so what the other one counts.
    by_digits = both[1].recipe.decoding.options.get("weight", 0) > 0
    assert other.mean() <= (0.001 if by_digits else 0) and apart.mean() <= 0.005


def test_items_that_came_are_recommended_and_those_that_went_are_not(hybrid, tmp_path):
    onnx = load_onnx(export_onnx(changed(hybrid), tmp_path / "export"), threads=1)
    found = set(onnx.recommend([["item 3", "new 0"]], k=400, exclude_seen=False)["item_id"])
    everything = set(onnx.recommend([["new 1"]], k=len(onnx.items), exclude_seen=False)["item_id"])
    assert {"new 0", "new 1"} <= everything and not {"new 2", "item 77", *SOME[:9:2]} & (found | everything)
