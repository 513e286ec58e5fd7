"""The search by steered digits, and lists of items after a few of them, against all orders written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.epic import Epic
from diffgrm.networks.masked_history import MaskedHistory
from diffgrm.ranking.candidates import candidates
from diffgrm.ranking.catalogue import Excluded
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.learnt_item_posterior import LearntItemPosterior
from diffgrm.ranking.ranker import Ranker
from helpers.networks import begin
from helpers.tiny_catalogues import HISTORIES, catalogue, rank

N, K = 3, 4


def network(kind=MaskedHistory, started=True, candidates=64):
    torch.manual_seed(5)
    made = Epic(N, K, 40, kind(N, K, width=16, heads=2), width=8, candidates=candidates).eval()
    if started:
        begin(made)
        with torch.no_grad():
            made.steering["gate"][2].bias.fill_(0.5)
    return made


@pytest.mark.parametrize("kind", [MaskedHistory, DiffGRM])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_while_gates_are_0_lists_are_those_of_the_frozen_network_bit_for_bit(kind, share, exclude_seen):
    cat, made = catalogue(share), network(kind, started=False)
    found, wanted = (
        rank(asked, decoder, cat, exclude_seen=exclude_seen)
        for asked, decoder in ((made, LearntItemPosterior(8)), (made.backbone, AnyOrderBeam(8)))
    )
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    steered = rank(network(kind), LearntItemPosterior(8), cat, exclude_seen=exclude_seen)
    assert not np.array_equal(steered[1], wanted[1])


class Asked:
    """What the network says of single partial SIDs of one user."""

    def __init__(self, made, cat, history, exclude_seen):
        ranker = Ranker.over_codes(made, LearntItemPosterior(), cat)
        _, self.memory = next(ranker.encoded(history, 1))
        self.made, self.cat, self.told = made, cat, {}
        self.excluded = Excluded.from_ragged(history, cat.n_items) if exclude_seen else None

    def __call__(self, codes, known):
        """Log-probabilities of steered digits, n lists of K, and the log-share of each item looked at."""
        partial = tuple(code if told else None for code, told in zip(codes, known, strict=True))
        if partial not in self.told:
            self.told[partial] = self._ask(codes, known)
        return self.told[partial]

    def _ask(self, codes, known):
        codes, known = torch.tensor([codes]), torch.tensor([known])

        def choose(log_p, most):
            return candidates(self.cat, codes, known, log_p.flatten(0, 1), most, self.excluded)

        with torch.no_grad():
            told = self.made.steered(codes[:, None], ~known[:, None], self.memory, choose)
        shares = dict(zip(told.candidates.item.tolist(), told.log_share.tolist(), strict=True))
        return told.logits[0, 0].log_softmax(-1).tolist(), shares


@pytest.mark.parametrize("opened", [1, 2, None])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_a_list_is_that_of_all_orders_when_nothing_is_pruned(opened, exclude_seen):
    """By the best order of digits, then by the item's share of the posterior where the search ends."""
    cat, made = catalogue(), network()
    filled = opened or N
    items, scores = rank(made, LearntItemPosterior(600, opened), cat, k=40, exclude_seen=exclude_seen)
    for user in range(3):
        asked = Asked(made, cat, HISTORIES.rows(np.array([user])), exclude_seen)
        seen = set(HISTORIES[user].tolist()) if exclude_seen else set()
        best = {}
        for item in set(range(40)) - seen:
            codes = cat.codes_of(torch.tensor(item)).tolist()
            for order in itertools.permutations(range(N), filled):
                known, total = [False] * N, 0.0
                for digit in order:
                    total += asked(codes, known)[0][digit][codes[digit]]
                    known[digit] = True
                total += 0 if opened is None else asked(codes, known)[1][item]
                best[item] = max(best.get(item, -np.inf), total)
        wanted = sorted(best, key=lambda i: -best[i])
        assert np.allclose(scores[user, : len(best)], [best[i] for i in wanted], atol=1e-3)
        assert set(items[user, : len(best)]) == set(best) and (items[user, len(best) :] == -1).all()
        clear = [i for i in range(len(best) - 1) if best[wanted[i]] - best[wanted[i + 1]] > 1e-3]
        assert all(set(items[user, : i + 1]) == set(wanted[: i + 1]) for i in clear)


@pytest.mark.parametrize("opened", [1, 2])
@pytest.mark.parametrize("share", [False, True])
def test_lists_are_whole_however_few_items_are_looked_at(opened, share):
    cat = catalogue(share)
    items, scores = rank(network(candidates=2), LearntItemPosterior(2, opened), cat, k=40, exclude_seen=False)
    assert all(sorted(row) == list(range(40)) for row in items) and (np.diff(scores) <= 1e-6).all()


def test_items_of_one_semantic_id_have_one_score():
    cat = catalogue(share=True)
    sids = [tuple(code) for code in cat.codes_of(torch.arange(40)).tolist()]
    items, scores = rank(network(), LearntItemPosterior(64, 2), cat, k=40, exclude_seen=False)
    for row, score in zip(items, scores, strict=True):
        of_sid = {}
        for item, value in zip(row, score, strict=True):
            of_sid.setdefault(sids[item], set()).add(float(value))
        assert len(of_sid) < 40 and all(len(values) == 1 for values in of_sid.values())


def test_to_open_all_digits_leaves_nothing_to_the_posterior():
    with pytest.raises(RecipeError, match=r"decoding\.opened 3 leaves none of the 3 digits .* lower it, or leave it out"):
        rank(network(), LearntItemPosterior(8, 3))


def test_who_watches_sees_every_step():
    seen = []
    ranker = Ranker.over_codes(network(), LearntItemPosterior(8, 2), catalogue())
    next(ranker.decode(HISTORIES.rows(np.array([1])), 5, True, watch=lambda _, known, score: seen.append((known, score))))
    assert [int(known[0, 0].sum()) for known, _ in seen] == [1, 2, 3]
    assert all((score.diff() <= 1e-6).all() for _, score in seen)
