"""The items' posterior inside of the any-order search, against sums written out."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.ranking.catalogue import Catalogue, Excluded
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.base import ItemScores, Task
from diffgrm.ranking.decoding.beams import Beams
from diffgrm.ranking.decoding.item_posterior import ItemPosterior
from helpers.recipes import small_recipe

USERS, N, K = 3, 3, 4


class Users:
    """A memory that only knows who its users are."""

    def __init__(self, numbers):
        self.numbers = torch.as_tensor(numbers)

    def __len__(self):
        return len(self.numbers)

    def rows(self, chosen):
        return Users(self.numbers[chosen])


class World:
    """Items, some of which may not be recommended, what users have seen, a random network, and random item scores."""

    def __init__(self, seed=0, items=30, excluded=True, share=False):
        generator = np.random.default_rng(seed)
        sids = np.stack(np.meshgrid(*[np.arange(K)] * N), -1).reshape(-1, N)
        self.codes = torch.from_numpy(sids[generator.choice(len(sids), items, replace=share)])
        self.recommendable = generator.random(items) < 0.8
        self.recommendable[:2] = True
        self.seen = [set(generator.integers(2, items, size).tolist()) if excluded else set() for size in (1, 6, 15)]
        self.logits = torch.from_numpy(generator.normal(size=(USERS * (K + 1) ** N, N, K)).astype(np.float32) * 2)
        self.scores = torch.from_numpy(generator.normal(size=(USERS, items)).astype(np.float32) * 2)

    def denoise(self, codes, mask, memory):
        radix = (K + 1) ** torch.arange(N)
        state = (torch.where(mask, 0, codes + 1) * radix).sum(-1) + memory.numbers[:, None] * (K + 1) ** N
        return self.logits[state].masked_fill(~mask[..., None], 0)

    def task(self, k=5, second_look=None):
        catalogue = Catalogue(self.codes, K, torch.from_numpy(self.recommendable))
        seen = Ragged.from_lists([sorted(seen) for seen in self.seen])
        excluded = Excluded.from_ragged(seen, len(self.codes)) if any(self.seen) else None
        item_scores = ItemScores(self.scores, 0 if second_look is None else 4, second_look)
        seeds = torch.zeros(USERS).long()
        return Task(self.denoise, Users(range(USERS)), catalogue, k, excluded, seeds, None, item_scores)

    def possible(self, user):
        return [item for item in np.flatnonzero(self.recommendable).tolist() if item not in self.seen[user]]

    def posterior(self, user, codes, known, most, temperature):
        """Of the items that fit a partial SID: the share of each."""
        mask = torch.tensor([[[not k for k in known]]])
        log_p = self.denoise(torch.tensor([[codes]]), mask, Users([user]))[0, 0].double().log_softmax(-1)
        fits = [i for i in self.possible(user) if all(self.codes[i, j] == codes[j] for j in range(N) if known[j])]
        open_ = {i: sum(log_p[j, self.codes[i, j]].item() for j in range(N) if not known[j]) for i in fits}
        looked_at = sorted(fits, key=lambda i: -open_[i])[:most]
        mass = {i: math.exp(self.scores[user, i].item() / temperature) for i in looked_at}
        return {i: value / math.fsum(mass.values()) for i, value in mass.items()}


def beams_of(codes, known):
    """Beams with some digits known, as many in each: [B, W, n]."""
    codes, known = torch.as_tensor(codes), torch.as_tensor(known)
    return Beams(codes.where(known, 0), torch.where(known, 0, -1), torch.zeros(codes.shape[:2]), codes[..., 0] * 0)


def some_beams(world, count):
    """Of every user, partial SIDs of items that fit, with ``count`` known digits here and there."""
    generator = np.random.default_rng(count)
    codes = np.stack([world.codes[generator.choice(world.possible(user), 4)].numpy() for user in range(USERS)])
    known = np.zeros((USERS, 4, N), dtype=bool)
    for place in np.ndindex(USERS, 4):
        known[place][generator.choice(N, count, replace=False)] = True
    return beams_of(codes, known)


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_marginals_are_the_sums_written_out(most, count, seed, excluded, share):
    world = World(seed, excluded=excluded, share=share)
    beams = (
        beams_of(torch.zeros(USERS, 1, N).long(), torch.zeros(USERS, 1, N).bool())
        if count == 0
        else some_beams(world, count)
    )
    task, decoder = world.task(), ItemPosterior(items=most, temperature=0.7)
    log_p = AnyOrderBeam().log_p(task, beams)
    found = decoder.log_marginals(task, beams, log_p).exp().double()
    assert torch.allclose(found.sum(-1), torch.ones(1, dtype=torch.double), atol=1e-6)  # 1 for every digit
    for user, beam in np.ndindex(*beams.codes.shape[:2]):
        codes, known = beams.codes[user, beam].tolist(), beams.known[user, beam].tolist()
        wanted = torch.zeros(N, K, dtype=torch.double)
        for item, value in world.posterior(user, codes, known, most, 0.7).items():
            for digit in range(N):
                wanted[digit, world.codes[item, digit]] += value
        assert torch.allclose(found[user, beam], wanted, atol=1e-6)
        assert ((found[user, beam] == 0) == (wanted == 0)).all()  # nothing outside of the items looked at


def test_of_a_single_item_that_fits_the_posterior_is_certain():
    world = World()
    item = world.possible(0)[0]
    beams = beams_of(world.codes[[item] * USERS][:, None], torch.ones(USERS, 1, N).bool() & (torch.arange(N) < N - 1))
    task = world.task()
    alike = [i for i in world.possible(0) if (world.codes[i, : N - 1] == world.codes[item, : N - 1]).all()]
    found = ItemPosterior(items=1).log_marginals(task, beams, AnyOrderBeam().log_p(task, beams))[0, 0]
    best = max(alike, key=lambda i: AnyOrderBeam().log_p(task, beams)[0, 0, N - 1, world.codes[i, N - 1]].item())
    assert found[torch.arange(N), world.codes[best]].tolist() == [0.0] * N


def test_of_a_partial_sid_that_no_item_fits_there_is_no_posterior():
    world = World(items=5, excluded=False)
    world.recommendable[:] = [True, False, False, False, False]
    other = (world.codes[0] + 1) % K
    beams = beams_of(other.expand(USERS, 1, N), torch.tensor([True, False, False]).expand(USERS, 1, N))
    task = world.task()
    assert ItemPosterior().log_marginals(task, beams, AnyOrderBeam().log_p(task, beams)).isneginf().all()


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_with_gate_0_it_is_the_any_order_beam_bit_for_bit(excluded, share):
    for seed in range(5):
        world = World(seed, excluded=excluded, share=share)
        found, wanted = (decoder.decode(world.task()) for decoder in (ItemPosterior(4, gate=0.0), AnyOrderBeam(4)))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_gate_that_is_next_to_nothing_changes_next_to_nothing():
    world = World()
    beams = some_beams(world, 1)
    tiny, none = (ItemPosterior(gate=gate).log_p(world.task(), beams) for gate in (1e-12, 0.0))
    assert torch.equal(tiny, none)


@pytest.mark.parametrize(("gate", "clip"), [(0.3, 2.0), (1.0, 0.5), (2.0, 50.0)])
def test_logits_change_by_the_clipped_difference_times_the_gate(gate, clip):
    world = World()
    beams, decoder = some_beams(world, 1), ItemPosterior(gate=gate, clip=clip)
    task = world.task()
    log_p = AnyOrderBeam().log_p(task, beams)
    change = (decoder.log_marginals(task, beams, log_p) - log_p).clamp(-clip, clip)
    wanted = (log_p + gate * change).log_softmax(-1)
    assert torch.allclose(decoder.log_p(task, beams), wanted, atol=1e-5) and change.abs().max() == clip


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_with_gate_1_and_no_clip_the_list_is_that_of_the_item_scores(excluded, temperature):
    """By the chain rule: the marginals along any order multiply to the item's own probability."""
    for seed in range(5):
        world = World(seed, excluded=excluded)
        decoder = ItemPosterior(200, gate=1.0, clip=1e4, items=100, temperature=temperature)
        decoded = decoder.decode(world.task(k=6))
        for user in range(USERS):
            possible = world.possible(user)
            log_share = (world.scores[user, possible].double() / temperature).log_softmax(0)
            order = log_share.argsort(descending=True)[:6]
            size = len(order)
            assert decoded.items[user, :size].tolist() == [possible[i] for i in order]
            assert decoded.scores[user, :size].tolist() == pytest.approx(log_share[order].tolist(), abs=1e-3)
            assert (decoded.items[user, size:] == -1).all()


