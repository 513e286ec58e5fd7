"""Which digits the curriculum hides, and how many."""

from __future__ import annotations

import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext
from diffgrm.learning.noising.curriculum import CurriculumNoising
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from helpers.networks import SMALL, START, build, features, learning_task, one_batch

TARGETS, N = 4000, 5
CODES = torch.zeros(TARGETS, N, dtype=torch.long)


def hidden(progress, history=None, views=None, seed=0, **settings):
    """[N, V, n] what is hidden when such a share of the steps is done; without a history, nobody has any digit."""
    nothing = torch.ones(TARGETS, 1, N, dtype=torch.long), torch.ones(TARGETS, 1, dtype=torch.bool)
    context = NoisingContext(
        lambda *_: pytest.fail("the network is asked"),
        torch.Generator().manual_seed(seed),
        LearningContext(round(1000 * progress), 1000, 0, 1),
        lambda: nothing if history is None else history,
    )
    return resolve("noising", "curriculum")(views=views, **settings).views(CODES, context).mask


@pytest.mark.parametrize(
    ("until", "progress", "most"),
    [
        *((1.0, progress, most) for progress, most in [(0, 1), (0.1, 1), (0.2, 1), (0.201, 2), (0.5, 3), (0.9, 5), (1, 5)]),
        *((0.5, progress, most) for progress, most in [(0, 1), (0.1, 1), (0.101, 2), (0.4, 4), (0.5, 5), (0.7, 5), (1, 5)]),
    ],
)
@pytest.mark.parametrize("hidden_first", ["rare", "random"])
def test_the_number_of_hidden_digits_is_uniform_up_to_what_training_has_reached(until, progress, most, hidden_first):
    count = hidden(progress, hidden_first=hidden_first, until=until).sum(-1).flatten()
    share = torch.bincount(count, minlength=N + 1) / len(count)
    assert (share[1 : most + 1] - 1 / most).abs().max() < 0.02 and share[0] == 0 and (share[most + 1 :] == 0).all()


def test_what_every_search_begins_with_is_met_in_most_of_training():
    """All of five digits are hidden in a fifth of the views, from the last fifth of the ramp on."""
    moments = [(step + 0.5) / 40 for step in range(40)]
    shares = [(hidden(moment, views=1).sum(-1) == N).float().mean().item() for moment in moments]
    assert shares[:8] == [0.0] * 8 and sum(shares) / 40 == pytest.approx((1 - 0.8 * 0.25) / 5, abs=0.01)


def some_histories():
    """Of four places, the last of which is not known: digit j of j of the three others has the target's code, j < 4; of
    digit 4 only the unknown place has it."""
    digits = torch.ones(4, N, dtype=torch.long)
    for digit in range(4):
        digits[:digit, digit] = 0
    digits[3] = 0
    known = torch.tensor([True, True, True, False])
    return digits.expand(TARGETS, -1, -1), known.expand(TARGETS, -1)


def test_digits_that_are_rare_in_the_history_are_hidden_first():
    """Digits 0 and 4 are alike, so either may be first; what stands in places that are not known counts for nothing."""
    mask = hidden(1, some_histories())
    count = mask.sum(-1)
    for k, wanted in ((2, {0, 4}), (3, {0, 4, 1}), (4, {0, 4, 1, 2})):
        chosen = mask[count == k]
        assert len(chosen) and all(set(row.nonzero()[:, 0].tolist()) == wanted for row in chosen[:50])
    first = mask[count == 1].float().mean(0)
    assert (first[[0, 4]] - 0.5).abs().max() < 0.03 and (first[1:4] == 0).all()
    any_ = hidden(1, some_histories(), hidden_first="random")
    assert (any_[any_.sum(-1) == 1].float().mean(0) - 1 / N).abs().max() < 0.03


def test_there_are_as_many_views_as_asked_for_or_as_digits():
    assert hidden(0.5).shape == (TARGETS, N, N) and hidden(0.5, views=2).shape == (TARGETS, 2, N)


@pytest.mark.parametrize("shared", [False, True], ids=["a history each", "shared"])
def test_each_target_is_noised_by_the_items_before_it(shared):
    """Nothing of what comes later, nothing of others, nothing of padding."""
    network, codes = build("diffgrm", **SMALL, history="causal" if shared else "bidirectional"), features().codes
    users, found = [[0, 1, 2, 3], [4, 5], [6, 7, 8]], {}

    class Noted(CurriculumNoising):
        def views(self, codes, context):
            digits, known = context.history()
            for target, some, real in zip(codes.tolist(), digits, known, strict=True):
                found[tuple(target)] = some[real].tolist()
            return super().views(codes, context)

    objective = DiffusionObjective(learning_task(network, codes, Noted()))
    assert objective.shared == shared
    objective.loss(one_batch(Ragged.from_lists(users), shared), torch.Generator().manual_seed(0), START)
    assert found == {
        tuple(codes[items[place]].tolist()): codes[items[:place]].tolist()
        for items in users
        for place in range(1, len(items))
    }
