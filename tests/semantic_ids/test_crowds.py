"""Thousands of nearly equal items: bounded memory, and codes nearly as good as the best assignment's."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from diffgrm.semantic_ids import collisions, crowds
from diffgrm.semantic_ids.collisions import place, reassign
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer
from diffgrm.semantic_ids.tokenizers.residual_kmeans import ResidualKMeansTokenizer

EVERY = np.indices((16, 16, 16)).reshape(3, -1).T.astype(np.int32)


def few_places(count, spread, places=1, seed=0):
    """Vectors of items that lie around few places."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(places, 8))
    return (centres[np.arange(count) % places] + spread * generator.normal(size=(count, 8))).astype(np.float32)


@pytest.fixture(scope="module", params=[OPQTokenizer, ResidualKMeansTokenizer])
def tokenizer(request):
    vectors = np.random.default_rng(1).normal(size=(400, 8)).astype(np.float32)
    return request.param(3, 16).fit(TokenizerContext.of(vectors))


def spied(monkeypatch):
    """How many items are dealt codes as a crowd, call by call."""
    sizes = []

    def deal(tokenizer, embeddings, *others):
        sizes.append(len(embeddings))
        return crowds.deal(tokenizer, embeddings, *others)

    monkeypatch.setattr(collisions, "deal", deal)
    return sizes


def test_a_crowd_in_one_cell_moves_all_but_one(tokenizer, monkeypatch):
    dealt, vectors = spied(monkeypatch), few_places(1200, 1e-4)
    codes = tokenizer.encode(vectors)
    assert len(np.unique(codes, axis=0)) == 1
    repaired = reassign(tokenizer, vectors, codes)
    assert dealt == [1200]
    assert len(np.unique(repaired.codes, axis=0)) == 1200 and repaired.moved.sum() == 1199
    assert (reassign(tokenizer, vectors, codes).codes == repaired.codes).all()


def test_a_crowd_over_many_cells_moves_the_fewest_items(tokenizer, monkeypatch):
    dealt, vectors = spied(monkeypatch), few_places(1500, 0.02, places=5)
    vectors[1400:] = few_places(100, 1, seed=3)  # others, that should not notice
    codes = tokenizer.encode(vectors)
    repaired = reassign(tokenizer, vectors, codes)
    assert sum(dealt) > 500
    assert len(np.unique(repaired.codes, axis=0)) == 1500
    assert repaired.moved.sum() == 1500 - len(np.unique(codes, axis=0))


@pytest.mark.parametrize("spread", [0, 1e-4, 0.05])
def test_a_crowd_of_later_items_gets_codes_nearly_as_good_as_the_best(tokenizer, spread, monkeypatch):
    dealt, vectors, there = spied(monkeypatch), few_places(700, spread), EVERY[::3]
    codes = place(tokenizer, vectors, tokenizer.encode(vectors), there)
    assert dealt == [700]
    assert len(np.unique(np.concatenate([there, codes]), axis=0)) == 700 + len(there)
    found = tokenizer.error(vectors, codes).sum()
    monkeypatch.setattr(collisions, "CROWD", 10_000)  # a list of its own for every item
    alone = place(tokenizer, vectors, tokenizer.encode(vectors), there)
    assert len(dealt) == 1 and found == pytest.approx(tokenizer.error(vectors, alone).sum(), rel=0.02)
    if isinstance(tokenizer, OPQTokenizer):  # of which costs really add, so that lists hold the nearest codes
        free = np.delete(EVERY, np.arange(0, len(EVERY), 3), axis=0)
        items, number = np.divmod(np.arange(700 * len(free)), len(free))
        errors = tokenizer.pair_errors(vectors, items, free[number]).reshape(700, -1)
        assert found == pytest.approx(errors[linear_sum_assignment(errors)].sum(), rel=0.02 if spread else 1e-4)


def test_a_crowd_fills_the_code_space_to_the_last_code():
    vectors = few_places(729, 1e-3)
    tokenizer = ResidualKMeansTokenizer(3, 9).fit(TokenizerContext.of(few_places(50, 1)))
    assert len(np.unique(reassign(tokenizer, vectors, tokenizer.encode(vectors)).codes, axis=0)) == 729
    half = np.indices((9, 9, 9)).reshape(3, -1).T.astype(np.int32)[:129]
    placed = place(tokenizer, vectors[:600], tokenizer.encode(vectors[:600]), half)
    assert len(np.unique(np.concatenate([half, placed]), axis=0)) == 729


def test_memory_grows_with_the_crowd_only_and_its_progress_is_told(monkeypatch, caplog):
    monkeypatch.setattr(crowds, "TOLD", 1024)
    tokenizer = OPQTokenizer(4, 64, pca_width=8).fit(TokenizerContext.of(few_places(300, 1)))
    vectors = few_places(6000, 1e-3, places=3)
    codes = tokenizer.encode(vectors)
    tracemalloc.start()
    try:
        with caplog.at_level(logging.INFO, "diffgrm"):
            placed = place(tokenizer, vectors, codes, codes[:1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(np.unique(placed, axis=0)) == 6000 and not (placed == codes[:1]).all(1).any()
    assert peak < 6000 * 16_000  # bytes; lists of their own took 300,000 an item
    assert "1024 of them have a semantic ID of their own" in caplog.text
