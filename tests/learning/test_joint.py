"""The loss over whole items beside that of digits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.item_losses import draw, item_loss
from diffgrm.learning.noising.confidence import ConfidenceNoising
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.learning.objectives.history import HistoryDiffusionObjective
from diffgrm.learning.objectives.joint import JointObjective
from diffgrm.learning.objectives.left_to_right import LeftToRightObjective
from diffgrm.networks.autoregressive import Autoregressive
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.inputs import ItemFeatures
from helpers.networks import SMALL, START, K, N, S, build, features, learning_task, one_batch

GENERATOR = torch.Generator().manual_seed(0)
EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11, 0]])
CODES = torch.randint(0, K, (12, N), generator=GENERATOR)


@pytest.fixture(params=["causal", "bidirectional"])
def network(request):
    torch.manual_seed(0)
    return DiffGRM(N, K, width=16, heads=2, max_len=S, history=request.param).eval()


def task(network, **item_loss):
    return learning_task(network, CODES, ConfidenceNoising(), **item_loss)


def digits(network):
    return DiffusionObjective(task(network))


def joint(network, item_loss=None, **settings):
    return JointObjective(task(network, **(item_loss or {})), **settings)


def loss(objective, batch, seed=0):
    return objective.loss(batch, torch.Generator().manual_seed(seed), START)


def test_the_loss_is_that_of_digits_plus_the_weighted_one_of_items(network):
    batch = one_batch(EVENTS, network.causal)
    both = loss(joint(network, item_weight=0.5), batch).item()
    vectors = network.item_vectors(ItemFeatures(CODES))
    items = []
    for row in (EVENTS[user] for user in range(len(EVENTS))):
        for place in range(1, len(row)):
            history = torch.from_numpy(row[:place])
            memory = network.encode_history(
                vectors[history], torch.arange(place)[None], torch.ones(1, place, dtype=torch.bool)
            )
            items.append(F.cross_entropy(vectors @ memory.hidden[0, -1], torch.tensor(row[place])))
    wanted = loss(digits(network), batch).item() + 0.5 * torch.stack(items).mean().item()
    assert both == pytest.approx(wanted, rel=1e-5)


def test_digits_can_be_learnt_from_a_share_of_the_histories(network):
    batch = one_batch(EVENTS, network.causal)
    partial = joint(network, digit_fraction=0.4)
    found = {round(loss(partial, batch, seed).item(), 5) for seed in range(20)}
    rows = len(batch.length)
    assert len(found) >= 2
    chosen = torch.randperm(rows, generator=torch.Generator().manual_seed(7))[: max(1, round(0.4 * rows))]
    items = loss(joint(network), batch).item() - loss(digits(network), batch).item()
    wanted = loss(digits(network), batch.rows(chosen)).item()
    assert loss(partial, batch, 7).item() == pytest.approx(items + wanted, rel=1e-5)


@pytest.mark.parametrize("kind", ["sampled_softmax", "gbce"])
def test_vectors_of_the_items_that_are_asked_for_are_enough(network, kind):
    settings = {"kind": kind, "negatives": 6, "negative_power": 0.5}
    whole = ItemLossSettings(**settings)
    batch = one_batch(EVENTS, network.causal)
    found = loss(joint(network, settings), batch, 4)
    vectors = network.item_vectors(ItemFeatures(CODES))
    sample = draw(whole, torch.ones(12), len(batch.target), torch.Generator().manual_seed(4))
    memory = network.encode_history(vectors[batch.histories.items], batch.histories.item_index, batch.histories.valid)
    users = memory.hidden[batch.slot // batch.length.shape[1], batch.length.flatten()[batch.slot] - 1]
    wanted = item_loss(users, batch.target, vectors, whole, sample, 12) + loss(digits(network), batch)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("history", ["causal", "bidirectional"])
def test_digits_can_be_learnt_from_left_to_right(history):
    torch.manual_seed(0)
    network = Autoregressive(N, K, width=16, heads=2, max_len=S, history=history).eval()
    batch = one_batch(EVENTS, network.causal)
    both = loss(joint(network, digits={"name": "left_to_right", "label_smoothing": 0.2}), batch)
    items = both - loss(LeftToRightObjective(task(network), label_smoothing=0.2), batch)
    vectors = network.item_vectors(ItemFeatures(CODES))
    memory = network.encode_history(vectors[batch.histories.items], batch.histories.item_index, batch.histories.valid)
    users = network.user_vectors(memory, batch.slot // batch.length.shape[1], batch.length.flatten()[batch.slot])
    assert items.item() == pytest.approx(F.cross_entropy(users @ vectors.T, batch.target).item(), rel=1e-5)


@pytest.mark.parametrize("targets", ["all", "newest"])
def test_targets_are_those_of_the_digits(targets):
    """Items are compared with what users are compared with, not with what stands in histories."""
    network = build("masked_history_dense", **SMALL).eval()
    of_network = learning_task(network, None, ConfidenceNoising(), items=features())
    digits = {"name": "history_diffusion", "targets": targets, "history_weight": 0}
    both, alone = JointObjective(of_network, digits=digits), HistoryDiffusionObjective(of_network, history_weight=0)
    assert both.newest_only == (targets == "newest") and not both.shared
    batch = one_batch(EVENTS, shared=False)
    vectors = network.item_vectors(features())
    memory = network.encode_history(vectors[batch.histories.items], batch.histories.item_index, batch.histories.valid)
    items = F.cross_entropy(network.user_vectors(memory) @ features().text.T, batch.target)
    assert loss(both, batch).item() == pytest.approx((loss(alone, batch) + items).item(), rel=1e-5)
