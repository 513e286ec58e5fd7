from __future__ import annotations

import pytest
import torch

from diffgrm.learning.losses import masked_cross_entropy
from diffgrm.learning.noising.base import Views
from diffgrm.learning.noising.coherent import CoherentNoising
from diffgrm.learning.noising.confidence import ConfidenceNoising, confidence
from diffgrm.learning.noising.full_mask import FullMaskNoising
from diffgrm.learning.noising.uniform import RandomNoising
from helpers.networks import noising_context

CODES = torch.tensor([[0, 1, 2], [2, 1, 0]])
SHARP = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])  # how peaked each digit's distribution is


def probe(codes, mask):
    logits = torch.zeros(*codes.shape, 4)
    logits[..., 0] = SHARP[:, None]
    return logits


def hidden(schedule, probe=probe):
    return schedule.views(CODES, noising_context(probe)).mask.int().tolist()


@pytest.mark.parametrize("measure", ["msp", "entropy"])
def test_view_t_hides_the_t_least_confident_digits(measure):
    assert hidden(ConfidenceNoising(measure=measure)) == [
        [[0, 1, 0], [0, 1, 1], [1, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
    ]


def test_most_confident_first_is_the_other_way_round():
    assert hidden(ConfidenceNoising(order="most"))[0] == [[1, 0, 0], [1, 0, 1], [1, 1, 1]]


def test_confidence_measures():
    flat, sharp = torch.zeros(4), torch.tensor([9.0, 0, 0, 0])
    assert confidence(flat, "msp") == pytest.approx(0.25)
    assert confidence(flat, "entropy") == pytest.approx(-1.3863, abs=1e-4)
    assert confidence(sharp, "msp") > 0.99 and confidence(sharp, "entropy") > -0.01


def test_refreshing_asks_again_after_each_revealed_digit():
    asked = []

    def changing(codes, mask):
        asked.append(mask[:, 0].int().tolist()[0])
        logits = torch.zeros(*codes.shape, 4)
        # at first digit 0 is surest; once it is known, digit 1 becomes surer than digit 2
        sure = torch.tensor([3.0, 1.0, 2.0]) if mask.all() else torch.tensor([0.0, 2.0, 1.0])
        logits[..., 0] = sure
        return logits

    assert hidden(ConfidenceNoising(refresh="step"), changing)[0] == [[0, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert asked == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert hidden(ConfidenceNoising(refresh="once"), changing)[0] == [[0, 1, 0], [0, 1, 1], [1, 1, 1]]


def test_coherent_views_are_nested_and_their_order_is_random():
    codes = torch.zeros(4000, 3, dtype=torch.long)
    mask = CoherentNoising().views(codes, noising_context(probe)).mask
    assert (mask.sum(-1) == torch.tensor([1, 2, 3])).all()
    assert (mask[:, :-1] <= mask[:, 1:]).all()
    assert mask[:, 0].float().mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)


def test_random_draws_follow_their_laws():
    codes = torch.zeros(20_000, 4, dtype=torch.long)
    fixed = RandomNoising("fixed_p", p=0.3).views(codes, noising_context(probe))
    assert fixed.mask.float().mean() == pytest.approx(0.3, abs=0.01)
    k = RandomNoising("k_of_n", views=2).views(codes, noising_context(probe)).mask.sum(-1)
    assert k.shape == (20_000, 2)
    assert (k.flatten().bincount()[1:] / k.numel()).tolist() == pytest.approx([0.25] * 4, abs=0.01)
    uniform = RandomNoising("uniform_t").views(codes, noising_context(probe))
    assert uniform.mask.float().mean() == pytest.approx(0.5, abs=0.01)


def test_uniform_t_is_an_unbiased_estimate_of_the_likelihood_bound():
    """Each digit's loss counts 1/n in expectation, since E[masked / t] = 1: a constant loss of 1 gives 1."""
    views = RandomNoising("uniform_t").views(torch.zeros(200_000, 4, dtype=torch.long), noising_context(probe))
    assert views.view_weight.mean() == pytest.approx(1, abs=0.05)
    assert (views.digit_weight * views.mask.sum(-1) / 4).mean() == pytest.approx(1, abs=0.05)


def test_full_mask_hides_everything_once():
    assert hidden(FullMaskNoising()) == [[[1, 1, 1]], [[1, 1, 1]]]


LOGITS = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(1))
VIEWS = Views.equal(torch.tensor([[[1, 0, 0], [1, 1, 1]]] * 2).bool())


def by_hand(smoothing):
    log_p = LOGITS.log_softmax(-1)
    true = log_p.gather(-1, CODES[:, None, :, None].expand(2, 2, 3, 1))[..., 0]
    return -((1 - smoothing) * true + smoothing * log_p.mean(-1))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_view_mean_is_the_mean_over_views_of_the_mean_inside_a_view(smoothing):
    losses = by_hand(smoothing)
    wanted = torch.stack([losses[:, 0, 0], losses[:, 1].mean(-1)]).mean()
    assert masked_cross_entropy(LOGITS, CODES, VIEWS, label_smoothing=smoothing).item() == pytest.approx(wanted.item())


def test_token_mean_pools_all_hidden_digits():
    wanted = by_hand(0.0)[VIEWS.mask].mean()
    assert masked_cross_entropy(LOGITS, CODES, VIEWS, reduction="token_mean").item() == pytest.approx(wanted.item())


def test_a_view_of_weight_zero_does_not_count():
    weight = torch.tensor([[1.0, 0.0]] * 2)
    views = Views(VIEWS.mask, weight, weight)
    wanted = by_hand(0.0)[:, 0, 0].mean() / 2
    assert masked_cross_entropy(LOGITS, CODES, views).item() == pytest.approx(wanted.item())
    wanted = by_hand(0.0)[:, 0, 0].mean()
    assert masked_cross_entropy(LOGITS, CODES, views, reduction="token_mean").item() == pytest.approx(wanted.item())


def test_known_digits_give_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    masked_cross_entropy(logits, CODES, VIEWS).backward()
    assert (logits.grad[~VIEWS.mask] == 0).all() and (logits.grad[VIEWS.mask] != 0).any()


def test_pooled_digits_of_uniform_t_count_one_over_t():
    """One digit hidden at t = 1/4 weighs four times as much as each of three hidden at t = 1."""
    views = Views(VIEWS.mask, torch.ones(2, 2), torch.tensor([[4.0, 1.0]] * 2))
    losses = by_hand(0.0)
    wanted = (4 * losses[:, 0, 0] + losses[:, 1].sum(-1)).sum() / (2 * (4 + 3))
    assert masked_cross_entropy(LOGITS, CODES, views, reduction="token_mean").item() == pytest.approx(wanted.item())
