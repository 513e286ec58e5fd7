from __future__ import annotations

import numpy as np
import pytest
import torch

from decoding.test_any_order_beam import CODES, HISTORIES, catalogue
from diffgrm.foundation.recipe import ItemLossSettings
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.item_proposals import ItemProposals
from diffgrm.ranking.ranker import Ranker
from helpers.networks import vectors


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
    items, scores = Ranker.over_codes(network, decoder, cat).rank(HISTORIES, 5, exclude_seen=True)
    for row in range(len(HISTORIES)):
        wanted = by_hand(network, cat, HISTORIES[row], weight, set(HISTORIES[row].tolist()))
        best = wanted.topk(5)
        assert items[row].tolist() == best.indices.tolist()
        assert scores[row] == pytest.approx(best.values.numpy(), abs=1e-4)


def test_few_candidates_are_those_of_the_best_item_scores(network):
    cat = catalogue()
    items, _ = Ranker.over_codes(network, ItemProposals(candidates=6, weight=3.0), cat).rank(HISTORIES, 6, True)
    proposed, _ = Ranker.over_codes(network, ItemProposals(weight=0.0), cat).rank(HISTORIES, 6, True)
    assert [sorted(row) for row in items] == [sorted(row) for row in proposed]
    assert items.tolist() != proposed.tolist()


def test_cosine_and_temperature_are_those_of_the_loss(network):
    cat = catalogue()
    ranker = Ranker.over_codes(network, ItemProposals(weight=0.0), cat)
    ranker.items.scoring = ItemLossSettings(cosine=True, temperature=0.1)
    _, memory = next(ranker.encoded(HISTORIES, 1))
    scores = ranker.items.scores(memory.last(), HISTORIES, 0.0, 0.0)
    assert scores.abs().max() <= 10 + 1e-4 and scores.abs().max() > 1


def test_items_that_share_a_semantic_id_are_told_apart_and_their_id_counts_once(network):
    codes = torch.from_numpy(CODES)
    shared = Catalogue(torch.cat([codes, codes[:2]]), 4)
    ranker = Ranker.over_codes(network, ItemProposals(candidates=len(shared)), shared)
    _, decoded = next(ranker.decode(HISTORIES, len(shared), exclude_seen=False))
    assert all(sorted(row.tolist()) == list(range(len(shared))) for row in decoded.items)
    assert (decoded.legal.sum(1) == len(CODES)).all()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_who_watches_sees_partial_sids_grow_into_the_list(network, weight):
    cat, seen = catalogue(), []
    ranker = Ranker.over_codes(network, ItemProposals(candidates=20, weight=weight), cat)
    one = HISTORIES.rows(np.array([1]))
    _, decoded = next(ranker.decode(one, 5, True, watch=lambda codes, known, score: seen.append((codes, known, score))))
    assert [int(known[0, 0].sum()) for _, known, _ in seen] == [1, 2, 3]
    codes, known, score = seen[0]
    partial = {tuple(torch.where(k, c, -1).tolist()) for c, k in zip(codes[0], known[0], strict=True)}
    assert len(partial) >= int((score[0] > -torch.inf).sum())  # each once
    assert (seen[-1][0][0, :5] == cat.codes_of(decoded.items[0])).all()
    assert sorted(decoded.steps[0, 0].tolist()) == [0, 1, 2]
    assert seen[-1][2][0, :5].tolist() == pytest.approx(decoded.scores[0].tolist())
