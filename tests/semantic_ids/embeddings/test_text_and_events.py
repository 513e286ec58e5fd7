"""Texts and co-occurrence side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe, leave_one_out, load, toy_world
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import DataError, ModelFolderError, RecipeError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import EventContext, embed_items
from diffgrm.semantic_ids.embeddings.lsa import LSA
from diffgrm.semantic_ids.embeddings.text_and_events import TextAndEvents
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.residual_kmeans import ResidualKMeansTokenizer
from helpers.commands import called
from helpers.recipes import small_recipe

GROUP, WORDS = 12, ["pot", "pan", "cup", "jug"]


def two_groups():
    """Users of two groups meet disjoint items, whose texts are the same four."""
    generator, rows = np.random.default_rng(0), []
    for user in range(60):
        for place, item in enumerate(generator.permutation(GROUP)[:8]):
            rows.append((f"u{user:02}", f"{'ab'[user % 2]}{item:02}", place))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    ids = [f"{group}{item:02}" for group in "ab" for item in range(GROUP)]
    items = pl.DataFrame({"item_id": ids, "text": [f"{WORDS[int(item[1:]) % 4]} of tin" for item in ids]})
    return InteractionDataset.from_tables(events, items)


@pytest.fixture(scope="module")
def groups():
    return leave_one_out(two_groups())


@pytest.fixture(scope="module")
def world():
    return toy_world(users=60, seed=5).dataset


def fitted(split, **settings):
    return TextAndEvents(**settings).fit_events(EventContext(split))


def test_codes_of_texts_cannot_tell_groups_of_users_that_those_with_events_must(groups):
    table = groups.dataset.item_table
    texts = LSA().fit(table).encode(table)
    both = fitted(groups, rank=2).encode(table)

    def codes(vectors):
        return ResidualKMeansTokenizer(1, 8).fit(TokenizerContext.of(vectors)).encode(vectors)[:, 0]

    assert (codes(texts)[:GROUP] == codes(texts)[GROUP:]).all()
    assert not set(codes(both)[:GROUP]) & set(codes(both)[GROUP:])
    assert np.array_equal(both[:, : texts.shape[1]], texts)


def test_the_events_part_is_the_singular_value_decomposition_of_plain_counts(groups):
    encoder = fitted(groups, rank=5, weight=0.5)
    table, n_items = groups.dataset.item_table, groups.dataset.n_items
    met = np.zeros((len(groups.train), n_items))
    for user, row in enumerate(groups.train[user] for user in range(len(groups.train))):
        met[user, row] = 1
    left, sizes, _ = np.linalg.svd(met.T @ met)
    rows = left[:, :5] * sizes[:5]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = encoder.encode(table)[:, -5:]
    assert np.allclose(found @ found.T, 0.25 * rows @ rows.T, atol=2e-2)
    assert np.allclose(np.linalg.norm(found, axis=1), 0.5, atol=1e-6)


def test_how_often_a_user_met_an_item_does_not_count(groups):
    train = groups.train
    repeated = Ragged(np.repeat(train.values, 3), 3 * train.offsets)
    once, often = (fitted(replace(groups, train=rows)).state().arrays for rows in (train, repeated))
    assert np.array_equal(once["co_occurrence"], often["co_occurrence"])


def test_the_order_of_the_users_does_not_count(groups):
    order = np.random.default_rng(1).permutation(len(groups.train))
    one, other = (fitted(replace(groups, train=rows)).state().arrays for rows in (groups.train, groups.train.rows(order)))
    assert np.array_equal(one["co_occurrence"], other["co_occurrence"])


def test_items_without_events_and_those_that_come_later_fall_back_to_their_texts(world):
    split = leave_one_out(world)
    encoder, table = fitted(split, text={"name": "lsa", "width": 8}, rank=4), world.item_table
    vectors = encoder.encode(table)
    without = split.item_counts == 0
    assert without.any() and not vectors[without, 8:].any() and vectors[~without, 8:].any(1).mean() > 0.9
    assert np.allclose(np.linalg.norm(vectors[:, :8], axis=1), 1, atol=1e-6)
    later = table[:3].with_columns(item_id=pl.Series(["new 1", "new 2", "new 3"]))
    assert np.array_equal(encoder.encode(later)[:, :8], vectors[:3, :8]) and not encoder.encode(later)[:, 8:].any()


def test_items_of_which_the_directions_hold_nothing_get_the_zero_vector_not_noise():
    events = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b"), ("u3", "c"), ("u3", "d")]
    table = pl.DataFrame(
        [(u, i, t) for t, (u, i) in enumerate(2 * events)], schema=["user_id", "item_id", "timestamp"], orient="row"
    )
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": ["red pot", "blue pan", "red cup", "blue jug"]})
    split = leave_one_out(InteractionDataset.from_tables(table, items))
    vectors = fitted(split, rank=1).encode(split.dataset.item_table)[:, -1]
    assert np.allclose(np.abs(vectors), [1, 1, 0, 0])


def test_nothing_is_learnt_from_held_out_events(world):
    table = world.event_table()
    last = pl.int_range(pl.len()).over("user_id") == pl.len().over("user_id") - 1
    changed = table.with_columns(item_id=pl.when(last).then(pl.lit("item 7")).otherwise("item_id"))
    one, other = (
        fitted(leave_one_out(InteractionDataset.from_tables(events, world.item_table))).state()
        for events in (table, changed)
    )
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)


def test_the_cache_goes_by_events_texts_and_the_code_and_settings_of_the_text_encoder(groups, tmp_path):
    table, in_training = groups.dataset.item_table, groups.item_counts > 0

    def run(**settings):
        embed_items(TextAndEvents(**settings), table, in_training, tmp_path, EventContext(groups))
        return len(list(tmp_path.iterdir()))

    assert [run(), run(), run(rank=3), run(text={"name": "lsa", "width": 2}), run(weight=2.0), run()] == [1, 1, 2, 3, 4, 4]
    with pytest.raises(DataError, match="TextAndEvents learns from training events, and there are none"):
        embed_items(TextAndEvents(), table, in_training, tmp_path)


def test_any_text_encoder_will_do_and_models_do_not_keep_where_its_file_lies(world, tmp_path, monkeypatch, capsys):
    vectors = np.random.default_rng(0).normal(size=(world.n_items, 6)).astype(np.float32)
    np.save(tmp_path / "e.npy", vectors)
    text = {"name": "precomputed", "path": str(tmp_path / "e.npy")}
    encoder = fitted(leave_one_out(world), text=text, rank=3)
    assert encoder.encode(world.item_table).shape == (world.n_items, 9) and not encoder.cached and encoder.goes_by_rows
    raw = small_recipe("diffgrm").override(["training.epochs=1"]).to_dict()
    recipe = Recipe.from_dict(raw | {"embedding": {"name": "text_and_events", "text": text}})
    folder = DiffGRMRecommender(recipe).fit(world, progress=False).save(tmp_path / "model")
    again = load(folder)
    assert again.recipe.embedding.options["text"].options["path"] is None
    new = again.item_table.head(2).with_columns(item_id=pl.Series(["new 0", "new 1"]))
    with pytest.raises(DataError, match=r"vectors of 2 items are needed.*embedding\.text\.path"):
        again.add_items(new)
    np.save(tmp_path / "later.npy", vectors[:2])
    grown = again.override([f"embedding.text.path={tmp_path / 'later.npy'}"]).add_items(new)
    new.write_parquet(tmp_path / "new.parquet")
    asked = ["items", "add", folder, "--items", tmp_path / "new.parquet", "--vectors", tmp_path / "later.npy"]
    code, _, err = called(monkeypatch, capsys, *asked)
    assert code == 0, err
    assert np.array_equal(load(folder).semantic_ids.codes, grown.semantic_ids.codes)


def test_a_recommender_learns_saves_and_grows_with_it(world, tmp_path):
    recipe = small_recipe("diffgrm").override(
        ["embedding={name: text_and_events, text: {name: lsa, width: 16}, rank: 8}", "training.epochs=1"]
    )
    recommender = DiffGRMRecommender(recipe).fit(world, progress=False)
    new = pl.DataFrame({"item_id": ["new"], "text": [world.item_table["text"][3]]})
    grown = recommender.add_items(new)
    assert len(np.unique(grown.semantic_ids.codes, axis=0)) == world.n_items + 1
    recommender.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.add_items(new).semantic_ids.codes, grown.semantic_ids.codes)
    assert again.recommend([["item 0"]], k=5).equals(recommender.recommend([["item 0"]], k=5))


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        ("co_occurrence", np.zeros((3, 4), np.float32), r"shape \(3, 4\); expected \(24, rank\)"),
        ("co_occurrence", np.full((24, 4), np.nan, np.float32), "finite"),
        ("items", np.frombuffer(b"[1, ", np.uint8), "cannot be read"),
        ("items", np.frombuffer(json.dumps([["a"]] * 24).encode(), np.uint8), "no list of distinct texts"),
        ("items", np.frombuffer(json.dumps(["a"] * 24).encode(), np.uint8), "no list of distinct texts"),
    ],
)
def test_a_damaged_state_is_refused(groups, name, array, text):
    state = fitted(groups, rank=4).state()
    with pytest.raises(ModelFolderError, match=text):
        TextAndEvents().load_state(State({**state.arrays, name: array}, state.facts))


def test_settings_that_cannot_be_are_refused():
    for settings, text in [({"rank": 0}, "greater than or equal to 1"), ({"weight": 0}, "greater than 0")]:
        with pytest.raises(RecipeError, match=text):
            Recipe(embedding={"name": "text_and_events", **settings})
