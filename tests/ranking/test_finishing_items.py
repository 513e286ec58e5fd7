from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.ranker import Ranker
from helpers.networks import vectors
from helpers.tiny_catalogues import HISTORIES, catalogue, rank


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiffGRM(3, 4, width=32, heads=2)


def finished_by_hand(network, cat, history, width):
    """Scores of items as ``finish=items`` defines them with a beam too wide to prune: the best over all partial SIDs that
    fit the item alone while one digit fewer does not, or does with one digit known."""
    best = {}
    with torch.no_grad():
        codes = cat.codes_of(torch.from_numpy(history))
        places, valid = torch.arange(len(history))[None], torch.ones(1, len(history)).bool()
        memory = network.eval().encode_history(vectors(network, codes), places, valid)

        def log_p(known):
            code, mask = torch.zeros(1, 1, 3, dtype=torch.long), torch.ones(1, 1, 3, dtype=torch.bool)
            for digit, value in known.items():
                code[0, 0, digit], mask[0, 0, digit] = value, False
            return network.denoise(code, mask, memory)[0, 0].log_softmax(-1)

        states = {(): 0.0}
        for filled in range(3):
            new = {}
            for state, score in states.items():
                known = dict(state)
                fits = [i for i in range(len(cat)) if all(cat.codes[i][d] == v for d, v in known.items())]
                lp = log_p(known)
                if filled > 1 and len(fits) == 1:
                    code = cat.codes[fits[0]].tolist()
                    total = score + sum(lp[d, code[d]].item() for d in range(3) if d not in known)
                    best[fits[0]] = max(best.get(fits[0], -math.inf), total)
                    continue
                for item in fits:
                    for digit in set(range(3)) - set(known):
                        value = int(cat.codes[item][digit])
                        grown = tuple(sorted({**known, digit: value}.items()))
                        new[grown] = max(new.get(grown, -math.inf), score + lp[digit, value].item())
            states = new
        for state, score in states.items():
            item = next(i for i in range(len(cat)) if all(cat.codes[i][d] == v for d, v in state))
            best[item] = max(best.get(item, -math.inf), score)
    return best


def test_items_that_are_alone_are_scored_together_with_what_is_left(network):
    """Three digits: with two known, items that are alone end there; what fits the same item counts by its best part."""
    cat = catalogue(items=30)
    decoder = AnyOrderBeam(beam=600, finish="items")
    items, scores = Ranker.over_codes(network, decoder, cat).rank(HISTORIES.rows(np.array([1])), 30, exclude_seen=False)
    wanted = finished_by_hand(network, cat, HISTORIES[1], 600)
    assert sorted(items[0].tolist()) == list(range(30))
    assert (np.diff(scores[0]) <= 0).all()
    # Copies that fit one item count by the best partial score, which need not lead to the best complete one.
    assert all(score <= wanted[item] + 1e-5 for item, score in zip(items[0].tolist(), scores[0].tolist(), strict=True))
    close = [abs(score - wanted[item]) < 1e-5 for item, score in zip(items[0].tolist(), scores[0].tolist(), strict=True)]
    assert np.mean(close) > 0.7


@pytest.mark.parametrize("n", [8, 20])
@pytest.mark.parametrize("order", ["confidence", "fixed", "random"])
def test_long_sids_are_finished_in_few_questions(n, order):
    torch.manual_seed(0)
    network = DiffGRM(n, 16, width=16, heads=2, decoder_layers=1)
    cat = Catalogue(torch.from_numpy(np.random.default_rng(2).integers(0, 16, (400, n))), 16)
    asked = []
    denoise = network.denoise

    def counting(codes, mask, memory):
        asked.append(codes.shape[:2].numel())
        return denoise(codes, mask, memory)

    network.denoise = counting
    decoder = AnyOrderBeam(beam=32, finish="items", order=order)
    items, scores = Ranker.over_codes(network, decoder, cat).rank(HISTORIES, 10, exclude_seen=True)
    assert (items >= 0).all() and all(len(set(row)) == 10 for row in items.tolist())
    assert all(not set(row) & set(HISTORIES[u].tolist()) for u, row in enumerate(items.tolist()))
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    assert sum(asked) <= 5 * 32 * len(HISTORIES)  # not n times as many


def test_finishing_items_works_where_sids_are_shared(network):
    cat = catalogue(share=True)
    items, _ = rank(network, AnyOrderBeam(beam=64, finish="items"), cat, k=15)
    assert all(len(set(row)) == 15 and (row >= 0).all() for row in items)


def test_finishing_items_needs_the_catalogue():
    with pytest.raises(RecipeError, match=r"decoding\.finish items needs decoding\.constrained true"):
        AnyOrderBeam(finish="items", constrained=False).check(4, 100)
