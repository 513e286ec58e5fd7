"""The loss of hidden items' texts beside that of their digits, against sums written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffgrm import HybridRecommender
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.sequence import hide
from diffgrm.learning.noising.uniform import RandomNoising
from diffgrm.learning.objectives.history import HistoryDiffusionObjective
from diffgrm.learning.objectives.history_dense import HistoryDiffusionDenseObjective
from helpers.networks import SMALL, N, build, features, learning_task, one_batch
from helpers.recipes import small_recipe

FEATURES = features()
EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
COSINES = {"kind": "softmax", "cosine": True, "temperature": 0.1}
JOINT = {"stream": "joint", "history_noise": "uniform_t", "reduction": "token_mean", "label_smoothing": 0.0}


def task(network, **item_loss):
    return learning_task(network, None, RandomNoising("k_of_n", views=1), items=FEATURES, **(item_loss or COSINES))


def made(network, **options):
    return HistoryDiffusionDenseObjective(task(network), **{**JOINT, **options})


def loss_of(objective, step=0, seed=0, events=EVENTS):
    batch, context = one_batch(events, shared=False), LearningContext(step, 100, 0, 1)
    with torch.no_grad():
        return objective.loss(batch, generator(seed), context).item()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network():
    return build("masked_history_dense", **SMALL).eval()


@pytest.mark.parametrize("history_weight", [1.0, 0.25])
def test_every_tenth_step_hides_whole_items_and_adds_the_loss_of_their_texts(network, history_weight):
    """The mean over hidden items of -log softmax(cosine / 0.1) among the texts of all; digits as with whole_items."""
    batch = one_batch(EVENTS, shared=False)
    histories = torch.zeros(len(batch.target), batch.histories.valid.shape[1], dtype=torch.long)
    histories[:] = batch.histories.items[batch.histories.item_index]
    items = torch.cat([histories, batch.target[:, None]], 1)
    valid = F.pad(batch.histories.valid, (0, 1), value=True)
    for seed in range(3):
        hidden = hide("whole_items", tuple(items.shape), N, generator(seed)).mask.all(-1) & valid
        mask = hidden[..., None].expand(-1, -1, N)
        memory = network.encode_history(network.item_vectors(FEATURES), histories, batch.histories.valid)
        with torch.no_grad():
            told = network.denoise_items(FEATURES.codes[batch.target], mask, memory)[1]
        losses = []
        for user, place in hidden.nonzero().tolist():
            cosines = torch.stack([F.cosine_similarity(told[user, place], text, dim=0) for text in FEATURES.text])
            losses.append(-(cosines / 0.1).log_softmax(0)[items[user, place]])
        plain = {**JOINT, "history_noise": "whole_items", "history_weight": history_weight}
        digits = HistoryDiffusionObjective(task(network), **plain)
        wanted = loss_of(digits, seed=seed) + 0.5 * torch.stack(losses).mean().item()
        found = made(network, dense_every=10, dense_weight=0.5, history_weight=history_weight)
        assert (
            loss_of(found, 0, seed) == pytest.approx(wanted, rel=1e-4) == pytest.approx(loss_of(found, 30, seed), rel=1e-4)
        )


def test_the_other_steps_are_those_of_digits_alone(network):
    digits, both = HistoryDiffusionObjective(task(network), **JOINT), made(network, dense_every=4)
    same = [loss_of(both, step) == loss_of(digits, step) for step in range(9)]
    assert same == [False, True, True, True, False, True, True, True, False]


def test_all_weights_have_a_gradient_in_every_step():
    """Which is 0 where texts are not learnt; processes that train together wait for one."""
    network = build("masked_history_dense", **SMALL, layers=1)
    both, batch = made(network, dense_every=2), one_batch(EVENTS, shared=False)
    for step in (0, 1):
        network.zero_grad()
        both.loss(batch, generator(), LearningContext(step, 100, 0, 1)).backward()
        assert all(weight.grad is not None for weight in network.parameters())
        assert network.user.back.weight.grad.any() == (step == 0)


def test_with_two_passes_it_is_part_of_the_second(network):
    options = {"stream": "two_passes", "last_phase": 0.5, "dense_every": 1, "history_noise": "whole_items"}
    alone = loss_of(made(network, **options, history_weight=0), events=EVENTS)
    one, three = (loss_of(made(network, **options, history_weight=weight)) for weight in (1.0, 3.0))
    assert three - alone == pytest.approx(3 * (one - alone), rel=1e-4) and one > alone
    late = loss_of(made(network, **options), step=50)
    assert late == loss_of(made(network, **options, history_weight=0), step=50)


def test_where_nothing_is_hidden_nothing_is_added(network):
    objective, batch = made(network), one_batch(EVENTS, shared=False)
    told = torch.ones(len(batch.target), 1 + batch.histories.valid.shape[1], 6, requires_grad=True)
    loss = objective.dense_loss(told, torch.zeros(told.shape[:2], dtype=torch.bool), batch, generator())
    loss.backward()
    assert loss.item() == 0 and not told.grad.any()


@pytest.mark.parametrize("kind", ["sampled_softmax", "bce", "gbce"])
def test_negatives_are_drawn_as_item_loss_says(network, kind):
    objective = HistoryDiffusionDenseObjective(task(network, kind=kind, negatives=5), **JOINT)
    assert loss_of(objective) == loss_of(objective) > 0


def test_it_learns_to_tell_items_that_follow_each_other():
    """A ring: after item i comes i + 1, whose text is told among twelve."""
    network = build("masked_history_dense", **SMALL, layers=1).train()
    ring = Ragged.from_lists([[i, (i + 1) % 12, (i + 2) % 12] for i in range(12)])
    objective, batch = made(network, dense_every=1, history_noise="whole_items"), one_batch(ring, shared=False)
    optimiser, draws = torch.optim.AdamW(network.parameters(), lr=1e-2), generator()
    for step in range(250):
        loss = objective.loss(batch, draws, LearningContext(step, 250, 0, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    index = torch.tensor([[i, (i + 1) % 12] for i in range(12)])
    memory = network.encode_history(network.item_vectors(FEATURES), index, torch.ones_like(index, dtype=torch.bool))
    scores = F.normalize(network.user_vectors(memory), dim=1) @ F.normalize(FEATURES.text, dim=1).T
    assert (scores.argmax(1) == (torch.arange(12) + 2) % 12).float().mean() > 0.9


REFUSED = {
    "objective.stream=two_passes objective.history_weight=0": (
        "objective.history_weight = 0 leaves out the pass in which whole items are hidden .*so that their vectors would"
    ),
    "objective.dense_every=1": "objective.history_noise = uniform_t does nothing with objective.dense_every = 1, by which",
    "noising.name=random": "noising.name = random does nothing with objective.stream = joint",
    "item_loss.negatives=7": "item_loss.negatives = 7 does nothing with item_loss.kind = softmax",
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.items())
def test_settings_that_do_nothing_are_refused(settings, message, toy, monkeypatch):
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", lambda *_, **__: pytest.fail("it embeds"))
    recipe = small_recipe("maskgr-dense").override(settings.split())
    with pytest.raises(RecipeError, match=message):
        HybridRecommender(recipe).fit(toy, progress=False)
