"""The benchmark datasets, where they are at hand: what their pages say holds, and the whole path runs on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe, evaluate, leave_one_out
from diffgrm.evaluation.kinds import seen_steps
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.embeddings.lsa import LSA
from diffgrm.semantic_ids.semantic_ids import SemanticIds
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.from_file import FromFileTokenizer
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer
from helpers.recipes import TINY

DATA = Path(os.environ.get("DIFFGRM_BENCHMARK_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def load(name):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return InteractionDataset.from_tables(folder / "interactions.parquet", folder / "items.parquet", name=name)


def test_films_that_were_liked_are_chosen_by_their_rating():
    folder = DATA / "movielens-100k"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    liked = Recipe(recommender="popularity", events={"rating": "rating", "min_rating": 4}).events
    dataset = InteractionDataset.from_tables(folder / "interactions.parquet", folder / "items.parquet", events=liked)
    assert (dataset.n_users, dataset.n_items) == (942, 1_682)
    assert str(dataset.report) == (
        "100,000 rows read, 55,375 kept as events; dropped: 44,625 rating below 4.0 (events.min_rating)"
    )


@pytest.mark.parametrize(
    ("name", "users", "items", "events"),
    [
        ("amazon-beauty", 22_363, 12_101, 198_502),
        ("amazon-sports", 35_598, 18_357, 296_337),
        ("amazon-office", 3_231, 3_459, 22_447),
        ("movielens-100k", 943, 1_682, 100_000),
    ],
)
def test_published_sizes_hold(name, users, items, events):
    dataset = load(name)
    assert (dataset.n_users, dataset.n_items, len(dataset.events.values)) == (users, items, events)
    split = leave_one_out(dataset)
    assert len(split.test) == len(split.validation) == users


def test_beauty_items_get_distinct_sids_that_know_their_neighbours():
    dataset = load("amazon-beauty")
    in_training = leave_one_out(dataset).item_counts > 0
    embeddings = embed_items(LSA(width=64), dataset.item_table, in_training)
    tokenizer = OPQTokenizer(4, 256, pca_width=64, iterations=3).fit(TokenizerContext(embeddings, in_training))
    ids, report = SemanticIds.build(tokenizer, embeddings)
    assert len(np.unique(ids.codes, axis=0)) == dataset.n_items
    assert report.neighbour_agreement > 0.1 > 10 * report.chance_agreement


def test_the_whole_path_runs_on_long_histories():
    dataset = load("movielens-100k")
    recipe = Recipe.from_dict(TINY).override(
        ["training.epochs=1", "training.batch_size=2048", "training.validation_users=50", "model.max_len=20"]
    )
    recommender = DiffGRMRecommender(recipe).fit(dataset, progress=False)
    split = leave_one_out(dataset)
    metrics = evaluate(recommender, split.test.sample(100, 0), dataset.items, split.item_counts).metrics
    assert metrics["validity"] == metrics["distinctness"] == 1


@pytest.mark.parametrize(
    "name", ["amazon-beauty", "amazon-beauty-titles", "amazon-sports", "amazon-office", "movielens-100k"]
)
def test_published_figures_stand_on_the_vectors_of_words(name):
    items = load(name).item_table
    columns = [column for column in ("attributes", "category_path") if column in items.columns]
    auto, word = (LSA(width=64, analyzer=analyzer, columns=columns).fit(items) for analyzer in ("auto", "word"))
    assert auto.state().facts == word.state().facts and np.array_equal(auto.encode(items), word.encode(items))


@pytest.mark.parametrize(("name", "share"), [("amazon-beauty", 0.0861), ("amazon-sports", 0.0513)])
def test_as_many_steps_to_test_events_were_seen_in_training_as_is_published(name, share):
    """arXiv 2603.19809 has 8.6% and 5.1% of users."""
    split = leave_one_out(load(name))
    assert seen_steps(split.train, split.test, split.dataset.n_items).mean() == pytest.approx(share, abs=6e-5)


@pytest.mark.parametrize(
    ("column", "sizes", "numbered", "colliding", "largest", "moved"),
    [
        ("letter", (256,) * 4, False, 24, 3, 13),
        ("iba", (256,) * 4, False, 410, 9, 233),
        ("unigenrec_opq32", (256,) * 32, False, 61, 5, 32),
        ("unigenrec_rqkmeans4", (256, 256, 256, 256, 18), False, 0, 1, 0),
        ("unigenrec_rqkmeans4", (256,) * 4, True, 1938, 18, 1164),
        ("unigenrec_rqvae3", (256, 256, 256, 12), False, 0, 1, 0),
        ("unigenrec_rqvae3", (256,) * 3, True, 3607, 12, 2171),
    ],
)
def test_published_semantic_ids_are_read_and_told_apart(column, sizes, numbered, colliding, largest, moved):
    items = load("amazon-beauty-titles").items.series
    vectors = np.random.default_rng(0).normal(size=(len(items), 8)).astype(np.float32)
    path = str(DATA / "amazon-beauty-titles" / "published_sids.parquet")
    tokenizer = FromFileTokenizer(len(sizes), sizes, path, column, numbered).fit(TokenizerContext.of(vectors, items=items))
    ids, report = SemanticIds.build(tokenizer, vectors, "reassign", items)
    assert (report.colliding_items, report.largest_group, report.moved_items) == (colliding, largest, moved)
    assert len(np.unique(ids.codes, axis=0)) == len(items) and ids.codebook_sizes == sizes
    assert ((ids.codes != tokenizer.encode(vectors, items)).sum(1) > 0).sum() == moved
