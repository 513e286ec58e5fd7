from __future__ import annotations

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.networks.blocks import Dropout
from diffgrm.networks.comparison import Comparison
from diffgrm.networks.inputs import Histories, ItemFeatures
from diffgrm.networks.sasrec import SASRec
from diffgrm.ranking.query import Query
from helpers.networks import START, item_ranker, learning_task, one_batch

ITEMS, S = 20, 6
CODES = torch.cartesian_prod(*[torch.arange(4)] * 3)[torch.randperm(64, generator=torch.Generator().manual_seed(0))[:ITEMS]]
ALL = torch.ones(ITEMS, dtype=torch.bool)
WAYS = {
    "a vector per item": ({"n_items": ITEMS}, ItemFeatures(row=torch.arange(ITEMS), trained=ALL)),
    "composed of digits": ({"n_digits": 3, "codebook_size": 4, "branches": ["sid"]}, ItemFeatures(CODES)),
}
HISTORIES = Ragged.from_lists([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12], [3, 3]])


@pytest.fixture(params=WAYS, ids=str)
def way(request):
    settings, items = WAYS[request.param]
    torch.manual_seed(0)
    return SASRec(**settings, width=16, heads=2, max_len=S).eval(), items


def encode(network, items, histories):
    stop = histories.offsets[1:]
    some, index, valid, *_ = Histories.collate(histories.values, np.maximum(histories.offsets[:-1], stop - S), stop)
    with torch.no_grad():
        return network.encode_history(network.item_vectors(items)[some], index, valid).hidden, valid


def test_no_place_sees_what_comes_after_it_but_for_its_distance_from_the_end(way):
    network, items = way
    with torch.no_grad():
        network.encoder.position.zero_()
    whole, _ = encode(network, items, Ragged.from_lists([[1, 2, 3, 4]]))
    start, _ = encode(network, items, Ragged.from_lists([[1, 2]]))
    assert torch.allclose(whole[:, :2], start, atol=1e-5)


def test_padding_and_the_rest_of_the_batch_change_nothing(way):
    network, items = way
    together, valid = encode(network, items, HISTORIES)
    for row in range(len(HISTORIES)):
        alone, _ = encode(network, items, HISTORIES.rows(np.array([row])))
        assert torch.allclose(together[row, valid[row]], alone[0], atol=1e-5)


def test_ranks_are_those_of_the_products(way):
    network, features = way
    items, scores = item_ranker(network, features).rank(Query(HISTORIES, 5))
    hidden, valid = encode(network, features, HISTORIES)
    with torch.no_grad():
        wanted = hidden[torch.arange(4), valid.sum(1) - 1] @ network.item_vectors(features).T
    for row in range(4):
        wanted[row, torch.from_numpy(HISTORIES[row])] = -torch.inf
    top = wanted.topk(5)
    assert np.allclose(scores, top.values.numpy(), atol=1e-5) and (items == top.indices.numpy()).all()


def test_cosine_ranks_by_direction(way):
    network, items = way
    _, scores = item_ranker(network, items, Comparison(cosine=True)).rank(Query(HISTORIES, 5))
    assert (np.abs(scores) <= 1 + 1e-5).all()


@pytest.mark.parametrize("kind", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_every_loss_learns_a_simple_rule(way, kind):
    """Item i is followed by i + 1: two of four users' rows show each step."""
    network, items = way
    network.train()
    for module in network.modules():
        if isinstance(module, Dropout):
            module.dropped = 0
    events = Ragged.from_lists([list(range(s, s + 8)) for s in (0, 4, 8, 12)] * 4)
    counts = np.bincount(events.values, minlength=ITEMS)
    loss, ranking = {"kind": kind, "negatives": 10}, lambda *_: item_ranker(network, items)
    objective = NextItemObjective(learning_task(network, items=items, counts=counts, ranking=ranking, **loss))
    batches = TrainingBatches(events, S, 64, seed=0, shared=True)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(80):
        batches.set_epoch(epoch)
        for batch in batches:
            optimiser.zero_grad()
            objective.loss(batch, generator, START).backward()
            optimiser.step()
    asked = Ragged.from_lists([[4, 5, 6, 7, 8, 9], [8, 9, 10, 11, 12, 13], [12, 13, 14, 15, 16, 17]])
    assert (objective.ranking().top(asked, 3)[:, 0] == [10, 14, 18]).all()


def test_one_pass_gives_the_loss_of_each_target_alone(way):
    """But for positions, which count from the end of the stretch."""
    network, items = way
    with torch.no_grad():
        network.encoder.position.zero_()
    events = Ragged.from_lists([[1, 2, 3, 4, 5], [7, 8], [9, 10, 11, 0]])
    objective, found = NextItemObjective(learning_task(network, items=items)), []
    for shared in (True, False):
        found.append(objective.loss(one_batch(events, shared, S), torch.Generator(), START).item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_items_without_events_keep_the_vector_that_was_drawn():
    network = SASRec(n_items=ITEMS, width=16, heads=2)
    features = ItemFeatures(row=torch.arange(ITEMS), trained=torch.arange(ITEMS) > 3)
    assert (network.item_vectors(features).norm(dim=1) > 0.3).all()


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(RecipeError, match=r"model\.width 30 is not a multiple of model\.heads 4"):
        SASRec(n_items=8, width=30, heads=4)
