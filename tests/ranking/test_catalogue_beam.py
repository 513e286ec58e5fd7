from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding import catalogue_beam as module
from diffgrm.ranking.decoding.catalogue_beam import CatalogueBeam
from diffgrm.ranking.ranker import Ranker
from helpers.networks import vectors
from helpers.tiny_catalogues import CODES, HISTORIES, catalogue, rank


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiffGRM(3, 4, width=32, heads=2).eval()


def by_hand(network, cat, history, excluded):
    """[I] the best, over orders, of the product of the digits' probabilities among items that still match."""
    codes = cat.codes.numpy()
    alive = [item for item in range(len(codes)) if item not in excluded]
    with torch.no_grad():
        memory = network.encode_history(
            vectors(network, cat.codes_of(torch.from_numpy(history))),
            torch.arange(len(history))[None],
            torch.ones(1, len(history)).bool(),
        )
        best: dict[tuple, float] = {(): 0.0}  # partial SID as ((digit, code), ...)
        frontier = dict(best)
        for _ in range(3):
            grown: dict[tuple, float] = {}
            for state, score in frontier.items():
                known = dict(state)
                fits = [item for item in alive if all(codes[item][d] == c for d, c in known.items())]
                mask = torch.tensor([[[d not in known for d in range(3)]]])
                asked = torch.tensor([[[known.get(d, 0) for d in range(3)]]])
                logits = network.denoise(asked, mask, memory)[0, 0].double()
                for digit in {0, 1, 2} - set(known):
                    open_ = sorted({int(codes[item][digit]) for item in fits})
                    log_p = logits[digit, open_].log_softmax(0)
                    for code, lp in zip(open_, log_p.tolist(), strict=True):
                        new = tuple(sorted({**known, digit: code}.items()))
                        grown[new] = max(grown.get(new, -math.inf), score + lp)
            frontier = grown
    scores = np.full(len(codes), -np.inf)
    for item in alive:
        scores[item] = frontier[tuple(enumerate(codes[item].tolist()))]
    return scores


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("k", [5, 15])
def test_a_wide_beam_ranks_by_the_best_order_of_probabilities_among_items(network, share, exclude_seen, k):
    cat = catalogue(share)
    items, scores = rank(network, CatalogueBeam(beam=600), cat, k, exclude_seen)
    for row in range(len(HISTORIES)):
        history = HISTORIES[row]
        wanted = by_hand(network, cat, history, set(history.tolist()) if exclude_seen else set())
        assert np.allclose(scores[row], np.sort(wanted)[::-1][:k], atol=1e-4)
        assert np.allclose(wanted[items[row]], scores[row], atol=1e-4)


@pytest.mark.parametrize("beam", [5, 12])
def test_asking_in_parts_and_dropping_what_cannot_win_change_nothing(network, beam, monkeypatch):
    whole = {}
    for parts in (1, 3):
        monkeypatch.setattr(module, "PARTS", parts)
        monkeypatch.setattr(module, "FEWEST_BEAMS", 1)
        whole[parts] = rank(network, CatalogueBeam(beam=beam), k=4)
    assert (whole[1][0] == whole[3][0]).all() and np.allclose(whole[1][1], whole[3][1], atol=1e-5)


class Counting(DiffGRM):
    """Notes how many partial SIDs a user it is asked about."""

    def denoise(self, codes, mask, memory):
        self.asked.append(codes.shape[1])
        return super().denoise(codes, mask, memory)


def test_what_fits_one_item_only_is_not_asked_about():
    """The codes of every digit tell all items apart: one question a user is enough."""
    network = Counting(3, 4, width=16, heads=2)
    network.asked = []
    cat = Catalogue(torch.from_numpy(CODES[[0, 21, 42, 63]]), 4)
    rows = Ragged.from_lists([[0, 1], [3]])
    items, scores = Ranker.over_codes(network, CatalogueBeam(beam=8), cat).rank(rows, 4, exclude_seen=False)
    assert network.asked == [1] and all(sorted(row) == [0, 1, 2, 3] for row in items.tolist())
    assert (np.diff(scores) <= 0).all()
