"""EPIC's loss against sums written out, and what of the network it teaches."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.parts import as_part
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.noising.base import NoisingSchedule, Views
from diffgrm.learning.objectives.epic import EpicObjective
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.epic import Epic
from diffgrm.networks.masked_history import MaskedHistory
from helpers.networks import START, begin, learning_task, one_batch

N, K = 3, 4
SIDS = torch.cartesian_prod(*[torch.arange(K)] * N)
CODES = SIDS[torch.randperm(len(SIDS), generator=torch.Generator().manual_seed(0))[:24]]
EVENTS = Ragged.from_lists([[1, 2, 3, 4], [7, 8], [9, 10, 7], [5, 20, 6, 11, 12]])
MASKS = torch.tensor([[True, True, True], [False, True, True], [True, False, False], [False, False, False]])


class Given(NoisingSchedule):
    """Every target is seen in the same four ways; the last hides nothing."""

    def views(self, codes, context):
        return Views.equal(MASKS.expand(len(codes), -1, -1))


def network(kind=MaskedHistory, candidates=6):
    torch.manual_seed(1)
    made = Epic(N, K, len(CODES), kind(N, K, width=16, heads=2, dropout=0.3), width=8, candidates=candidates, recent=2)
    begin(made)
    return made.train()


def objective(made, noising=None, codes=CODES, **settings):
    schedule = noising or Given()
    return EpicObjective(learning_task(made, codes, schedule), **settings)


def loss_of(found, seed=0):
    return found.loss(one_batch(EVENTS, False), torch.Generator().manual_seed(seed), START)


def fits(codes, target, mask):
    return [i for i, code in enumerate(codes) if all(h or code[j] == codes[target][j] for j, h in enumerate(mask.tolist()))]


@pytest.mark.parametrize("candidates", [4, 6, 64])
@pytest.mark.parametrize("share", [False, True])
def test_the_loss_is_the_sum_written_out(candidates, share):
    codes = torch.cat([CODES[:16], CODES[:8]]) if share else CODES
    settings = {"item_weight": 0.7, "spread_weight": 0.3, "spread_temperature": 0.5}
    found, batch = objective(network(candidates=candidates), codes=codes, **settings), one_batch(EVENTS, False)
    found.network.eval()
    target = batch.target
    with torch.no_grad():
        told = found._steered(
            codes[target][:, None].expand(-1, 4, -1), MASKS.expand(len(target), 4, N), found.encode(batch)
        )
    pairs = zip(told.candidates.row.tolist(), told.candidates.item.tolist(), told.log_share.tolist(), strict=True)
    log_share = {(row, item): value for row, item, value in pairs}
    total, counted = 0.0, set()
    for user, wanted in enumerate(target.tolist()):
        for view, mask in enumerate(MASKS):
            if not mask.any():
                continue
            log_p = told.logits[user, view].log_softmax(-1)
            total -= np.mean([log_p[j, codes[wanted, j]].item() for j in range(N) if mask[j]])
            here = fits(codes, wanted, mask)
            if not 2 <= len(here) <= candidates:
                continue
            counted.add(view)
            shares = [log_share[user * 4 + view, i] for i in here]
            total -= 0.7 * shares[here.index(wanted)]
            near = [math.exp(-(codes[i] != codes[wanted]).float().mean().item() / 0.5) for i in here]
            spread = -sum(w * s for w, s in zip(near, shares, strict=True)) / sum(near)
            total += 0.3 * mask.float().mean().item() * spread
    assert loss_of(found).item() == pytest.approx(total / (len(target) * 4), rel=1e-4)
    assert counted and (len(counted) == 3) == (candidates == 64)


@pytest.mark.parametrize("candidates", [2, 6])
def test_views_that_one_item_fits_or_more_than_are_looked_at_have_no_loss_of_items(candidates):
    found, batch = objective(network(candidates=candidates)), one_batch(EVENTS, False)
    target = batch.target
    for view, mask in enumerate(MASKS):
        views = Views.equal(mask.expand(len(target), 1, -1))
        with torch.no_grad():
            told = found._steered(CODES[target][:, None], views.mask, found.encode(batch))
        counts = [len(fits(CODES, wanted, mask)) for wanted in target.tolist()]
        learnt = [found.item_loss(_one(told, row), target[row, None], _row(views, row)) > 0 for row in range(len(target))]
        assert learnt == [2 <= count <= candidates and view < 3 for count in counts]


def _row(views, row):
    return Views(*(part[row, None] for part in views))


def _one(told, row):
    """What was said of one target's view."""
    found, pairs = told.candidates, told.candidates.row == row
    alone = found._replace(row=found.row[pairs] * 0, place=found.place[pairs], fitting=found.fitting[row, None])
    return told._replace(logits=told.logits[row, None], candidates=alone, log_share=told.log_share[pairs])


@pytest.mark.parametrize("kind", [MaskedHistory, DiffGRM])
def test_a_step_moves_what_steers_and_leaves_the_frozen_network_as_it_was(kind):
    made = network(kind)
    found = objective(made, as_part("noising", "random").build(seed=0))
    frozen, steering = (copy.deepcopy(part.state_dict()) for part in (made.backbone, made.steering))
    optimiser = torch.optim.AdamW(made.parameters(), lr=0.01, weight_decay=0.1)
    for seed in range(3):
        optimiser.zero_grad()
        loss_of(found, seed).backward()
        optimiser.step()
    assert all(torch.equal(frozen[name], weight) for name, weight in made.backbone.state_dict().items())
    assert all(not torch.equal(steering[name], weight) for name, weight in made.steering.state_dict().items())


@pytest.mark.parametrize("noising", ["random", "coherent", "confidence"])
def test_the_frozen_network_has_no_dropout_and_keeps_its_mode(noising):
    found = objective(network(), as_part("noising", noising).build(seed=0))
    assert loss_of(found).item() == loss_of(found).item() and found.network.backbone.training


def test_learning_lowers_the_loss():
    found = objective(network(candidates=24))
    optimiser = torch.optim.AdamW(found.network.steering.parameters(), lr=0.01)
    first = loss_of(found).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss_of(found).backward()
        optimiser.step()
    assert loss_of(found).item() < 0.7 * first


def test_a_temperature_of_nothing_is_refused():
    recipe = Recipe(recommender="epic", objective={"spread_weight": 0, "spread_temperature": 0.5})
    with pytest.raises(RecipeError, match=r"objective\.spread_temperature = 0\.5 does nothing with .*spread_weight = 0"):
        EpicObjective.check(recipe.objective, recipe)
    EpicObjective.check(Recipe(recommender="epic", objective={"spread_weight": 0}).objective, recipe)
