"""One pass over the catalogue, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.catalogue import Catalogue, Excluded
from diffgrm.ranking.decoding.base import Task
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.digit_sums import sum_of_digits

N, K, ITEMS, USERS = 2, 4, 30, 3


def world(share, seed=0):
    """Codes, items that may be recommended, items with training events, log-probabilities of digits."""
    generator = np.random.default_rng(seed)
    every = np.stack(np.meshgrid(*[np.arange(K)] * N), -1).reshape(-1, N)
    codes = generator.integers(0, K, (ITEMS, N)) if share else every[generator.permutation(len(every))]
    recommendable, trained = generator.random(len(codes)) < 0.8, generator.random(len(codes)) < 0.6
    logits = generator.normal(size=(USERS, N, K)).astype(np.float32)
    return codes, recommendable, trained, torch.from_numpy(logits)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("lift", [0.0, 1.5, -2.0, 100.0])
@pytest.mark.parametrize("block", [3, 100])
def test_scores_are_sums_of_digits_and_a_lift_where_nobody_behind_the_sid_has_events(share, lift, block):
    codes, recommendable, trained, logits = world(share)
    seen = [[0, 3], [], [5]]
    catalogue = Catalogue(torch.from_numpy(codes), K, torch.from_numpy(recommendable), torch.from_numpy(trained))
    excluded = Excluded.from_ragged(Ragged.from_lists(seen), len(codes))
    task = Task(lambda *_: logits[:, None], range(USERS), catalogue, 8, excluded, torch.zeros(USERS).long())
    decoded = OnePass(block=block, new_items=lift).decode(task)
    log_p = logits.log_softmax(-1).numpy()
    together = {}
    for item in np.flatnonzero(recommendable):
        together.setdefault(tuple(codes[item]), []).append(item)
    for user in range(USERS):
        wanted = {}
        for sid, items in together.items():
            score = log_p[user, range(N), sid].sum() + (0 if trained[items].any() else lift)
            wanted |= {item: score for item in items if item not in seen[user]}
        found = decoded.items[user].tolist()
        best = sorted(wanted.values(), reverse=True)[:8]
        assert np.allclose(decoded.scores[user].numpy(), best, atol=1e-5)
        assert np.allclose([wanted[item] for item in found], best, atol=1e-5)


def test_a_narrower_catalogue_knows_who_has_events():
    codes, _, trained, _ = world(share=False)
    whole = Catalogue(torch.from_numpy(codes), K, trained=torch.from_numpy(trained))
    some = torch.arange(len(codes)) % 2 == 0
    narrow = whole.restricted(some)
    items = narrow.items_of(narrow.distinct_codes[None])[0, :, 0]
    assert narrow.new_sids.tolist() == (~trained[items]).tolist() and 0 < narrow.new_sids.sum() < len(items)


def test_without_word_of_events_all_items_have_some():
    codes, recommendable, _, _ = world(share=True)
    assert not Catalogue(torch.from_numpy(codes), K, torch.from_numpy(recommendable)).new_sids.any()
    assert Catalogue(torch.from_numpy(codes), K, torch.zeros(len(codes), dtype=torch.bool)).new_sids.tolist() == []


def test_a_row_alone_is_summed_as_it_is_among_others():
    """On a way of its own, with the same gradients."""
    codes, _, _, logits = world(share=True)
    weights = torch.linspace(-1, 1, len(codes))
    found = []
    for rows in (logits, logits[:1]):
        leaf = rows.clone().requires_grad_()
        scores = sum_of_digits(leaf, torch.from_numpy(codes))
        scores[0].mul(weights).sum().backward()
        found.append((scores[:1], leaf.grad[:1]))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6) and torch.allclose(found[0][1], found[1][1], atol=1e-6)
    by_hand = sum(logits[0, digit, codes[:, digit]] for digit in range(N))
    assert found[1][0][0].tolist() == pytest.approx(by_hand.tolist(), abs=1e-6)
