"""The loss among items that score by every two digits too, against sums written out, and what it learns."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.learning.batches import Batch, TrainingBatches
from diffgrm.learning.item_losses import Sample
from diffgrm.learning.noising.base import Views
from diffgrm.learning.objectives import catalogue
from diffgrm.learning.objectives.catalogue import CatalogueDiffusionObjective
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.ranker import Ranker
from helpers.networks import SMALL, START, build, features, learning_task, one_batch

N, K, ITEMS, RANK = 3, 4, 30, 5
EVERY = torch.tensor(list(itertools.product(range(K), repeat=N)))
ALONE = EVERY[torch.randperm(K**N, generator=torch.Generator().manual_seed(0))[:ITEMS]]
SHARED = ALONE[torch.randint(0, 12, (ITEMS,), generator=torch.Generator().manual_seed(1))]
CODES = pytest.mark.parametrize("codes", [ALONE, SHARED], ids=["a semantic ID each", "shared semantic IDs"])
MASKS = torch.tensor(list(itertools.product([True, False], repeat=N)))  # every view, that which hides nothing last
TARGETS = Batch(None, torch.arange(ITEMS), None, None)  # every item


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiffGRM(N, K, width=16, heads=2, pairwise_rank=RANK)


def objective(network, codes, noising=None, settings=(), **item_loss):
    task = learning_task(network, codes, noising or resolve("noising", "full_mask")(), **item_loss)
    return CatalogueDiffusionObjective(task, *settings)


def every_view():
    """Logits [I, V, n, K] of all items as targets in every view, 0 where digits are known; and numbers [I, r] of users."""
    mask = MASKS.expand(ITEMS, -1, -1)
    logits = torch.randn(*mask.shape, K, generator=generator(3)).masked_fill(~mask[..., None], 0)
    return logits, Views.equal(mask), torch.randn(ITEMS, RANK, generator=generator(4))


def oracle(network, codes, logits, users, mask, target):
    """The cross-entropy of a target, and of those that share its semantic ID, among the items that fit a view."""
    first, second = network.pairs.first.view(N - 1, K, -1), network.pairs.second.view(N - 1, K, -1)
    own, mass, together = codes[target].tolist(), 0.0, 0.0
    for row in codes.tolist():
        if all(hidden or row[j] == own[j] for j, hidden in enumerate(mask.tolist())):
            score = sum(logits[j, row[j]].item() for j in range(N) if mask[j])
            for i, j in itertools.combinations(range(N), 2):
                score += (users * first[i, row[i]] * second[j - 1, row[j]]).sum().item()
            mass, together = mass + math.exp(score), together + math.exp(score) * (row == own)
    return math.log(mass / together)


@CODES
def test_every_view_is_a_question_about_the_items_that_fit_it(network, codes):
    logits, views, users = every_view()
    users.requires_grad_()
    found = objective(network, codes).item_losses(logits, TARGETS, views, generator(), users)
    for target in range(ITEMS):
        for view, mask in enumerate(MASKS):
            wanted = oracle(network, codes, logits[target, view], users[target], mask, target)
            assert found[target, view].item() == pytest.approx(wanted, abs=1e-4)
    assert (found[:, -1] == 0).all()
    found.sum().backward()
    assert users.grad.isfinite().all() and users.grad.any() and network.pairs.first.grad.any()


@CODES
def test_with_every_item_drawn_once_the_sampled_loss_is_the_full_one(network, codes, monkeypatch):
    logits, views, users = every_view()
    wanted = objective(network, codes).item_losses(logits, TARGETS, views, generator(), users)
    drawn = Sample(torch.randperm(ITEMS, generator=generator()), torch.zeros(ITEMS))
    monkeypatch.setattr(catalogue, "draw", lambda *_: drawn)
    found = objective(network, codes, kind="sampled_softmax").item_losses(logits, TARGETS, views, generator(), users)
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("noising", ["full_mask", "coherent", "random"])
@pytest.mark.parametrize("history", ["causal", "bidirectional"])
def test_before_pairs_have_learnt_the_loss_is_that_of_single_digits_exactly(noising, history):
    events = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
    losses = []
    for rank in (0, 4):
        network = build("diffgrm", **SMALL, history=history, pairwise_rank=rank)
        if rank:
            torch.nn.init.zeros_(network.pairs.user.weight)
        made = objective(network, features().codes, resolve("noising", noising)(), (0.3, 0.1))
        losses.append(made.loss(one_batch(events, made.shared), generator(), START).item())
    assert losses[0] == losses[1]


def test_every_target_has_its_own_user_whatever_shares_a_history():
    """Targets of one pass over a causal history, and each alone; places are left out, since they count from the first."""
    network = build("diffgrm", **SMALL, history="causal", pairwise_rank=4).eval()
    with torch.no_grad():
        network.encoder.position.zero_()
    made = objective(network, features().codes)
    events = Ragged.from_lists([[1, 2, 3, 4, 5], [7, 8]])
    found = [made.loss(one_batch(events, shared), generator(), START).item() for shared in (True, False)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


# ---- what single digits cannot rank ------------------------------------------------------------------------------------

AGREE = torch.tensor([[code, code] for code in range(4)])
DIFFER = torch.tensor([[code, (code + 1) % 4] for code in range(4)])
WORLD = torch.cat([AGREE, DIFFER])  # users like the first four, or the last four


def likes(users, length, seed):
    """Histories [users, length] of items of one kind each, both kinds as often."""
    kind = torch.arange(users)[:, None] % 2
    return torch.randint(0, 4, (users, length), generator=generator(seed)) + 4 * kind


def fitted(rank):
    torch.manual_seed(0)
    network = DiffGRM(
        2, 4, width=16, heads=2, max_len=4, decoder_layers=1, dropout=0.0, history="causal", pairwise_rank=rank
    )
    made = objective(network, WORLD)
    batches = TrainingBatches(Ragged.from_lists(likes(48, 5, 1).tolist()), 4, 256, seed=0, shared=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        for batch in batches:
            loss = made.loss(batch, generator(), START)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


@pytest.mark.parametrize("rank", [0, 4])
def test_two_digits_that_must_agree_are_ranked_by_pairs_and_not_by_single_digits(rank):
    """Both kinds have the same codes at each digit, so that their items' sums of single digits are equal in sum."""
    ranker = Ranker.over_codes(fitted(rank), OnePass(), Catalogue(WORLD, 4))
    histories = likes(40, 4, 2)
    items, scores = ranker.rank(Ragged.from_lists(histories.tolist()), 8, exclude_seen=False)
    of_kind = (items // 4) == (histories[:, :1].numpy() // 4)
    if rank:
        assert of_kind[:, :4].all(1).mean() > 0.9
    else:
        sums = (scores * of_kind).sum(1), (scores * ~of_kind).sum(1)
        assert sums[0] == pytest.approx(sums[1], abs=1e-3) and not of_kind[:, :4].all(1).any()
