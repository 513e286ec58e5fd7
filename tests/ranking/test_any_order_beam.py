from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam, digits_per_step
from diffgrm.ranking.decoding.base import Task
from diffgrm.ranking.decoding.exhaustive import Exhaustive
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.ranker import Ranker
from helpers.networks import vectors
from helpers.tiny_catalogues import CODES, HISTORIES, catalogue, rank


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiffGRM(3, 4, width=32, heads=2)


@pytest.mark.parametrize("merge", ["best_path", "sum_paths"])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_beam_equals_the_oracle_when_nothing_is_pruned(network, merge, share, exclude_seen):
    cat = catalogue(share)
    items, scores = rank(network, AnyOrderBeam(beam=600, merge=merge), cat, exclude_seen=exclude_seen)
    wanted, wanted_scores = rank(network, Exhaustive(merge=merge), cat, exclude_seen=exclude_seen)
    assert (items == wanted).all()
    assert np.allclose(scores, wanted_scores, atol=1e-5)


def test_the_oracle_equals_the_definition(network):
    """The best of the n! orders of filling an item's digits, one by one and by hand."""
    cat = catalogue()
    ranker = Ranker.over_codes(network, Exhaustive(), cat)
    _, decoded = next(ranker.decode(HISTORIES.rows(np.array([1])), 5, exclude_seen=False))
    history = cat.codes_of(torch.from_numpy(HISTORIES[1]))
    with torch.no_grad():
        memory = network.eval().encode_history(
            vectors(network, history), torch.arange(3)[None], torch.ones(1, 3, dtype=torch.bool)
        )
        for place in range(5):
            code = cat.codes_of(decoded.items[0, place])
            best = -math.inf
            for order in itertools.permutations(range(3)):
                mask, total = torch.ones(1, 1, 3, dtype=torch.bool), 0.0
                for digit in order:
                    log_p = network.denoise(code[None, None], mask, memory).log_softmax(-1)
                    total += log_p[0, 0, digit, code[digit]].item()
                    mask[..., digit] = False
                best = max(best, total)
            assert decoded.scores[0, place].item() == pytest.approx(best, abs=1e-5)


def test_in_one_step_the_beam_equals_scoring_every_item_in_one_pass(network):
    items, scores = rank(network, AnyOrderBeam(beam=600, steps=1))
    wanted, wanted_scores = rank(network, OnePass())
    assert (items == wanted).all() and np.allclose(scores, wanted_scores, atol=1e-5)


def test_one_pass_does_not_depend_on_the_block(network):
    assert (rank(network, OnePass(block=7))[0] == rank(network, OnePass())[0]).all()


@pytest.mark.parametrize(
    "decoder",
    [
        AnyOrderBeam(beam=4),
        AnyOrderBeam(beam=4, merge="sum_paths"),
        AnyOrderBeam(beam=4, order="fixed"),
        AnyOrderBeam(beam=4, order="random"),
        AnyOrderBeam(beam=4, steps=2),
        AnyOrderBeam(beam=4, steps=1),
        AnyOrderBeam(beam=4, steps=2, group="random"),
        AnyOrderBeam(beam=4, threshold=0.3),
        AnyOrderBeam(beam=1),
        OnePass(),
        Exhaustive(),
    ],
    ids=lambda d: f"{type(d).__name__}-{'-'.join(map(str, vars(d).values()))}",
)
@pytest.mark.parametrize("share", [False, True])
def test_items_are_real_distinct_unseen_and_as_many_as_possible(network, decoder, share):
    items, scores = rank(network, decoder, catalogue(share), k=40)
    for row in range(len(HISTORIES)):
        found = items[row][items[row] >= 0]
        assert len(set(found.tolist())) == len(found) == 40 - len(set(HISTORIES[row].tolist()))
        assert not set(found.tolist()) & set(HISTORIES[row].tolist())
        assert (items[row][len(found) :] == -1).all() and np.isneginf(scores[row][len(found) :]).all()
        assert (np.diff(scores[row][: len(found)]) <= 1e-5).all()


