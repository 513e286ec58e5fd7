from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffgrm.networks.comparison import Comparison
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.base import ItemScores, some_users
from diffgrm.ranking.decoding.item_proposals import ItemProposals
from diffgrm.ranking.item_scoring.base import ItemScoring, Scorer
from helpers.item_scores import Table
from helpers.networks import vectors
from helpers.tiny_catalogues import CODES, HISTORIES, catalogue, scoring_ranker

TABLE = np.random.default_rng(4).normal(size=(66, 66))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiffGRM(3, 4, width=32, heads=2, history="causal").eval()


@torch.no_grad()
def by_hand(network, cat, history, weight, forbidden):
    """[I] log-probability of every item among those that are left, plus the digits' along the surest path."""
    everything = cat.codes_of(torch.arange(cat.n_items))
    table = vectors(network, everything)
    memory = network.encode_history(
        table[torch.from_numpy(history)], torch.arange(len(history))[None], torch.ones(1, len(history)).bool()
    )
    scores = table @ memory.hidden[0, -1]
    scores[sorted(forbidden)] = -torch.inf
    scores = scores.log_softmax(0)
    for item in range(cat.n_items):
        known: list[int] = []
        while len(known) < 3:
            mask = torch.tensor([[[d not in known for d in range(3)]]])
            log_p = network.denoise(everything[item][None, None], mask, memory)[0, 0].log_softmax(-1)
            own = {d: log_p[d, everything[item, d]].item() for d in range(3) if d not in known}
            surest = max(own, key=own.get)
            scores[item] += weight * own[surest]
            known.append(surest)
    return scores


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_an_item_scores_as_the_definition_says(network, weight):
    cat = catalogue()
    decoder = ItemProposals(candidates=cat.n_items, weight=weight)
    items, scores = scoring_ranker(network, decoder, cat).rank(HISTORIES, 5, exclude_seen=True)
    for row in range(len(HISTORIES)):
        wanted = by_hand(network, cat, HISTORIES[row], weight, set(HISTORIES[row].tolist()))
        best = wanted.topk(5)
        assert items[row].tolist() == best.indices.tolist()
        assert scores[row] == pytest.approx(best.values.numpy(), abs=1e-4)


def test_few_candidates_are_those_of_the_best_item_scores(network):
    cat = catalogue()
    items, _ = scoring_ranker(network, ItemProposals(candidates=6, weight=3.0), cat).rank(HISTORIES, 6, True)
    proposed, _ = scoring_ranker(network, ItemProposals(weight=0.0), cat).rank(HISTORIES, 6, True)
    assert [sorted(row) for row in items] == [sorted(row) for row in proposed]
    assert items.tolist() != proposed.tolist()


def test_cosine_and_temperature_are_those_of_the_loss(network):
    ranks = scoring_ranker(
        network, ItemProposals(weight=0.0), catalogue(), comparison=Comparison(cosine=True, temperature=0.1)
    )
    _, memory = next(ranks.encoded(HISTORIES, 1))
    scores = ranks._item_scores(memory, HISTORIES).all
    assert scores.abs().max() <= 10 + 1e-4 and scores.abs().max() > 1


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_a_second_look_orders_its_candidates_anew(network, weight):
    """Candidates are the best by item score; the second look adds to them, and digits to that."""
    cat = catalogue()
    look = Table(TABLE, weight=2.0, candidates=7)
    ranks = scoring_ranker(network, ItemProposals(candidates=3, weight=weight), cat, look)
    items, scores = ranks.rank(HISTORIES, 7, exclude_seen=True)
    for row in range(len(HISTORIES)):
        seen = set(HISTORIES[row].tolist())
        alone = by_hand(network, cat, HISTORIES[row], 0.0, seen)
        wanted = by_hand(network, cat, HISTORIES[row], weight, seen)
        chosen = alone.topk(7).indices
        found = wanted[chosen] + 2 * torch.from_numpy(TABLE[HISTORIES[row][-1], chosen]).float()
        order = found.argsort(descending=True)
        assert items[row].tolist() == chosen[order].tolist()
        assert scores[row] == pytest.approx(found[order].numpy(), abs=1e-4)
    plain, _ = scoring_ranker(network, ItemProposals(candidates=3, weight=weight), cat).rank(
        HISTORIES, 7, exclude_seen=True
    )
    assert items.tolist() != plain.tolist()


