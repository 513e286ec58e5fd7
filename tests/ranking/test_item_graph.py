"""A walk along similar items, against looking at all of them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding import item_graph
from diffgrm.ranking.decoding.item_graph import ItemGraph, neighbours
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.one_pass import OnePassRecommender
from helpers.networks import build
from helpers.recipes import small_recipe

N, K, ITEMS = 3, 8, 300
GENERATOR = np.random.default_rng(0)
ALONE = torch.from_numpy(GENERATOR.permutation(np.stack(np.meshgrid(*[np.arange(K)] * N), -1).reshape(-1, N))[:ITEMS])
SHARED = ALONE[torch.from_numpy(GENERATOR.integers(0, 200, ITEMS))]
HISTORIES = Ragged.from_lists([GENERATOR.integers(0, ITEMS, size) for size in (1, 4, 30, 2, 9)])
CODES = pytest.mark.parametrize("codes", [ALONE, SHARED], ids=["a semantic ID each", "shared semantic IDs"])


@pytest.fixture(scope="module")
def network():
    return build("rpg", width=16, heads=2, temperature=0.3).eval()


def rank(network, decoder, codes=ALONE, k=10, exclude_seen=True, histories=HISTORIES, allowed=None):
    return Ranker.over_codes(network, decoder, Catalogue(codes, K, allowed)).rank(histories, k, exclude_seen)


def same(found, wanted):
    return np.array_equal(found[0], wanted[0]) and np.allclose(found[1], wanted[1], atol=1e-5)


@CODES
@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [1, 10, ITEMS + 5])
def test_with_every_edge_one_round_finds_what_one_pass_finds(network, codes, exclude_seen, k):
    wanted = rank(network, OnePass(), codes, k, exclude_seen)
    assert same(rank(network, ItemGraph(beam=5, edges=ITEMS, rounds=1), codes, k, exclude_seen), wanted)
    assert same(rank(network, ItemGraph(edges=None), codes, k, exclude_seen), wanted)


@CODES
def test_edges_lead_to_the_most_similar_items(codes, monkeypatch):
    """Block after block."""
    monkeypatch.setattr(item_graph, "AT_ONCE", 1000)
    catalogue, tables = Catalogue(codes, K), torch.randn(N, K, 5, generator=torch.Generator().manual_seed(0))
    graph, sids = neighbours(catalogue, tables, 12), catalogue.distinct_codes.long()
    rows = torch.stack([tables[digit, sids[:, digit]] for digit in range(N)], 1)  # [D, n, d]
    alike = ((1 + F.cosine_similarity(rows[:, None], rows[None], dim=-1)) / 2).mean(-1)
    assert torch.allclose(alike.gather(1, graph.long()), alike.topk(12).values, atol=1e-6)
    assert (graph[:, 0] == torch.arange(len(sids))).all()


def test_items_of_equal_vectors_keep_the_edge_to_themselves():
    catalogue = Catalogue(ALONE, K)
    graph = neighbours(catalogue, torch.ones(N, K, 4), 3)
    assert (graph[:, 0] == torch.arange(ITEMS)).all() and all(len(set(row)) == 3 for row in graph.tolist())


def test_the_beam_never_gets_worse_and_scores_more_of_the_catalogue(network, caplog):
    caplog.set_level(logging.DEBUG, logger=item_graph.logger.name)
    means = []
    for rounds in (1, 2, 3, 6):
        items, scores = rank(network, ItemGraph(beam=10, edges=6, rounds=rounds), exclude_seen=False)
        assert all(len(set(row)) == 10 and (row >= 0).all() for row in items)
        means.append(scores.mean(1))
    best = rank(network, OnePass(), exclude_seen=False)[1].mean(1)
    assert (np.diff(means, axis=0) >= -1e-6).all() and means[-1].mean() > means[0].mean()
    assert (means[-1] <= best + 1e-5).all()
    shares = [record.args[0] for record in caplog.records]
    assert all(0 < share < 1 for share in shares) and (np.diff(shares) > 0).all()


def test_every_score_is_that_of_one_pass(network):
    exact = dict(zip(*(part[0] for part in rank(network, OnePass(), k=ITEMS, exclude_seen=False)), strict=True))
    items, scores = rank(network, ItemGraph(beam=10, edges=6, rounds=2), exclude_seen=False)
    assert scores[0] == pytest.approx([exact[item] for item in items[0]], abs=1e-5)


@CODES
@pytest.mark.parametrize("edges", [1, 4, ITEMS])
def test_lists_are_as_long_as_can_be(network, codes, edges):
    """Whatever is excluded, and with edges to nothing but the items themselves."""
    allowed = torch.from_numpy(GENERATOR.random(ITEMS) < 0.15)
    decoder = ItemGraph(beam=3, edges=edges, rounds=2)
    for k in (5, 20, 100):
        items, _ = rank(network, decoder, codes, k, allowed=allowed)
        for row, history in enumerate(HISTORIES[user] for user in range(len(HISTORIES))):
            possible = set(np.flatnonzero(allowed.numpy())) - set(history)
            found = items[row][items[row] >= 0]
            assert set(found) <= possible and len(set(found)) == len(found) == min(k, len(possible))


def test_an_answer_is_the_user_s_own(network):
    """Others in the batch, of whom one has seen much, change nothing; another seed begins elsewhere."""
    decoder = ItemGraph(beam=5, edges=4, rounds=2)
    items, scores = rank(network, decoder)
    for user in range(len(HISTORIES)):
        alone = rank(network, decoder, histories=HISTORIES.rows(np.array([user])))
        assert same(alone, (items[[user]], scores[[user]]))
    assert not np.array_equal(rank(network, ItemGraph(beam=5, edges=4, rounds=2, seed=1))[0], items)


def test_the_graph_is_built_once_and_anew_for_other_code_vectors(network):
    catalogue, tables = Catalogue(ALONE, K), network.code_tables()
    first = neighbours(catalogue, tables, 5)
    assert neighbours(catalogue, tables, 5) is first
    assert neighbours(Catalogue(ALONE, K), tables, 5) is not first
    assert not torch.equal(neighbours(catalogue, torch.randn_like(tables), 5), first)


def test_it_recommends_what_it_may_after_saving_too(toy, tmp_path):
    changes = ["model.name=rpg", "decoding={name: item_graph, beam: 8, edges: 10}"]
    recipe = small_recipe("one_pass").override([*changes, "training.validation_decoding={edges: null}"])
    made = OnePassRecommender(recipe).fit(toy, progress=False)
    asked = [["item 3", "item 4"], ["item 7"]]
    found = made.recommend(asked, k=5, only=[f"item {number}" for number in range(20)], without=["item 9"])
    assert found.height == 10 and not set(found["item_id"]) & {"item 9"}
    again = OnePassRecommender.load(made.save(tmp_path / "model"))
    assert again.recommend(asked).equals(made.recommend(asked))
    exact = made.variant(["decoding.edges=null"]).recommend(asked)
    assert exact.equals(made.variant(["decoding.name=one_pass"]).recommend(asked))


def test_who_has_no_code_vectors_is_refused(toy):
    recipe = small_recipe("one_pass").override(["decoding={name: item_graph}", "model.name=sasrec"])
    with pytest.raises(RecipeError, match="lacks what this recipe asks of it"):
        OnePassRecommender(recipe).fit(toy, progress=False)
