"""Left to right among the codes that still lead to an item: probabilities of items, which add up to 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.objectives.left_to_right import LeftToRightObjective
from diffgrm.ranking.catalogue import Catalogue, Excluded
from diffgrm.ranking.decoding.base import Task
from diffgrm.ranking.decoding.left_to_right import LeftToRight
from helpers.commands import called, save_tables
from helpers.networks import ITEMS, SMALL, START, K, N, build, encode, features, learning_task, one_batch
from helpers.recipes import small_recipe

EVENTS = Ragged.from_lists([[1, 2, 3, 4], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
CODES = features().codes
SHARED = CODES[torch.arange(ITEMS) // 2]
SIDS = pytest.mark.parametrize("codes", [CODES, SHARED], ids=["a semantic ID each", "shared semantic IDs"])


@pytest.fixture(scope="module")
def network():
    network = build("autoregressive", **SMALL).eval()
    with torch.no_grad():  # as sure of itself as if it had learnt something
        for weight in network.parameters():
            weight.mul_(1.3)
    return network


def log_probability(network, codes, memory, sid, possible):
    """Of one semantic ID for one user, digit after digit among the codes that items of ``possible`` have."""
    total, left = 0.0, [row for row in codes[possible].tolist()]
    logits = network.predict(torch.tensor(sid)[None, None], memory)[0, 0].double()
    for digit, code in enumerate(sid):
        allowed = sorted({row[digit] for row in left})
        total += logits[digit, code].item() - logits[digit, allowed].logsumexp(0).item()
        left = [row for row in left if row[digit] == code]
    return total


def memory_of(network, users=3):
    codes = CODES[torch.arange(users * 2).view(users, 2)]
    return encode(network, codes, torch.ones(users, 2, dtype=torch.bool))


def decoded(network, codes, excluded=None, **options):
    task = Task(network.next_digit, memory_of(network), Catalogue(codes, K), ITEMS, excluded, torch.zeros(3).long())
    return LeftToRight(beam=512, renormalise=True, **options).decode(task)


@SIDS
@pytest.mark.parametrize("away", [[[], [], []], [[0, 3, 4, 5], [], [11]]], ids=["all items", "seen ones left out"])
def test_probabilities_of_what_a_user_may_get_add_up_to_one(network, codes, away):
    """And each is that of its digits, written out."""
    excluded = Excluded.from_ragged(Ragged.from_lists(away), ITEMS) if any(away) else None
    found, memory = decoded(network, codes, excluded), memory_of(network)
    for user in range(3):
        possible = sorted(set(range(ITEMS)) - set(away[user]))
        live = found.legal[user] & (found.sid_scores[user] > -torch.inf)
        sids, scores = found.codes[user][live].tolist(), found.sid_scores[user][live]
        assert sorted(sids) == sorted(map(list, {tuple(row) for row in codes[possible].tolist()}))
        assert scores.exp().sum().item() == pytest.approx(1, abs=1e-4)
        for sid, score in zip(sids, scores.tolist(), strict=True):
            alone = memory.rows(torch.tensor([user]))
            assert score == pytest.approx(log_probability(network, codes, alone, sid, possible), abs=1e-3)
        assert sorted(i for i in found.items[user].tolist() if i >= 0) == possible


def test_without_it_part_of_the_probability_goes_to_no_item(network):
    task = Task(network.next_digit, memory_of(network), Catalogue(CODES, K), ITEMS, None, torch.zeros(3).long())
    plain = LeftToRight(beam=512).decode(task)
    assert (plain.sid_scores.masked_fill(~plain.legal, -torch.inf).exp().sum(1) < 0.9).all()


@SIDS
def test_the_loss_is_the_log_probability_of_the_targets_by_digit(network, codes):
    task = learning_task(network, codes, counts=np.ones(ITEMS, int))
    made = LeftToRightObjective(task, label_smoothing=0.0, legal=True)
    batch = one_batch(EVENTS, made.shared)
    memory, everyone = made.encode(batch), list(range(ITEMS))
    wanted = [
        log_probability(network, codes, memory.rows(torch.tensor([row])), codes[item].tolist(), everyone)
        for row, item in enumerate(batch.target.tolist())
    ]
    found = made.loss(batch, torch.Generator(), START)
    assert found.item() == pytest.approx(-np.mean(wanted) / N, rel=1e-4)
    told = made.log_likelihood(codes[batch.target], memory)  # what validation logs
    assert told.sum(1).tolist() == pytest.approx(wanted, rel=1e-4)


def test_smoothing_spreads_over_the_codes_that_lead_to_an_item(network):
    plain, smooth = (
        LeftToRightObjective(learning_task(network, CODES, counts=np.ones(ITEMS, int)), label_smoothing=share, legal=True)
        for share in (0.0, 0.3)
    )
    batch = one_batch(EVENTS, plain.shared)
    target, memory = CODES[batch.target], plain.encode(batch)
    logits, total = network.predict(target[:, None], memory)[:, 0].double(), 0.0
    for row, digits in enumerate(target.tolist()):
        for digit in range(N):
            fits = [item for item in CODES.tolist() if item[:digit] == digits[:digit]]
            allowed = sorted({item[digit] for item in fits})
            log_p = logits[row, digit, allowed].log_softmax(0)
            total += 0.7 * log_p[allowed.index(digits[digit])].item() + 0.3 * log_p.mean().item()
    found = smooth.loss(batch, torch.Generator(), START)
    assert found.item() == pytest.approx(-total / target.numel(), rel=1e-4)
    assert digest_of(plain) != digest_of(smooth)


def digest_of(objective):
    return repr(objective.identity()[:3])


def test_a_digit_that_follows_from_those_before_it_costs_nothing(network):
    """Where one code alone leads to an item."""
    codes = torch.tensor([[0, 1, 2], [3, 4, 5]])
    made = LeftToRightObjective(learning_task(network, codes, counts=np.ones(2, int)), label_smoothing=0.2, legal=True)
    loss = made.loss(one_batch(Ragged.from_lists([[0, 1], [1, 0, 0]]), made.shared), torch.Generator(), START)
    told = made.log_likelihood(codes, made.encode(one_batch(Ragged.from_lists([[0, 1], [1, 0]]), made.shared)))
    assert loss.isfinite() and (told[:, 1:] == 0).all() and (told[:, 0] < 0).all()


def test_its_gradients_are_finite_and_illegal_codes_have_none():
    network = build("autoregressive", **SMALL).train()
    made = LeftToRightObjective(learning_task(network, CODES, counts=np.ones(ITEMS, int)), label_smoothing=0.1, legal=True)
    made.loss(one_batch(EVENTS, made.shared), torch.Generator(), START).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients) and any(g.abs().sum() > 0 for g in gradients)


def test_to_renormalise_what_is_not_constrained_is_refused(toy, tmp_path, monkeypatch, capsys):
    message = "decoding.renormalise does nothing with decoding.constrained = false; leave one of them out"
    with pytest.raises(RecipeError, match=message):
        LeftToRight(constrained=False, renormalise=True)
    settings = ["decoding.renormalise=true", "decoding.constrained=false"]
    recipe = small_recipe("autoregressive").override(settings)
    with pytest.raises(RecipeError, match=message):
        resolve("recommender", "autoregressive")(recipe).fit(toy, progress=False)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    fit = ["fit", "--recipe", tmp_path / "recipe.yaml", *save_tables(toy, tmp_path), "--out", tmp_path / "model"]
    code, _, err = called(monkeypatch, capsys, *fit)
    assert code == 2 and message in err


def test_what_is_taught_so_is_ranked_so(toy):
    """Validation and lists of a recommender."""
    recipe = small_recipe("autoregressive").override(
        ["objective.legal=true", "decoding.renormalise=true", "decoding.beam=480", "training.epochs=1"]
    )
    made = resolve("recommender", "autoregressive")(recipe).fit(toy, progress=False)
    found = made.recommend([["item 3"]], k=480, exclude_seen=False)
    assert math.fsum(found["score"].exp()) == pytest.approx(1, abs=1e-3) and found.height == 480