def test_only_allowed_items_come_back(network):
    allowed = torch.zeros(40, dtype=torch.bool)
    allowed[[3, 5, 8]] = True
    items, _ = rank(network, AnyOrderBeam(beam=4), catalogue().restricted(allowed), k=5, exclude_seen=False)
    assert all(set(row.tolist()) == {3, 5, 8, -1} for row in items)


def test_a_user_with_nothing_left_gets_nothing_and_the_others_are_not_disturbed(network):
    everything = Ragged.from_lists([np.arange(40), HISTORIES[1]])
    items, _ = Ranker.over_codes(network, AnyOrderBeam(beam=8), catalogue()).rank(everything, 5, True)
    alone, _ = Ranker.over_codes(network, AnyOrderBeam(beam=8), catalogue()).rank(HISTORIES.rows(np.array([1])), 5, True)
    assert (items[0] == -1).all() and (items[1] == alone[0]).all()


@pytest.mark.parametrize("order", ["confidence", "fixed", "random"])
def test_an_answer_does_not_depend_on_the_batch(network, order):
    decoder = AnyOrderBeam(beam=6, order=order)
    together, _ = rank(network, decoder)
    for row in range(len(HISTORIES)):
        alone, _ = Ranker.over_codes(network, decoder, catalogue()).rank(HISTORIES.rows(np.array([row])), 15, True)
        assert (alone[0] == together[row]).all()


def toy_task(table, codes, k=3):
    """A world of one user whose digit probabilities stand in a table: known digits -> [n, K]."""

    def denoise(ask, mask, memory):
        logits = torch.empty(*ask.shape, 2)
        for b, q in np.ndindex(*ask.shape[:2]):
            key = tuple(None if m else c for c, m in zip(ask[b, q].tolist(), mask[b, q].tolist(), strict=True))
            logits[b, q] = torch.tensor(table[key]).log()
        return logits

    return Task(denoise, range(1), Catalogue(torch.tensor(codes), 2), k, None, torch.zeros(1, dtype=torch.long))


FIFTY = [[0.5, 0.5], [0.5, 0.5]]
TABLE = {
    (None, None): [[0.6, 0.4], [0.9, 0.1]],
    (0, None): [[1.0, 0.0], [0.5, 0.5]],
    (1, None): [[0.0, 1.0], [0.8, 0.2]],
    (None, 0): [[0.7, 0.3], [1.0, 0.0]],
    (None, 1): FIFTY,
    (0, 0): FIFTY,
    (0, 1): FIFTY,
    (1, 0): FIFTY,
    (1, 1): FIFTY,
}


def test_the_most_confident_digit_is_filled_first_and_orders_are_merged():
    decoded = AnyOrderBeam(beam=4).decode(toy_task(TABLE, [[0, 0], [0, 1], [1, 0], [1, 1]], k=4))
    # (0,0): digit 1 first .9 x .7 beats .6 x .5; (1,0): .4 x .8 beats .9 x .3; (0,1): .6 x .5; (1,1): .4 x .2
    assert decoded.items[0].tolist() == [0, 2, 1, 3]
    assert decoded.scores[0].exp().tolist() == pytest.approx([0.63, 0.32, 0.30, 0.08])


def test_summed_paths_add_the_orders_up():
    decoded = AnyOrderBeam(beam=4, merge="sum_paths").decode(toy_task(TABLE, [[0, 0], [0, 1], [1, 0], [1, 1]], k=4))
    assert decoded.items[0].tolist() == [0, 2, 1, 3]
    assert decoded.scores[0].exp().tolist() == pytest.approx([0.63 + 0.30, 0.32 + 0.27, 0.30 + 0.05, 0.08 + 0.05])


def test_a_fixed_order_goes_digit_by_digit():
    decoded = AnyOrderBeam(beam=4, order="fixed").decode(toy_task(TABLE, [[0, 0], [1, 0], [1, 1]], k=3))
    assert decoded.scores[0].exp().tolist() == pytest.approx([0.32, 0.30, 0.08])


