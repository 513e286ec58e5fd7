"""Masked diffusion over whole histories, against what can be enumerated."""

from __future__ import annotations

from itertools import permutations, product
from math import factorial

import pytest
import torch

from diffgrm import DiffGRMRecommender
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.sequence import hide, near_known
from diffgrm.learning.noising.uniform import RandomNoising
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.learning.objectives.history import HistoryDiffusionObjective
from diffgrm.networks.masked_history import MaskedHistory, RawHistory
from helpers.networks import START, learning_task, noising_context, one_batch
from helpers.recipes import small_recipe

CODES = torch.tensor([[0, 2], [1, 1]])  # two items of two digits of three codes
MANY = 20_000
CLOSE = {"stream": "joint", "history_noise": "uniform_t", "reduction": "token_mean"}  # but for context_decay
KINDS = ("uniform_t", "k_of_n", "whole_items")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return MaskedHistory(2, 3, width=8, heads=2, layers=1, feed_forward=16, dropout=0.0, max_len=1).eval()


def made(network, schedule=None, **options):
    schedule = schedule or RandomNoising("k_of_n", views=1)
    return HistoryDiffusionObjective(learning_task(network, CODES, schedule), **{"label_smoothing": 0.0, **options})


def loss_of(objective, users=MANY, context=START, seed=0):
    """Of many users, each with the same history."""
    (batch,) = TrainingBatches(Ragged.from_lists([[0, 1]] * users), 1, users, seed=0)
    with torch.no_grad():
        return objective.loss(batch, generator(seed), context).item()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def surprise(network, mask):
    """[4] negative log-probability of each digit of item 0, then item 1, that mask [4] hides; 0 of the others."""
    mask = torch.tensor(mask).bool().view(1, 2, 2)
    with torch.no_grad():
        history = RawHistory(CODES[None, :1], torch.ones(1, 1, dtype=torch.bool))
        logits = network.denoise_sequence(CODES[None, 1], mask, history)
    nll = -logits.log_softmax(-1).gather(3, CODES[None, ..., None])[..., 0]
    return (nll * mask).flatten()