def test_a_second_look_brings_back_nothing_that_is_out(network):
    """Neither what the user has seen, nor what is not recommended, however much it is praised."""
    allowed = torch.zeros(40, dtype=torch.bool)
    allowed[[1, 7, 8, 30]] = True
    look = Table(np.full((66, 66), 1000.0), candidates=40)
    ranks = scoring_ranker(network, ItemProposals(), catalogue().restricted(allowed), look)
    items, scores = ranks.rank(HISTORIES, 6, exclude_seen=True)
    for row in range(len(HISTORIES)):
        left = {1, 7, 8, 30} - set(HISTORIES[row].tolist())
        assert set(items[row, : len(left)].tolist()) == left and (items[row, len(left) :] == -1).all()
        assert np.isfinite(scores[row, : len(left)]).all() and np.isneginf(scores[row, len(left) :]).all()
    assert all((np.sort(seen[seen >= 0]) == np.unique(seen[seen >= 0])).all() for batch in look.seen for seen in batch)
    assert all(set(batch.flatten().tolist()) <= {-1, 1, 7, 8, 30} for batch in look.seen)


def test_item_scores_of_some_users_take_their_second_look_along(network, monkeypatch):
    cat, tasks = catalogue(), []
    decoder = ItemProposals(candidates=10)
    ranks = scoring_ranker(network, decoder, cat, Table(TABLE))
    decode = decoder.decode
    monkeypatch.setattr(decoder, "decode", lambda task: tasks.append(task) or decode(task))
    for _, decoded in ranks.decode(HISTORIES, 5, exclude_seen=True):
        task, chosen = tasks[-1], torch.arange(len(decoded.items)).flip(0)
        again = decode(some_users(task, chosen))
        assert torch.equal(again.items, decoded.items[chosen])
        assert torch.allclose(again.scores, decoded.scores[chosen], atol=1e-5)
        assert task.item_scores.candidates == 4 and isinstance(task.item_scores.rows(chosen), ItemScores)
    plain = ItemScores(torch.zeros(3, 4))
    assert plain.rows(torch.tensor([2])).second_look is None and plain.rows(torch.tensor([2])).all.shape == (1, 4)


def test_items_that_share_a_semantic_id_are_told_apart_and_their_id_counts_once(network):
    codes = torch.from_numpy(CODES)
    shared = Catalogue(torch.cat([codes, codes[:2]]), 4)
    ranks = scoring_ranker(network, ItemProposals(candidates=len(shared)), shared)
    _, decoded = next(ranks.decode(HISTORIES, len(shared), exclude_seen=False))
    assert all(sorted(row.tolist()) == list(range(len(shared))) for row in decoded.items)
    assert (decoded.legal.sum(1) == len(CODES)).all()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_who_watches_sees_partial_sids_grow_into_the_list(network, weight):
    cat, seen = catalogue(), []
    ranks = scoring_ranker(network, ItemProposals(candidates=20, weight=weight), cat)
    one = HISTORIES.rows(np.array([1]))
    _, decoded = next(ranks.decode(one, 5, True, watch=lambda codes, known, score: seen.append((codes, known, score))))
    assert [int(known[0, 0].sum()) for _, known, _ in seen] == [1, 2, 3]
    codes, known, score = seen[0]
    partial = {tuple(torch.where(k, c, -1).tolist()) for c, k in zip(codes[0], known[0], strict=True)}
    assert len(partial) >= int((score[0] > -torch.inf).sum())  # each once
    assert (seen[-1][0][0, :5] == cat.codes_of(decoded.items[0])).all()
    assert sorted(decoded.steps[0, 0].tolist()) == [0, 1, 2]
    assert seen[-1][2][0, :5].tolist() == pytest.approx(decoded.scores[0].tolist())


class Fixed(Scorer):
    """The same scores for everybody."""

    weight = 1.0

    def __init__(self, values):
        self.values = values.astype(np.float32)

    def scores(self, users, items):
        return np.tile(self.values, (len(users.vectors), 1))


@pytest.mark.parametrize("users", [1, 2, 5])
def test_items_that_tie_stand_in_order_of_position_whoever_else_is_asked_for(network, users):
    cat = catalogue()
    same = np.random.default_rng(0).permutation(np.repeat(TABLE[:8, 0], 5))  # eight scores of five items each
    ranker = scoring_ranker(network, ItemProposals(candidates=40, weight=0.0), cat)
    ranker = replace(ranker, scoring=ItemScoring((Fixed(same),), ranker.scoring.items))
    items, _ = ranker.rank(HISTORIES.rows(np.arange(users)), 40, exclude_seen=False)
    assert items.tolist() == [np.lexsort([np.arange(40), -same]).tolist()] * users
