"""Whoever reads digits reads the extra one: networks, decoders, exports, files."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import InteractionDataset, load_onnx, toy_world
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import ModelFolderError, RecipeError
from diffgrm.recommenders.parts import Beside
from diffgrm.runtime_onnx.export import export_onnx
from helpers.recipes import small_generation, small_recipe

EXTRA = ["semantic_ids.collisions=extra_digit", "tokenizer.n_digits=2", "tokenizer.codebook_size=32", "training.epochs=1"]
HISTORY = ["item 3", "item 77", "item 41"]


@pytest.fixture(scope="module")
def world():
    """Items of which every third has the text of the one before."""
    dataset = toy_world(users=80, seed=6).dataset
    table = dataset.item_table.with_row_index()
    text = pl.when(pl.col("index") % 3 == 1).then(pl.col("text").shift(1)).otherwise("text")
    return InteractionDataset.from_tables(dataset.event_table(), table.with_columns(text=text).drop("index"))


@pytest.fixture(scope="module", params=["diffgrm", "autoregressive", "one_pass", "hybrid", "sid_sasrec"])
def recommender(request, world):
    recipe = small_recipe(request.param).override(EXTRA)
    return resolve("recommender", request.param)(recipe).fit(world, progress=False)


def test_items_have_sids_of_their_own_and_all_can_be_recommended(recommender, world):
    ids = recommender.semantic_ids
    assert ids.n_digits == 3 and len(np.unique(ids.codes, axis=0)) == world.n_items and ids.codes[:, 2].max() > 0
    beam = [] if recommender.recipe.recommender in ("one_pass", "hybrid", "sid_sasrec") else ["decoding.beam=480"]
    found = recommender.variant(beam).recommend([HISTORY], k=world.n_items, exclude_seen=False)
    assert found["item_id"].n_unique() == found.height == world.n_items


def test_it_grows_moves_saves_and_loads(recommender, world, tmp_path):
    rows = recommender.item_table.head(4).with_columns(item_id=pl.Series([f"new {i}" for i in range(4)]))
    grown = recommender.add_items(rows)
    ids, before = grown.semantic_ids, recommender.semantic_ids
    assert (ids.codes[:-4] == before.codes).all() and len(np.unique(ids.codes, axis=0)) == len(ids)
    assert (
        ids.codes[-4:, :2] == before.codes[recommender.items.positions(rows["item_id"].str.replace("new", "item")), :2]
    ).all()
    assert set(grown.recommend([["new 1", "item 5"]], k=3, only=["new 0", "new 2", "item 9"])["item_id"]) >= {"new 0"}
    moved = grown.update_items(rows.with_columns(text=pl.lit(recommender.item_table["text"][9])), "move")
    assert len(np.unique(moved.semantic_ids.codes, axis=0)) == len(ids)
    again = diffgrm.load(grown.save(tmp_path / "model"))
    assert (again.semantic_ids.codes == ids.codes).all() and again.semantic_ids.codebook_sizes == ids.codebook_sizes
    assert again.recommend([HISTORY], k=9).equals(grown.recommend([HISTORY], k=9))
    newer = rows.with_columns(item_id=pl.Series(["w", "x", "y", "z"]))
    assert (again.add_items(newer).semantic_ids.codes == grown.add_items(newer).semantic_ids.codes).all()


def test_an_export_gives_the_same_lists(recommender, tmp_path):
    if recommender.recipe.recommender not in ("hybrid", "diffgrm"):
        pytest.skip("is not exported")
    ours = load_onnx(export_onnx(recommender, tmp_path / "onnx"), threads=1).recommend([HISTORY], k=9)
    assert ours["item_id"].equals(recommender.recommend([HISTORY], k=9)["item_id"])


def test_a_folder_whose_digits_are_not_the_recipes_is_refused(recommender, tmp_path):
    folder = recommender.save(tmp_path / "model")
    other = small_recipe(recommender.recipe.recommender).override([*EXTRA, "tokenizer.n_digits=3"])
    part = resolve("recommender", other.recommender)(other).new_parts()["sids"]
    beside = Beside(len(recommender.items), {})
    with pytest.raises(ModelFolderError, match=r"codes of the sizes \(32, 32\), the tokenizer of the recipe makes"):
        part.load(folder, other, beside)
    with pytest.raises(ModelFolderError, match="made with semantic_ids.collisions=extra_digit, the recipe has share"):
        part.load(folder, recommender.recipe.override(["semantic_ids.collisions=share"]), beside)


@pytest.mark.parametrize(("steps", "fits"), [(3, True), (4, False)])
def test_decoders_are_told_of_the_extra_digit_before_anything_is_learnt(steps, fits, world):
    recipe = small_recipe("diffgrm").override([*EXTRA, f"decoding.steps={steps}"])
    recommender = resolve("recommender", "diffgrm")(recipe)
    if fits:
        assert recommender.fit(world, progress=False).recommend([HISTORY], k=3).height == 3
        return
    with pytest.raises(RecipeError, match="decoding.steps 4 is more than the 3 digits of a semantic ID"):
        recommender.fit(world, progress=False)


def test_a_network_that_begins_at_an_item_scorer_begins_at_nothing_for_the_extra_digit(world):
    recipe = small_generation(*EXTRA)
    recommender = resolve("recommender", recipe.recommender)(recipe).fit(world, progress=False)
    vectors = recommender.parts["sids"].code_vectors()
    assert vectors.shape[:2] == (3, 32) and vectors[:2].any() and not vectors[2].any()
    assert recommender.recommend([HISTORY], k=5).height == 5
