"""The second look at the best of one pass, against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.ranking.catalogue import Catalogue, Excluded
from diffgrm.ranking.decoding.base import Task
from diffgrm.ranking.decoding.refined import Refined
from helpers.recipes import small_recipe

USERS = 3


class Users:
    """A memory that only knows who its users are."""

    def __init__(self, numbers):
        self.numbers = torch.as_tensor(numbers)

    def __len__(self):
        return len(self.numbers)

    def rows(self, chosen):
        return Users(self.numbers[chosen])


class World:
    """Items, of which some share a SID and some may not be recommended, what users have seen, and a random network."""

    def __init__(self, n=3, K=4, items=25, seed=0, excluded=True, allow=0.8):
        generator = np.random.default_rng(seed)
        self.n, self.K = n, K
        self.codes = torch.from_numpy(generator.integers(0, K, (items, n)))
        self.recommendable = generator.random(items) < allow
        self.recommendable[0] = True
        self.seen = [set(generator.integers(0, items, size).tolist()) if excluded else set() for size in (1, 6, 15)]
        self.logits = torch.from_numpy(generator.normal(size=(USERS * (K + 1) ** n, n, K)).astype(np.float32) * 2)

    def denoise(self, codes, mask, memory):
        radix = (self.K + 1) ** torch.arange(self.n)
        state = (torch.where(mask, 0, codes + 1) * radix).sum(-1) + memory.numbers[:, None] * (self.K + 1) ** self.n
        return self.logits[state].masked_fill(~mask[..., None], 0)

    def decode(self, decoder, k, users=(0, 1, 2)):
        catalogue = Catalogue(self.codes, self.K, torch.from_numpy(self.recommendable))
        seen = Ragged.from_lists([sorted(self.seen[user]) for user in users])
        excluded = Excluded.from_ragged(seen, len(self.codes)) if any(self.seen) else None
        return decoder.decode(
            Task(self.denoise, Users(list(users)), catalogue, k, excluded, torch.zeros(len(users)).long())
        )

    def possible(self, user):
        return [item for item in np.flatnonzero(self.recommendable) if item not in self.seen[user]]

    def scores(self, user, weight):
        """Of all items that a user may get: by the one pass, and by chains of two steps; less the log of all of them."""
        possible, n = self.possible(user), self.n
        if not possible:
            return {}

        def asked(item, known):
            mask = torch.tensor([[[j != known for j in range(n)]]])
            return self.denoise(self.codes[item][None, None], mask, Users([user]))[0, 0].double()

        log_p = asked(0, None).log_softmax(-1)
        first = {item: sum(log_p[j, self.codes[item, j]].item() for j in range(n)) for item in possible}
        whole = log_sum(first.values())
        found = {}
        for item in possible:
            chains = []
            for digit in range(n):
                alike = [other for other in possible if self.codes[other, digit] == self.codes[item, digit]]
                logits = asked(item, digit)
                own = {i: sum(logits[j, self.codes[i, j]].item() for j in range(n) if j != digit) for i in alike}
                chains.append(log_sum(first[i] for i in alike) + own[item] - log_sum(own.values()))
            found[item] = (1 - weight) * first[item] + weight * sum(chains) / n - whole
        return found


def log_sum(values):
    return math.log(math.fsum(math.exp(value) for value in values))


def check(world, k, weight, candidates):
    found = world.decode(Refined(candidates, weight), k)
    for user in range(USERS):
        wanted = world.scores(user, weight)
        items, scores = found.items[user].tolist(), found.scores[user].tolist()
        count = min(k, len(wanted))
        assert len(set(items[:count])) == count and set(items[:count]) <= set(wanted)
        assert items[count:] == [-1] * (k - count) and all(score == -math.inf for score in scores[count:])
        best = sorted(wanted.values(), reverse=True)[:count]
        assert scores[:count] == pytest.approx(best, abs=1e-3)
        assert scores[:count] == pytest.approx([wanted[item] for item in items[:count]], abs=1e-3)


@pytest.mark.parametrize(("n", "K"), [(1, 16), (2, 6), (3, 4), (4, 3)])
@pytest.mark.parametrize("excluded", [True, False])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_with_every_item_looked_at_again_lists_are_those_written_out(n, K, excluded, weight):
    """Of more than are possible too, and with semantic IDs that several items share."""
    for k in (1, 5, 40):
        check(World(n, K, excluded=excluded), k, weight, 100)


@given(seed=st.integers(0, 10_000), items=st.integers(1, 30), k=st.integers(1, 12), allow=st.sampled_from([0.05, 0.5, 1.0]))
@settings(max_examples=25, deadline=None)
def test_so_it_is_in_any_world(seed, items, k, allow):
    check(World(items=items, seed=seed, allow=allow), k, 0.5, 100)


def test_the_probabilities_of_what_a_user_may_get_add_up_to_one_by_either_look():
    """By the one pass, and by the chain of a single digit."""
    for weight in (1e-9, 1.0):
        world = World(n=1 if weight == 1.0 else 3, K=16 if weight == 1.0 else 4)
        found = world.decode(Refined(100, weight), 100)
        mass = [scores[items >= 0].exp().sum().item() for items, scores in zip(found.items, found.scores, strict=True)]
        assert mass == pytest.approx([1.0 if world.possible(user) else 0.0 for user in range(USERS)], abs=1e-4)


def test_few_candidates_are_the_best_of_the_one_pass():
    """Raised to k; the second look changes their order, and no other item comes in."""
    world = World()
    for candidates, k in ((4, 2), (2, 6)):
        found = world.decode(Refined(candidates, 1.0), k)
        for user in range(USERS):
            wanted, mine = world.scores(user, 1.0), [item for item in found.items[user].tolist() if item >= 0]
            first = world.scores(user, 0.0)
            ranked = dict.fromkeys(tuple(world.codes[i].tolist()) for i in sorted(first, key=first.get, reverse=True))
            rated = list(ranked)[: max(candidates, k)]
            assert {tuple(world.codes[item].tolist()) for item in mine} <= set(rated)
            assert [wanted[item] for item in mine] == pytest.approx(
                sorted((wanted[item] for item in mine), reverse=True), abs=1e-3
            )


@pytest.mark.parametrize("candidates", [4, 100])
def test_one_user_or_many_get_the_same(candidates):
    """However much the others have seen."""
    world = World(items=60, K=5)
    together = world.decode(Refined(candidates, 1.0), 4)
    for user in range(USERS):
        alone = world.decode(Refined(candidates, 1.0), 4, users=(user,))
        assert torch.equal(alone.items[0], together.items[user])
        assert torch.allclose(alone.scores[0], together.scores[user], atol=1e-5)


def test_what_is_no_number_of_candidates_and_no_weight_is_refused():
    for setting, value in (("candidates", 0), ("weight", 0), ("weight", 1.5)):
        with pytest.raises(RecipeError, match=f"decoding.{setting} = {value}"):
            small_recipe("diffgrm").override(["decoding.name=refined", f"decoding.{setting}={value}"])


def test_a_fitted_model_can_take_it_up(fitted):
    """With filters, through the door."""
    refined = fitted.variant(["decoding.name=refined", "decoding.candidates=64"])
    ids = fitted.items.series[:20].to_list()
    found = refined.recommend([ids[:2], ids[4:9]], k=12, only=ids[:14], without=ids[10:12])
    assert set(found["item_id"]) <= set(ids[:10]) | set(ids[12:14])
    assert found.group_by("user_id", maintain_order=True).len()["len"].to_list() == [10, 7]
    assert found.filter(found["user_id"] == found["user_id"][0])["score"].is_sorted(descending=True)
