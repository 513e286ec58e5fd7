"""Label smoothing over near codes: its two ends, sums written out, and what it is refused with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffgrm import DiffGRMRecommender
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.losses import code_losses, masked_cross_entropy
from diffgrm.learning.noising.base import Views
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.learning.objectives.history import HistoryDiffusionObjective
from diffgrm.learning.objectives.left_to_right import LeftToRightObjective
from diffgrm.learning.smoothing import closeness, over_near_codes
from helpers.networks import ITEMS, SMALL, START, K, N, build, features, learning_task, one_batch
from helpers.recipes import small_generation, small_recipe

VECTORS = np.random.default_rng(0).normal(size=(N, K, 5)).astype(np.float32)
SQUARED = ((VECTORS[:, :, None].astype(np.float64) - VECTORS[:, None].astype(np.float64)) ** 2).sum(-1)  # [n, K, K]
DIGIT, TARGET = (torch.from_numpy(part).flatten() for part in np.meshgrid(np.arange(N), np.arange(K), indexing="ij"))
LOGITS = torch.randn(N * K, K, generator=torch.Generator().manual_seed(0))
EVENTS = Ragged.from_lists([[1, 2, 3, 4], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
CODES = features().codes


def smoothed(temperature, share=0.3):
    return code_losses(LOGITS, TARGET, DIGIT, share, closeness(VECTORS, temperature))


def test_a_high_temperature_smooths_evenly():
    wanted = F.cross_entropy(LOGITS, TARGET, label_smoothing=0.3, reduction="none")
    assert torch.allclose(smoothed(1e9), wanted, atol=1e-5)


def test_a_low_temperature_gives_all_that_leaves_the_true_code_to_the_nearest_other():
    nearest = torch.from_numpy((SQUARED + 1e9 * np.eye(K)).argmin(-1))[DIGIT, TARGET]
    log_p = LOGITS.log_softmax(-1)
    own, other = (log_p.gather(1, code[:, None])[:, 0] for code in (TARGET, nearest))
    moved = 0.3 * (1 - 1 / K)
    assert torch.allclose(smoothed(1e-9), -((1 - moved) * own + moved * other), atol=1e-5)


def test_between_them_it_is_the_softmax_written_out():
    found = smoothed(0.4)
    for row, (digit, code) in enumerate(zip(DIGIT.tolist(), TARGET.tolist(), strict=True)):
        unit = SQUARED[digit].sum() / (K * (K - 1))
        others = [other for other in range(K) if other != code]
        weight = np.exp([-SQUARED[digit, code, other] / unit / 0.4 for other in others])
        wanted = np.zeros(K)
        wanted[others] = 0.3 * (1 - 1 / K) * weight / weight.sum()
        wanted[code] = 1 - 0.3 * (1 - 1 / K)
        assert found[row].item() == pytest.approx(-(wanted @ LOGITS[row].double().log_softmax(0).numpy()), abs=1e-5)


def test_the_size_of_vectors_does_not_matter_and_codes_that_stand_for_nothing_are_alike():
    assert torch.allclose(closeness(1000 * VECTORS, 0.4), closeness(VECTORS, 0.4), rtol=1e-4)
    alike = closeness(np.zeros((1, K, 5), np.float32), 0.1)
    assert torch.allclose(over_near_codes(alike[0], torch.arange(K)), torch.full((K, K), 1 / K))


def test_masked_digits_are_smoothed_by_the_codes_of_their_own_digit():
    logits = torch.randn(6, 2, N, K, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(6, 2, N, generator=torch.Generator().manual_seed(2)) < 0.6
    close = closeness(VECTORS, 0.2)
    found = masked_cross_entropy(
        logits, CODES[:6], Views.equal(mask), reduction="token_mean", label_smoothing=0.3, close=close
    )
    each = [
        code_losses(logits[i, v, j][None], CODES[i, j][None], torch.tensor([j]), 0.3, close)
        for i, v, j in mask.nonzero().tolist()
    ]
    assert found.item() == pytest.approx(torch.cat(each).mean().item(), rel=1e-5)


OBJECTIVES = {
    "masked": ("diffgrm", DiffusionObjective, {}),
    "sequences": ("masked_history", HistoryDiffusionObjective, {"stream": "joint"}),
    "left to right": ("autoregressive", LeftToRightObjective, {}),
    "left to right, legal": ("autoregressive", LeftToRightObjective, {"legal": True}),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_objectives_smooth_so(kind):
    """A high temperature is even smoothing; a low one something else, with gradients that are finite."""
    name, objective, options = OBJECTIVES[kind]
    network = build(name, **SMALL).eval()

    def loss(temperature):
        task = learning_task(
            network, CODES, resolve("noising", "full_mask")(), counts=np.ones(ITEMS, int), code_vectors=lambda: VECTORS
        )
        made = objective(task, label_smoothing=0.3, smoothing_temperature=temperature, **options)
        assert made.state_dict().keys() == objective(task, **options).state_dict().keys()
        return made.loss(one_batch(EVENTS, made.shared), torch.Generator().manual_seed(0), START)

    even, near = loss(None), loss(0.05)
    assert loss(1e9).item() == pytest.approx(even.item(), rel=1e-5) and near.item() != pytest.approx(even.item(), rel=1e-3)
    near.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_of_codes_that_lead_to_an_item_only_those_share():
    """Written out; where no other is allowed, the true one has all."""
    close, allowed = closeness(VECTORS, 0.3)[1, 2], torch.tensor([True, False, True, True, False, False, False, True])
    found, true = over_near_codes(close, torch.tensor(2), allowed), 2
    weight = {code: np.exp(close[code].item()) for code in (0, 3, 7)}
    wanted = {code: 0.75 * value / sum(weight.values()) for code, value in weight.items()} | {true: 0.25}
    assert found.tolist() == pytest.approx([wanted.get(code, 0) for code in range(K)], abs=1e-6)
    alone = torch.arange(K) == true
    assert over_near_codes(close, torch.tensor(true), alone).tolist() == alone.float().tolist()


SMOOTH = ["objective.digit_weight=0.5", "objective.label_smoothing=0.1", "objective.smoothing_temperature=0.1"]
REFUSED = {
    "does nothing with objective.label_smoothing = 0; leave it out, or raise objective.label_smoothing": (
        ["tokenizer.unit=false", "objective.label_smoothing=0"]
    ),
    "which the tokenizer 'opq' does not tell with these settings; choose tokenizer.name=opq with tokenizer.unit=false": (
        ["tokenizer.unit=true"]
    ),
    "which the tokenizer 'random' does not tell": ["tokenizer={name: random, n_digits: 3, codebook_size: 16}"],
}


@pytest.mark.parametrize(("message", "settings"), REFUSED.items())
@pytest.mark.parametrize("recommender", ["diffgrm", "autoregressive"])
def test_where_it_does_nothing_or_cannot_be_it_is_refused(message, settings, recommender, toy):
    recipe = small_recipe(recommender).override(["objective.smoothing_temperature=0.1", *settings])
    with pytest.raises(RecipeError, match=rf"objective.smoothing_temperature = 0.1 .*{message}"):
        resolve("recommender", recommender)(recipe).fit(toy, progress=False)
    with pytest.raises(RecipeError, match="smooths over codes by what they stand for, and nothing tells it here"):
        DiffusionObjective(
            learning_task(None, CODES, resolve("noising", "full_mask")()), "view_mean", 0.1, smoothing_temperature=0.1
        )


def test_recommenders_learn_by_it(toy):
    """By the vectors that the tokenizer's codes stand for, those of an extra digit alike."""
    plain = ["tokenizer.unit=false", "training.epochs=1", "semantic_ids.collisions=extra_digit"]
    for recipe in (
        small_generation(*SMOOTH, "training.epochs=1"),
        small_recipe("diffgrm").override([*plain, "objective.smoothing_temperature=0.1"]),
    ):
        made = DiffGRMRecommender(recipe).fit(toy, progress=False)
        assert made.recommend([["item 3"]], k=5).height == 5