def test_without_the_constraint_sids_that_no_item_has_are_dropped_at_the_end():
    decoded = AnyOrderBeam(beam=3, constrained=False).decode(toy_task(TABLE, [[1, 1], [1, 0]], k=2))
    assert decoded.items[0].tolist() == [1, -1]
    assert decoded.codes[0].tolist() == [[0, 0], [1, 0], [0, 1]] and decoded.legal[0].tolist() == [False, True, False]
    constrained = AnyOrderBeam(beam=2).decode(toy_task(TABLE, [[1, 1], [1, 0]], k=2))
    assert constrained.items[0].tolist() == [1, 0]


def test_a_wider_beam_never_loses_the_best_score(network):
    best = [rank(network, AnyOrderBeam(beam=w), k=1)[1][:, 0] for w in (1, 2, 8, 64)]
    assert all((a <= b + 1e-5).all() for a, b in itertools.pairwise(best[1:]))
    assert np.allclose(best[-1], rank(network, Exhaustive(), k=1)[1][:, 0], atol=1e-5)


def test_more_steps_than_digits_and_too_large_worlds_are_refused(network, monkeypatch):
    with pytest.raises(RecipeError, match=r"decoding\.steps 5 is more than the 3 digits"):
        rank(network, AnyOrderBeam(steps=5))
    monkeypatch.setattr("diffgrm.ranking.decoding.exhaustive.LIMIT", 100)
    with pytest.raises(RecipeError, match="'exhaustive' is for tiny worlds: 40 items"):
        rank(network, Exhaustive())


def test_digits_per_step_add_up():
    for n in range(1, 12):
        for steps in range(1, n + 1):
            sizes = digits_per_step(n, steps)
            assert sum(sizes) == n and len(sizes) == steps and sizes == sorted(sizes) and sizes[-1] - sizes[0] <= 1


@pytest.mark.parametrize("n", [8, 16, 32])
def test_long_sids_give_full_lists_without_endless_widening(n):
    """One item's partial SIDs outnumber any beam; lists are complete all the same, and best first."""
    generator = np.random.default_rng(n)
    codes = torch.from_numpy(np.unique(generator.integers(0, 8, (300, n)), axis=0)[:200])
    sure = torch.full((n, 8), 0.1 / 7).scatter(1, codes[17][:, None], 0.9).log()

    def denoise(ask, mask, memory):
        return sure.expand(*ask.shape[:2], n, 8)

    task = Task(denoise, Rows(2), Catalogue(codes, 8), 10, None, torch.zeros(2, dtype=torch.long))
    decoded = AnyOrderBeam(beam=16).decode(task)
    assert (decoded.items >= 0).all() and all(len(set(row.tolist())) == 10 for row in decoded.items)
    assert (decoded.items[:, 0] == 17).all() and (decoded.scores.diff(dim=1) <= 1e-6).all()


class Rows(list):
    """A memory of users of whom nothing is known."""

    def __init__(self, count):
        super().__init__(range(count))

    def rows(self, chosen):
        return Rows(len(chosen))


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("order", ["confidence", "fixed"])
def test_asking_for_few_beams_at_the_last_digit_gives_the_answer_of_asking_for_all(network, monkeypatch, share, order):
    asked = []
    original = network.denoise

    def counting(codes, mask, memory):
        if int(mask.sum(-1).min()) == 1:
            asked.append(codes.shape[0] * codes.shape[1])
        return original(codes, mask, memory)

    monkeypatch.setattr(network, "denoise", counting)
    answers, beams = [], []
    for parts in (1, 16):
        monkeypatch.setattr("diffgrm.ranking.decoding.any_order_beam.LAST_PARTS", parts)
        monkeypatch.setattr("diffgrm.ranking.decoding.any_order_beam.FEWEST_BEAMS", 1)
        answers.append(rank(network, AnyOrderBeam(beam=32, order=order), catalogue(share), k=4))
        beams.append(sum(asked))
        asked.clear()
    assert (answers[0][0] == answers[1][0]).all()
    assert np.allclose(answers[0][1], answers[1][1], atol=1e-5)
    assert beams[1] < beams[0]