def test_a_second_look_at_the_best_items_is_refused():
    with pytest.raises(RecipeError, match="item_scoring has a scorer that looks again at the best items"):
        ItemPosterior().decode(World().task(second_look=lambda candidates, scores: scores))


def test_a_model_that_learns_items_and_digits_can_decode_so(toy):
    found = resolve("recommender", "hybrid")(small_recipe("hybrid")).fit(toy, progress=False)
    history = [["item 3", "item 77"]]
    settings = ["decoding.name=item_posterior", "decoding.gate=0.5", "decoding.beam=16"]
    by_items, by_both = found.recommend(history), found.variant(settings).recommend(history)
    by_digits = found.variant(["decoding.name=any_order_beam", "decoding.beam=16"]).recommend(history)
    assert not by_both.equals(by_digits) and not by_both.equals(by_items)
    without = found.variant([*settings, "decoding.gate=0"]).recommend(history)
    assert without.equals(by_digits)
    asked = found.variant(settings)
    told = asked.explain(history[0], k=2).group_by("rank", maintain_order=True).agg(pl.col("confidence").log().sum())
    assert told["confidence"].to_numpy() == pytest.approx(asked.recommend(history, k=2)["score"].to_numpy(), abs=1e-3)
    with pytest.raises(RecipeError, match="ranks by item scores, which the recommender 'diffgrm' does not learn"):
        resolve("recommender", "diffgrm")(small_recipe("diffgrm").override(["decoding.name=item_posterior"])).fit(toy)
