"""Lists by single digits and by every two of them, against sums written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.decoding.digits_and_items import DigitsAndItems
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.decoding.refined import Refined
from diffgrm.ranking.ranker import Ranker
from helpers.tiny_catalogues import HISTORIES, catalogue, rank, scoring_ranker

SHARE = pytest.mark.parametrize("share", [False, True])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = DiffGRM(3, 4, width=16, heads=2, pairwise_rank=4).eval()
    torch.nn.init.normal_(made.pairs.user.weight, std=0.5)
    return made


def pair_scores(network, cat):
    """[U, I] by every two digits, one by one."""
    codes = cat.codes_of(torch.arange(cat.n_items)).tolist()
    first, second = network.pairs.first.view(2, 4, -1), network.pairs.second.view(2, 4, -1)
    found = np.zeros((len(HISTORIES), len(codes)))
    ranker = Ranker.over_codes(network, OnePass(), cat)
    with torch.no_grad():
        for users, memory in ranker.encoded(HISTORIES, 1):
            for user, numbers in zip(users, network.pair_users(memory)[:, 0], strict=True):
                for item, code in enumerate(codes):
                    for i, j in itertools.combinations(range(3), 2):
                        found[user, item] += (numbers * first[i, code[i]] * second[j - 1, code[j]]).sum().item()
    return found


def unary(network):
    """The same network without pairs."""
    plain = DiffGRM(3, 4, width=16, heads=2)
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if not key.startswith("pairs.")})
    return plain.eval()


def by_item(items, scores):
    return [dict(zip(row.tolist(), score.tolist(), strict=True)) for row, score in zip(items, scores, strict=True)]


@SHARE
@pytest.mark.parametrize("block", [7, 1000])
def test_one_pass_adds_what_pairs_say(network, share, block):
    cat = catalogue(share)
    single = by_item(*rank(unary(network), OnePass(), cat, k=40, exclude_seen=False))
    items, scores = rank(network, OnePass(block=block), cat, k=40, exclude_seen=False)
    more = pair_scores(network, cat)
    assert more.std() > 0.3
    for user in range(len(HISTORIES)):
        wanted = [single[user][item] + more[user, item] for item in items[user]]
        assert scores[user] == pytest.approx(wanted, abs=1e-4)
        assert sorted(items[user]) == list(range(40)) and (np.diff(scores[user]) <= 1e-6).all()


def test_a_narrower_catalogue_gives_the_same_scores(network):
    cat = catalogue()
    some = torch.arange(40) % 3 != 0
    whole = by_item(*rank(network, OnePass(), cat, k=40, exclude_seen=False))
    items, scores = rank(network, OnePass(), cat.restricted(some), k=12, exclude_seen=True)
    for user in range(len(HISTORIES)):
        allowed = [item for item in whole[user] if some[item] and item not in HISTORIES[user]]
        count = min(12, len(allowed))
        assert items[user, :count].tolist() == allowed[:count]
        assert scores[user, :count] == pytest.approx([whole[user][item] for item in allowed[:count]], abs=1e-5)


@SHARE
def test_digits_and_items_add_them_to_the_digits(network, share):
    cat = catalogue(share)
    plain = scoring_ranker(unary(network), DigitsAndItems(weight=0.5), cat).rank(HISTORIES, 40, exclude_seen=False)
    items, scores = scoring_ranker(network, DigitsAndItems(weight=0.5), cat).rank(HISTORIES, 40, exclude_seen=False)
    more, plain = pair_scores(network, cat), by_item(*plain)
    for user in range(len(HISTORIES)):
        wanted = np.array([plain[user][item] + 0.5 * more[user, item] for item in items[user]])
        assert scores[user] == pytest.approx(wanted - np.log(np.exp(wanted).sum()), abs=1e-4)


@SHARE
def test_a_second_look_is_at_the_items_that_fit_by_pairs_too(network, share):
    """Of each candidate the mean over digits: its code among all items by the one pass, then itself among those with it."""
    cat, weight = catalogue(share), 0.6
    items, scores = rank(network, Refined(candidates=40, weight=weight), cat, k=40, exclude_seen=False)
    one_pass = by_item(*rank(network, OnePass(), cat, k=40, exclude_seen=False))
    codes, more = cat.codes_of(torch.arange(40)), pair_scores(network, cat)
    ranker = Ranker.over_codes(network, OnePass(), cat)
    encoded = [(users, memory) for users, memory in ranker.encoded(HISTORIES, 1)]
    memories = {user: memory.rows(torch.tensor([row])) for users, memory in encoded for row, user in enumerate(users)}
    for user in (0, 3):
        first = torch.tensor([one_pass[user][item] for item in range(40)], dtype=torch.float64)
        shown = []  # of each digit, log-probabilities of all items by the chain that begins with it
        for digit in range(3):
            known = torch.zeros(40, 3, dtype=torch.bool)
            known[:, digit] = True
            with torch.no_grad():
                logits = network.denoise(codes[None], ~known[None], memories[user])[0].double()
            second = logits.gather(2, codes[..., None])[..., 0].sum(1) + torch.from_numpy(more[user])
            chain = torch.empty(40, dtype=torch.float64)
            for item in range(40):
                alike = codes[:, digit] == codes[item, digit]
                of_alike = logits[item].expand(int(alike.sum()), -1, -1).gather(2, codes[alike][..., None])[..., 0].sum(1)
                mass = (of_alike + torch.from_numpy(more[user])[alike]).logsumexp(0)
                chain[item] = first[alike].logsumexp(0) + second[item] - mass
            shown.append(chain)
        wanted = (1 - weight) * first + weight * torch.stack(shown).mean(0) - first.logsumexp(0)
        assert scores[user] == pytest.approx([wanted[item].item() for item in items[user]], abs=1e-4)
