from __future__ import annotations

import numpy as np
import pytest
import torch
from diffgrm.ranking.retrieval import VectorRanker

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.recipe import ItemLossSettings
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.networks.blocks import Dropout
from diffgrm.networks.inputs import Histories
from diffgrm.networks.sasrec import SASRec
from diffgrm.ranking.query import Query

ITEMS, S = 20, 6
CODES = torch.cartesian_prod(*[torch.arange(4)] * 3)[torch.randperm(64, generator=torch.Generator().manual_seed(0))[:ITEMS]]
WAYS = {"a vector per item": (1, ITEMS, torch.arange(ITEMS)[:, None]), "composed of digits": (3, 4, CODES)}
HISTORIES = Ragged.from_lists([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12], [3, 3]])


@pytest.fixture(params=WAYS, ids=str)
def way(request):
    n, K, digits = WAYS[request.param]
    torch.manual_seed(0)
    return SASRec(n, K, width=16, heads=2, max_len=S).eval(), digits


def encode(network, digits, histories):
    stop = histories.offsets[1:]
    items, places, valid = Histories.collate(histories.values, np.maximum(histories.offsets[:-1], stop - S), stop)
    with torch.no_grad():
        return network.encode(network.item_vectors(digits)[items], places, valid), valid


def test_no_place_sees_what_comes_after_it_but_for_its_distance_from_the_end(way):
    network, digits = way
    with torch.no_grad():
        network.position.zero_()
    whole, _ = encode(network, digits, Ragged.from_lists([[1, 2, 3, 4]]))
    start, _ = encode(network, digits, Ragged.from_lists([[1, 2]]))
    assert torch.allclose(whole[:, :2], start, atol=1e-5)


def test_padding_and_the_rest_of_the_batch_change_nothing(way):
    network, digits = way
    together, valid = encode(network, digits, HISTORIES)
    for row in range(len(HISTORIES)):
        alone, _ = encode(network, digits, HISTORIES.rows(np.array([row])))
        assert torch.allclose(together[row, valid[row]], alone[0], atol=1e-5)


def test_ranks_are_those_of_the_products(way):
    network, digits = way
    items, scores = VectorRanker(network, digits).rank(Query(HISTORIES, 5))
    hidden, valid = encode(network, digits, HISTORIES)
    with torch.no_grad():
        wanted = hidden[torch.arange(4), valid.sum(1) - 1] @ network.item_vectors(digits).T
    for row in range(4):
        wanted[row, torch.from_numpy(HISTORIES[row])] = -torch.inf
    top = wanted.topk(5)
    assert np.allclose(scores, top.values.numpy(), atol=1e-5) and (items == top.indices.numpy()).all()


def test_cosine_ranks_by_direction(way):
    network, digits = way
    _, scores = VectorRanker(network, digits, cosine=True).rank(Query(HISTORIES, 5))
    assert (np.abs(scores) <= 1 + 1e-5).all()


@pytest.mark.parametrize("kind", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_every_loss_learns_a_simple_rule(way, kind):
    """Item i is followed by i + 1: two of four users' rows show each step."""
    network, digits = way
    network.train()
    for module in network.modules():
        if isinstance(module, Dropout):
            module.dropped = 0
    events = Ragged.from_lists([list(range(s, s + 8)) for s in (0, 4, 8, 12)] * 4)
    loss = ItemLossSettings(kind=kind, negatives=10)
    objective = NextItemObjective(network, loss, digits, np.bincount(events.values, minlength=ITEMS))
    batches = TrainingBatches(events, S, 64, seed=0, shared=True)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(80):
        batches.set_epoch(epoch)
        for batch in batches:
            optimiser.zero_grad()
            objective.loss(batch, generator).backward()
            optimiser.step()
    lists = objective.rank(Ragged.from_lists([[4, 5, 6, 7, 8, 9], [8, 9, 10, 11, 12, 13], [12, 13, 14, 15, 16, 17]]), 3)
    assert (lists[:, 0] == [10, 14, 18]).all()


def test_one_pass_gives_the_loss_of_each_target_alone(way):
    """But for positions, which count from the end of the stretch."""
    network, digits = way
    with torch.no_grad():
        network.position.zero_()
    events = Ragged.from_lists([[1, 2, 3, 4, 5], [7, 8], [9, 10, 11, 0]])
    objective = NextItemObjective(network, ItemLossSettings(), digits, np.ones(ITEMS))
    found = []
    for shared in (True, False):
        (batch,) = TrainingBatches(events, S, 64, seed=0, shared=shared)
        found.append(objective.loss(batch, torch.Generator()).item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(RecipeError, match=r"model\.width 30 is not a multiple of model\.heads 4"):
        SASRec(1, 8, width=30, heads=4)