def test_groups_at_random_need_steps():
    with pytest.raises(RecipeError, match=r"decoding\.group random does nothing without decoding\.steps; set it"):
        AnyOrderBeam(beam=4, group="random").check(4, 10)


# ---- the step in which a digit was filled ----------------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["digits", "items"])
def test_steps_tell_the_order_of_the_best_path(network, finish):
    """Replaying the steps of each item gives its score."""
    cat = catalogue()
    decoder = AnyOrderBeam(beam=600, finish=finish)
    rows = HISTORIES.rows(np.array([1]))
    _, decoded = next(Ranker.over_codes(network, decoder, cat).decode(rows, 8, exclude_seen=False))
    history = cat.codes_of(torch.from_numpy(HISTORIES[1]))
    with torch.no_grad():
        memory = network.eval().encode_history(
            vectors(network, history), torch.arange(3)[None], torch.ones(1, 3, dtype=torch.bool)
        )
        for place in range(8):
            code, steps = decoded.codes[0, place], decoded.steps[0, place]
            if finish == "digits":
                assert sorted(steps.tolist()) == [0, 1, 2]
            total = 0.0
            for step in sorted(set(steps.tolist())):
                mask = (steps >= step)[None, None]
                log_p = network.denoise(code[None, None], mask, memory)[0, 0].log_softmax(-1)
                total += sum(log_p[d, code[d]].item() for d in range(3) if steps[d] == step)
            assert total == pytest.approx(decoded.sid_scores[0, place].item(), abs=1e-4)


def test_a_fixed_order_fills_digit_after_digit(network):
    _, decoded = next(
        Ranker.over_codes(network, AnyOrderBeam(order="fixed"), catalogue()).decode(HISTORIES, 3, exclude_seen=False)
    )
    assert (decoded.steps[:, :3] == torch.arange(3)).all()


def test_steps_of_random_size_fill_every_digit():
    sizes = [AnyOrderBeam(steps=4, group="random", seed=seed)._group_sizes(32) for seed in range(20)]
    assert all(len(s) == 4 and sum(s) == 32 and min(s) >= 1 for s in sizes)
    assert len({tuple(s) for s in sizes}) > 10
    assert AnyOrderBeam(steps=3, group="random")._group_sizes(3) == [1, 1, 1]


@pytest.mark.parametrize("settings", [{}, {"finish": "items"}, {"merge": "sum_paths"}, {"order": "fixed"}], ids=str)
def test_a_threshold_that_is_never_reached_fills_one_digit_a_step_and_one_that_always_is_fills_all(network, settings):
    step_by_step, at_once = AnyOrderBeam(beam=8, **settings), AnyOrderBeam(beam=8, steps=1, **settings)
    for decoder, threshold in ((step_by_step, 1.0), (at_once, 1e-9)):
        items, scores = rank(network, decoder)
        found, found_scores = rank(network, AnyOrderBeam(beam=8, threshold=threshold, **settings))
        assert (found == items).all() and np.allclose(found_scores, scores, atol=1e-5)


def test_with_a_threshold_sure_digits_are_filled_together():
    """A network that is sure of digits 0 and 2, and of digit 1 only once it knows them."""

    def denoise(codes, mask, memory):
        logits = torch.zeros(*mask.shape, 4)
        logits[..., 0, 1] = logits[..., 2, 3] = 5
        known = ~mask[..., 0] & ~mask[..., 2]
        logits[..., 1, 2] = torch.where(known, 5.0, 0.5)
        return logits * mask[..., None]

    seeds = torch.zeros(1, dtype=torch.long)
    task = Task(denoise, torch.zeros(1, 1), Catalogue(torch.from_numpy(CODES), 4), 1, None, seeds)
    decoded = AnyOrderBeam(beam=4, threshold=0.9).decode(task)
    assert decoded.codes[0, 0].tolist() == [1, 2, 3] and decoded.steps[0, 0].tolist() == [0, 1, 0]


def test_steps_and_threshold_together_are_refused(network):
    with pytest.raises(RecipeError, match=r"decoding\.steps and decoding\.threshold both say"):
        rank(network, AnyOrderBeam(steps=2, threshold=0.5))