def chances(kind):
    """Every mask of a sequence of two items of two digits, as pairs of weights [4] and probability, by enumeration.

    The integral over t of t^(h-1) (1-t)^(m-h) is (h-1)! (m-h)! / m!, for h of m things hidden; it holds the weight 1/t.
    """
    if kind == "k_of_n":
        for k in product(range(3), repeat=2):
            for mask in product((0, 1), repeat=4):
                rates = [k[digit // 2] / 2 for digit in range(4)]
                p = 1 / 9
                for hidden, rate in zip(mask, rates, strict=True):
                    p *= rate if hidden else 1 - rate
                if p:
                    yield mask, torch.tensor([1 / rate if rate else 0.0 for rate in rates]), p
    elif kind == "uniform_t":
        for mask in product((0, 1), repeat=4):
            if h := sum(mask):
                yield mask, torch.ones(4), factorial(h - 1) * factorial(4 - h) / factorial(4)
    else:
        for items in product((0, 1), repeat=2):
            if h := sum(items):
                yield [items[0]] * 2 + [items[1]] * 2, torch.ones(4), factorial(h - 1) * factorial(2 - h) / factorial(2)


def bound(network, kind, history_weight=1.0):
    """The mean over all noise of the weighted sum of a sequence's losses, and that of the weights."""
    counted = torch.tensor([history_weight] * 2 + [1.0] * 2)
    loss = sum(p * (surprise(network, mask) * weight * counted).sum().item() for mask, weight, p in chances(kind))
    weights = sum(p * (torch.tensor(mask) * weight * counted).sum().item() for mask, weight, p in chances(kind))
    return loss, weights


# ---- the oracle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("history_weight", [1.0, 0.25])
def test_the_mean_over_noise_is_the_bound_by_enumeration(network, kind, history_weight):
    """Divided by the four digits of a sequence (view_mean), or by the sum of weights (token_mean)."""
    wanted, weights = bound(network, kind, history_weight)
    given = {"stream": "joint", "history_noise": kind, "history_weight": history_weight}
    by_digits, by_weights = (loss_of(made(network, reduction=r, **given)) for r in ("view_mean", "token_mean"))
    assert by_digits == pytest.approx(wanted / 4, rel=0.03)
    assert by_weights == pytest.approx(wanted / weights, rel=0.03)
    if kind != "k_of_n":  # of which an item has a chance of 1/3 that nothing is hidden
        assert weights == pytest.approx(2 + 2 * history_weight)


def test_the_bound_is_no_lower_than_the_likelihood_of_every_order(network):
    """With t for the whole sequence it is the mean over all orders of filling in, an exact likelihood each."""
    total = 0.0
    for order in permutations(range(4)):
        hidden = [1] * 4
        for digit in order:
            total += surprise(network, hidden)[digit].item()
            hidden[digit] = 0
    assert bound(network, "uniform_t")[0] == pytest.approx(total / 24, rel=1e-5)


@pytest.mark.parametrize("reduction", ["view_mean", "token_mean"])
def test_the_loss_of_what_was_drawn_is_the_sum_by_hand(network, reduction):
    """Digit by digit for the masks and rates that the generator gives."""
    objective = made(network, stream="joint", history_noise="uniform_t", history_weight=0.5, reduction=reduction)
    hidden = hide("uniform_t", (5, 2), 2, generator(7))
    counted = torch.tensor([0.5, 0.5, 1.0, 1.0])
    losses = weights = 0.0
    for mask, rate in zip(hidden.mask, hidden.rate[:, 0], strict=True):
        flat = mask.flatten()
        losses += (surprise(network, flat.tolist()) * counted / rate).sum()
        weights += (flat * counted / rate).sum()
    divided = losses / (20 if reduction == "view_mean" else weights)
    assert loss_of(objective, users=5, seed=7) == pytest.approx(divided.item(), rel=1e-5)


# ---- LLaDA-Rec --------------------------------------------------------------------------------------------------------


def test_the_loss_of_targets_is_that_of_diffusion_and_the_history_is_added_to_it(network):
    schedule = RandomNoising("k_of_n", views=1)
    plain = loss_of(DiffusionObjective(learning_task(network, CODES, schedule), label_smoothing=0.0), users=50)
    none, one, three = (loss_of(made(network, schedule, history_weight=w), users=50) for w in (0.0, 1.0, 3.0))
    assert none == plain  # exactly
    assert three - plain == pytest.approx(3 * (one - plain), rel=1e-5) and one > plain


def test_the_second_pass_is_divided_by_all_places_of_its_sequences_empty_ones_too():
    """Of a batch with short histories: by targets times (max_len + 1) times n, whatever else is in the batch."""
    torch.manual_seed(0)
    longer = MaskedHistory(2, 3, width=8, heads=2, layers=1, feed_forward=16, dropout=0.0, max_len=5).eval()
    batch = one_batch(Ragged.from_lists([[0, 1], [1, 0, 1, 0]]), shared=False, max_len=5)
    found = {}
    for stream in ("joint", "two_passes"):
        objective = made(longer, stream=stream, history_noise="k_of_n")
        objective.digit_loss = objective.sequence_loss  # the pass over whole sequences alone
        found[stream] = objective.loss(batch, generator(1), START).item()
    real, places = 2 + 2 + 3 + 4, 4 * (5 + 1)  # of four targets with one to three items before them
    assert found["two_passes"] == pytest.approx(found["joint"] * real / places, rel=1e-6) and found["joint"] > 0


def test_the_loss_of_targets_is_llada_recs(network):
    """The sum of the losses of k hidden digits times n/k, over n (arXiv 2511.06254)."""
    objective = made(network, history_weight=0)
    hidden = RandomNoising("k_of_n", views=1)
    masks = hidden.views(CODES[[1] * 40], noising_context(None, generator(5))).mask[:, 0]
    wanted = 0.0
    for mask in masks.tolist():
        k = sum(mask)
        wanted += surprise(network, [0, 0, *mask]).sum().item() * (2 / k) / 2
    assert loss_of(objective, users=40, seed=5) == pytest.approx(wanted / 40, rel=1e-5)


# ---- what is hidden ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_digits_are_hidden_at_the_rate_that_is_told(kind):
    hidden = hide(kind, (30_000, 3), 4, generator())
    known = (hidden.mask.float().mean(-1) - hidden.rate) if kind != "k_of_n" else None
    if known is not None:
        assert known.mean().abs() < 0.01 and (hidden.rate[:, 0] == hidden.rate[:, 2]).all()
        assert hidden.rate.min() > 0 and hidden.rate.mean() == pytest.approx(0.5, abs=0.01)
    if kind == "whole_items":
        assert (hidden.mask.all(-1) == hidden.mask.any(-1)).all()
    if kind == "k_of_n":
        assert hidden.rate.unique().tolist() == [0.25, 0.5, 0.75, 1.0]
        assert hidden.mask.float().mean() == pytest.approx(0.5, abs=0.01)  # (0 + 1 + 2 + 3 + 4) / 5 of 4
        assert hidden.mask[hidden.rate == 1].all() and (hidden.rate[:, 0] != hidden.rate[:, 1]).any()


def test_padding_is_never_hidden_and_counts_nothing(network):
    """A batch of short and long histories has the sums of both."""
    torch.manual_seed(0)
    wider = MaskedHistory(2, 3, width=8, heads=2, layers=1, feed_forward=16, dropout=0.0, max_len=4).eval()
    asked = []

    def recording(target, mask, memory):
        asked.append((target, mask, memory))
        return original(target, mask, memory)

    original = wider.denoise_sequence
    wider.denoise_sequence = recording
    objective = made(wider, stream="joint", history_noise="uniform_t")
    batch = one_batch(Ragged.from_lists([[0, 1], [1, 0, 1, 0]]), shared=False, max_len=4)
    found = objective.loss(batch, generator(1), START)
    target, mask, memory = asked[0]
    codes, valid = torch.cat([memory.codes, target[:, None]], 1), torch.cat([memory.valid, torch.ones(4, 1).bool()], 1)
    assert not (mask & ~valid[..., None]).any() and valid.sum(1).tolist() == [2, 2, 3, 4]
    rate = hide("uniform_t", codes.shape[:2], 2, generator(1)).rate
    nll = -original(target, mask, memory).log_softmax(-1).gather(3, codes[..., None])[..., 0]
    wanted = (nll * mask / rate[..., None]).sum() / (2 * valid.sum())
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("stream", ["joint", "two_passes"])
def test_in_the_last_phase_nothing_of_the_history_is_hidden(network, stream):
    objective = made(network, stream=stream, last_phase=0.25, history_noise="uniform_t")
    early, late = (loss_of(objective, context=LearningContext(step, 100, 0, 1)) for step in (74, 75))
    assert early != late
    if stream == "two_passes":
        assert late == loss_of(made(network, history_weight=0))
    else:  # the bound of the target after a clean history
        pairs = [((0, 0, 1, 0), 0.5), ((0, 0, 0, 1), 0.5), ((0, 0, 1, 1), 0.5)]
        wanted = sum(p * surprise(network, mask).sum().item() for mask, p in pairs)
        assert late == pytest.approx(wanted / 2, rel=0.03)


@pytest.mark.parametrize("stream", ["joint", "two_passes"])
def test_a_fitted_model_goes_on_in_its_last_phase_where_it_has_one(network, stream):
    went_on = LearningContext(0, 100, 0, 1, going_on=True)
    for last_phase, same_as in ((0.25, 75), (0.0, 0)):
        objective = made(network, stream=stream, last_phase=last_phase, history_noise="uniform_t")
        wanted = loss_of(objective, context=LearningContext(same_as, 100, 0, 1))
        assert loss_of(objective, context=went_on) == wanted


def test_digits_close_to_known_ones_count_more():
    """By hand: places 0..3, then a padded item, then 4 and 5; decay 1/2."""
    mask = torch.tensor([[[0, 1], [1, 0], [0, 0], [1, 1]], [[1, 1], [1, 1], [0, 0], [1, 1]]]).bool()
    valid = torch.tensor([[True, True, False, True]] * 2)
    found = near_known(mask, valid, 0.5)
    known = [0, 3]
    by_hand = {place: sum(0.5 ** abs(place - other) for other in known) for place in (1, 2, 4, 5)}
    mean = sum(by_hand.values()) / 4
    wanted = [by_hand[place] / mean for place in (1, 2, 4, 5)]
    assert found[0][mask[0]].tolist() == pytest.approx(wanted, rel=1e-6)
    assert found[1][mask[1]].tolist() == [1] * 6  # nothing is known
    assert found[0][~mask[0]].sum() == 0


def test_the_loss_by_closeness_is_the_sum_by_hand(network):
    objective = made(network, **CLOSE, context_decay=0.3)
    hidden = hide("uniform_t", (6, 2), 2, generator(4))
    close = near_known(hidden.mask, torch.ones(6, 2, dtype=torch.bool), 0.3)
    weight = (close * hidden.mask / hidden.rate[..., None]).flatten(1)
    losses = torch.stack([surprise(network, mask.flatten().tolist()) for mask in hidden.mask])
    wanted = (losses * weight).sum() / weight.sum()
    assert loss_of(objective, users=6, seed=4) == pytest.approx(wanted.item(), rel=1e-5)
    assert wanted.item() != pytest.approx(loss_of(made(network, **CLOSE), users=6, seed=4), rel=1e-3)


# ---- what is refused --------------------------------------------------------------------------------------------------

JOINT = ["objective.stream=joint", "objective.history_noise=uniform_t"]
REFUSED = {
    "joint phase": (
        ["objective.history_weight=0", "objective.stream=joint", "objective.last_phase=0.2"],
        "objective.last_phase = 0.2 does nothing with objective.history_weight = 0",
    ),
    "noise": (
        ["objective.history_weight=0", "objective.history_noise=uniform_t"],
        "objective.history_noise = uniform_t does nothing with objective.history_weight = 0",
    ),
    "decay": (["objective.history_weight=0", "objective.context_decay=0.5"], "objective.context_decay = 0.5 does nothing"),
    "phase": (["objective.history_weight=0", "objective.last_phase=0.2"], "objective.last_phase = 0.2 does nothing"),
    "noising": (
        [*JOINT, "noising.name=random"],
        "noising.name = random does nothing with objective.stream = joint, where objective.history_noise says",
    ),
    "network": (["model.name=diffgrm"], r"objective 'history_diffusion' needs denoise_sequence \(DenoisesSequences\)"),
    "odd heads": (["model.positions=rotary", "model.width=6", "model.heads=2"], "heads are of the odd size 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_do_nothing_is_refused_before_anything_is_learnt(name, toy, monkeypatch):
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", lambda *_, **__: pytest.fail("it embeds"))
    changes, message = REFUSED[name]
    given = {"name": "masked_history", "width": 16, "heads": 2}
    recipe = small_recipe("diffgrm").to_dict() | {"model": given, "objective": "history_diffusion"}
    recipe = type(small_recipe("diffgrm")).from_dict(recipe).override(changes)
    with pytest.raises(RecipeError, match=message):
        DiffGRMRecommender(recipe).fit(toy, progress=False)
