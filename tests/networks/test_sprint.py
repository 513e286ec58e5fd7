"""SPRINT: its network, its contrast of codes, its sum of scores and its masks, against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffgrm import DiffGRMRecommender, Recipe
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.noising.full_mask import FullMaskNoising
from diffgrm.learning.objectives.token_contrast import TokenContrastObjective, among_drawn
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.decoding.digits_and_items import DigitsAndItems
from diffgrm.ranking.decoding.one_pass import OnePass
from helpers.networks import (
    ITEMS,
    SMALL,
    START,
    K,
    N,
    S,
    build,
    close,
    encode,
    features,
    histories,
    learning_task,
    noising_context,
    one_batch,
)
from helpers.recipes import small_recipe
from helpers.tiny_catalogues import HISTORIES, catalogue, rank, scoring_ranker


@pytest.fixture(scope="module")
def network():
    return build("sprint", **SMALL).eval()


# ---- the network ----------------------------------------------------------------------------------------------------


def test_a_user_is_what_the_decoder_makes_of_a_target_of_which_nothing_is_known(network):
    """The states of all digits, side by side; the logits of the digits come from the same states."""
    memory, hidden = encode(network, *histories(4)), torch.ones(4, 1, N, dtype=torch.bool)
    states = network.states(hidden.long(), hidden, memory, None)[:, 0]  # [B, n, d]
    for user in range(4):
        first, _, last = network.user
        side_by_side = torch.cat([states[user, digit] for digit in range(N)])
        wanted = last(torch.nn.functional.gelu(first(side_by_side)))
        assert close(network.user_vectors(memory)[user], wanted)
    logits = network.denoise(hidden.long(), hidden, memory)[:, 0]
    assert close(logits[:, 1], states[:, 1] @ network.digits.tables[1].T)


def test_the_vector_of_a_beginning_is_that_of_a_shorter_history():
    network = build("sprint", **SMALL, history="causal").eval()
    items = network.item_vectors(features())
    index = torch.arange(3 * S).view(3, S) % ITEMS
    whole = network.encode_history(items, index, torch.ones(3, S, dtype=torch.bool))
    history, length = torch.tensor([0, 0, 2]), torch.tensor([1, 4, 3])
    found = network.user_vectors(whole, history, length)
    for row, (user, count) in enumerate(zip(history.tolist(), length.tolist(), strict=True)):
        short = network.encode_history(items, index[[user], :count], torch.ones(1, count, dtype=torch.bool))
        assert close(network.user_vectors(short)[0], found[row])


# ---- the contrast of codes ------------------------------------------------------------------------------------------


def test_rivals_are_the_drawn_codes_that_differ():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, N, K, generator=generator)
    target, drawn = (torch.randint(0, K, (count, N), generator=generator) for count in (4, 9))
    found = -among_drawn(logits, target, drawn).log_softmax(-1).gather(3, target[:, None, :, None].expand(-1, 2, -1, 1))
    for user, view, digit in np.ndindex(4, 2, N):
        own, row = int(target[user, digit]), logits[user, view, digit].tolist()
        rivals = [row[code] for code in drawn[:, digit].tolist() if code != own]
        wanted = math.log(sum(map(math.exp, [row[own], *rivals]))) - row[own]
        assert found[user, view, digit].item() == pytest.approx(wanted, abs=1e-5)


def test_with_every_code_drawn_once_it_is_plain_cross_entropy():
    logits, target = torch.randn(4, 2, N, K), torch.randint(0, K, (4, N))
    every = torch.arange(K)[:, None].expand(-1, N)
    assert close(among_drawn(logits, target, every).log_softmax(-1), logits.log_softmax(-1))


def contrasted(codes, negatives):
    """The objective over items of such digits, all digits hidden, and a batch for it."""
    network = build("sprint", **SMALL).eval()
    task = learning_task(network, codes, FullMaskNoising())
    return TokenContrastObjective(task, negatives), one_batch(Ragged.from_lists([[0, 1, 2, 3], [4, 5], [2, 3, 1]]), False)


def test_the_loss_is_that_of_the_code_among_those_of_so_many_drawn_items():
    """Written out for every target and digit, the draw being the first of the generator: no digit is drawn to be hidden."""
    codes = features().codes
    objective, batch = contrasted(codes, negatives=7)
    memory = objective.encode(batch)
    found = objective.digit_loss(batch, memory, torch.Generator().manual_seed(3), START)
    drawn = torch.randint(ITEMS, (7,), generator=torch.Generator().manual_seed(3)).tolist()
    hidden = torch.ones(len(batch.target), 1, N, dtype=torch.bool)
    logits = objective.network.denoise(hidden.long(), hidden, memory)[:, 0].tolist()
    losses = []
    for row, target in enumerate(batch.target.tolist()):
        for digit in range(N):
            own = codes[target, digit].item()
            rivals = [codes[item, digit].item() for item in drawn]
            compared = [logits[row][digit][code] for code in [own, *(code for code in rivals if code != own)]]
            losses.append(math.log(sum(map(math.exp, compared))) - compared[0])
    assert found.item() == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_where_all_items_have_equal_codes_there_is_nothing_to_tell_apart():
    objective, batch = contrasted(torch.full((ITEMS, N), 2), negatives=7)
    assert objective.digit_loss(batch, objective.encode(batch), torch.Generator(), START).item() == 0


# ---- masks ----------------------------------------------------------------------------------------------------------


def masks(share, draw="k_of_n"):
    schedule = resolve("noising", "random")(draw=draw, views=1, all_masked=share)
    return schedule.views(torch.zeros(4000, N, dtype=torch.long), noising_context(None, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("draw", ["k_of_n", "fixed_p"])
def test_so_many_views_hide_every_digit(draw):
    plain, some, all_ = (masks(share, draw).mask for share in (0.0, 0.6, 1.0))
    by_chance = plain.all(-1).float().mean().item()
    assert some.all(-1).float().mean().item() == pytest.approx(0.6 + 0.4 * by_chance, abs=0.03)
    assert all_.all() and (some | ~plain).all()
    assert (masks(1.0, draw).view_weight == 1).all()


def test_a_share_of_whole_masks_is_refused_where_it_does_nothing():
    recipe = Recipe(recommender="diffgrm", noising={"name": "random", "all_masked": 0.5})
    with pytest.raises(RecipeError, match=r"noising\.all_masked = 0\.5 does nothing with noising\.draw = uniform_t"):
        recipe.refuse_idle()


# ---- the sum of scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.3, 2.0])
@pytest.mark.parametrize("share", [False, True])
def test_every_item_scores_by_its_digits_and_as_a_whole(weight, share):
    torch.manual_seed(0)
    network, cat = resolve("model", "sprint")(3, 4, width=16, heads=2, decoder_layers=1).eval(), catalogue(share)
    ranker = scoring_ranker(network, DigitsAndItems(weight=weight), cat)
    items, scores = ranker.rank(HISTORIES, 40, exclude_seen=False)
    exact, exact_scores = rank(network, OnePass(), cat, k=40, exclude_seen=False)
    vectors = network.item_vectors(ItemFeatures(cat.codes_of(torch.arange(40))))
    for user in range(len(HISTORIES)):
        digits = dict(zip(exact[user].tolist(), exact_scores[user].tolist(), strict=True))
        with torch.no_grad():
            row = torch.from_numpy(HISTORIES[user])[None]
            memory = network.encode_history(vectors, row, torch.ones_like(row, dtype=torch.bool))
            whole = (network.user_vectors(memory) @ vectors.T)[0].tolist()
        wanted = {item: whole[item] + weight * digits[item] for item in range(40)}
        total = math.log(sum(map(math.exp, wanted.values())))
        assert sorted(items[user].tolist()) == list(range(40))
        assert scores[user] == pytest.approx([wanted[item] - total for item in items[user]], abs=1e-4)
        assert (np.diff(scores[user]) <= 1e-6).all()


# ---- what it is for -----------------------------------------------------------------------------------------------


def test_scores_that_nothing_teaches_are_refused(toy):
    recipe = small_recipe("diffgrm").override(["model.name=sprint"])
    with pytest.raises(RecipeError, match=r"'sprint' has weights for scores of items, which the objective 'diffusion'"):
        DiffGRMRecommender(recipe).fit(toy, progress=False)
