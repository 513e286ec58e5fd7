"""A frozen network whose digits are steered by a learnt posterior over items, against sums written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.epic import Epic
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.masked_history import MaskedHistory
from diffgrm.networks.rpg import RPG
from diffgrm.ranking.candidates import candidates
from diffgrm.ranking.catalogue import Catalogue
from helpers.networks import begin

N, K, ITEMS, USERS, MOST = 3, 4, 30, 3, 5
SIDS = torch.cartesian_prod(*[torch.arange(K)] * N)
CODES = SIDS[torch.randperm(len(SIDS), generator=torch.Generator().manual_seed(0))[:ITEMS]]
HISTORIES = [[0, 5, 9, 2, 7], [4], [8, 8, 1]]


def frozen(name="masked_history"):
    torch.manual_seed(3)
    made = {"masked_history": MaskedHistory, "diffgrm": DiffGRM}[name](N, K, width=16, heads=2, dropout=0.3)
    return made.eval()


def network(name="masked_history", started=True, **settings):
    torch.manual_seed(4)
    made = Epic(N, K, ITEMS, frozen(name), **{"width": 8, "candidates": MOST, "recent": 2, **settings}).eval()
    if started:
        begin(made)
    return made


def remember(made, histories=HISTORIES):
    longest = max(map(len, histories))
    index = torch.tensor([history + [0] * (longest - len(history)) for history in histories])
    valid = torch.tensor([[True] * len(history) + [False] * (longest - len(history)) for history in histories])
    return made.encode_history(made.item_vectors(ItemFeatures(CODES)), index, valid)


def ask(made, codes, mask, memory=None, items=CODES):
    """Steered by all items, of which as many as the network says are looked at."""

    def choose(log_p, most):
        flat = codes.flatten(0, 1), (~mask).flatten(0, 1), log_p.flatten(0, 1)
        return candidates(Catalogue(items, K), *flat, most)

    with torch.no_grad():
        return made.steered(codes, mask, remember(made) if memory is None else memory, choose)


def questions():
    """Of every user, partial SIDs of items with no, one and two digits known, and one that is complete."""
    mask = torch.tensor([[True, True, True], [False, True, True], [True, False, True], [False, False, True], [False] * 3])
    return CODES[[3, 11, 20]][:, None].expand(-1, len(mask), -1), mask.expand(USERS, -1, -1)


def fits(codes, mask):
    return [i for i in range(ITEMS) if all(h or CODES[i, j] == codes[j] for j, h in enumerate(mask.tolist()))]


def unit(x):
    return x / x.norm()


class WrittenOut:
    """The same, item by item."""

    def __init__(self, made):
        self.made, self.energy = made, made.steering["energy"]
        self.z = [self.item(code) for code in CODES]

    def item(self, code):
        energy = self.energy
        rows = [self.made.backbone.digits.tables[j, c] + energy.position[j] for j, c in enumerate(code)]
        u = [energy.digit(row) for row in rows]
        pairs = sum(u[a] * u[b] for a in range(N) for b in range(N) if a != b) / (N * (N - 1))
        return unit(energy.item(torch.cat(rows)) + energy.pair_gate.tanh() * energy.pair(pairs))

    def energies(self, state, history, items):
        """[C] of items for one partial SID."""
        energy, newest = self.energy, history[::-1][: self.energy.recent]
        taste = torch.zeros(1, 8)
        for item in reversed(newest):
            taste = energy.history(self.z[item][None], taste)
        query = unit(energy.query(state) + energy.history_gate.tanh() * taste[0])
        found = torch.stack([query @ self.z[i] for i in items])
        if energy.transition is not None:
            a = torch.stack([query @ self.z[r] / energy.attention + energy.age_bias[age] for age, r in enumerate(newest)])
            a = a.softmax(0)
            for place, i in enumerate(items):
                both = [torch.cat([self.z[i] * self.z[r], (self.z[i] - self.z[r]).abs()]) for r in newest]
                follows = sum(a[age] * energy.transition(x)[0] for age, x in enumerate(both))
                found[place] += energy.transition_gate.tanh() * follows
        return found / energy.temperature

    def steered(self, states, codes, mask, history):
        """[n, K] logits and the share of each item looked at, of one partial SID with states [n, d]."""
        made = self.made
        logits = made.backbone.digit_logits(states[None, None])[0, 0] * mask[:, None]
        log_p, items = logits.log_softmax(-1), fits(codes, mask)
        likely = {i: sum(log_p[j, CODES[i, j]].item() for j in range(N) if mask[j]) for i in items}
        looked_at = sorted(items, key=lambda i: -likely[i])[: made.candidates]
        open_ = [state for state, hidden in zip(states, mask.tolist(), strict=True) if hidden]
        mean = sum(open_) / len(open_) if open_ else torch.zeros(states.shape[1])
        share = self.energies(mean, history, looked_at).softmax(0)
        best = share.sort(descending=True).values
        facts = [
            math.log(len(items)) / math.log(ITEMS),
            -(share * share.log()).sum().item() / math.log(made.candidates),
            (best[0] - best[1]).item() if len(best) > 1 else 1.0,
            mask.float().mean().item(),
        ]
        told = torch.zeros(N, K)
        for j in range(N):
            marginal = torch.zeros(K)
            for p, i in zip(share, looked_at, strict=True):
                marginal[CODES[i, j]] += p
            token = -(log_p[j].exp() * log_p[j]).sum().item() / math.log(K)
            gate = made.strength * made.steering["gate"](torch.cat([states[j], torch.tensor([*facts, token])])).tanh()
            told[j] = logits[j] + gate * (marginal.log() - log_p[j]).clamp(-made.clip, made.clip)
        return told * mask[:, None], dict(zip(looked_at, share.tolist(), strict=True))


@pytest.mark.parametrize(
    "settings", [{}, {"transition": False}, {"candidates": ITEMS, "strength": 2.0, "clip": 0.5}], ids=str
)
@pytest.mark.parametrize("name", ["masked_history", "diffgrm"])
def test_energies_posterior_and_steered_digits_are_the_sums_written_out(name, settings):
    made = network(name, **settings)
    oracle, memory, (codes, mask) = WrittenOut(made), remember(made), questions()
    found = ask(made, codes, mask, memory)
    with torch.no_grad():
        states = made.backbone.digit_states(codes, mask, memory.read)
        for user in range(USERS):
            for q in range(codes.shape[1]):
                wanted, shares = oracle.steered(states[user, q], codes[user, q], mask[user, q], HISTORIES[user])
                assert torch.allclose(found.logits[user, q], wanted, atol=2e-4)
                row = user * codes.shape[1] + q
                pairs = found.candidates.row == row
                here = dict(zip(found.candidates.item[pairs].tolist(), found.log_share[pairs].exp().tolist(), strict=True))
                assert here.keys() == shares.keys() and here == pytest.approx(shares, abs=1e-4)
                assert found.candidates.fitting[row] == len(fits(codes[user, q], mask[user, q]))


@pytest.mark.parametrize("name", ["masked_history", "diffgrm"])
def test_while_gates_are_0_it_is_the_frozen_network_bit_for_bit(name):
    made, (codes, mask) = network(name, started=False), questions()
    with torch.no_grad():
        memory = remember(made)
        wanted = made.backbone.denoise(codes, mask, remember(made.backbone))
        assert torch.equal(made.denoise(codes, mask, memory), wanted)
    assert torch.equal(ask(made, codes, mask, memory).logits, wanted)
    assert not torch.equal(ask(network(name), codes, mask).logits, wanted)


def test_of_a_single_item_that_fits_the_share_is_1():
    found = ask(network(), *questions())
    alone = found.candidates.fitting[found.candidates.row] == 1
    assert alone.any() and (found.log_share[alone] == 0).all()


def test_items_of_one_semantic_id_have_one_share():
    codes, mask = questions()
    found = ask(network(candidates=60), codes, mask, items=torch.cat([CODES, CODES]))
    row, item, share = found.candidates.row, found.candidates.item, found.log_share
    for q in range(USERS * codes.shape[1]):
        shares = dict(zip(item[row == q].tolist(), share[row == q].tolist(), strict=True))
        assert all(shares[i] == shares[i + ITEMS] for i in shares if i < ITEMS)


@pytest.mark.parametrize("name", ["masked_history", "diffgrm"])
def test_the_newest_items_are_remembered_newest_first(name):
    made = network(name, recent=3)
    memory, z = remember(made), made._unit_items(CODES)
    assert memory.recent.seen.tolist() == [[True] * 3, [True, False, False], [True] * 3]
    for user, history in enumerate(HISTORIES):
        newest = history[::-1][:3]
        assert torch.allclose(memory.recent.vectors[user, : len(newest)], z[newest], atol=1e-6)
    some = memory.rows(torch.tensor([2, 0]))
    assert torch.equal(some.recent.taste, memory.recent.taste[[2, 0]]) and len(some) == 2


def shares_of(made, histories):
    codes, mask = questions()
    return ask(made, codes[:1, :2], mask[:1, :2], remember(made, histories)).log_share


@pytest.mark.parametrize("history", [[6, 3], [7, 2, 9, 5, 0]], ids=["of another user", "reversed"])
def test_another_history_changes_the_posterior(history):
    made = network(candidates=ITEMS)
    assert not torch.allclose(shares_of(made, [history]), shares_of(made, HISTORIES[:1]), atol=1e-3)


def test_without_transitions_and_taste_a_history_speaks_through_states_only(monkeypatch):
    """With states that know no history, nothing of it is left; with transitions it is."""
    for transition, alike in ((False, True), (True, False)):
        made = network(candidates=ITEMS, transition=transition)
        monkeypatch.setattr(made.backbone, "digit_states", lambda codes, *_: torch.ones(*codes.shape, 16))
        with torch.no_grad():
            made.steering["energy"].history_gate.zero_()
        assert torch.allclose(shares_of(made, [[6, 3]]), shares_of(made, HISTORIES[:1])) == alike
    assert not any("transition" in name or "age" in name for name in network(transition=False).state_dict())


def test_scoring_pairs_in_parts_changes_nothing(monkeypatch):
    whole = ask(network(candidates=ITEMS), *questions()).log_share
    monkeypatch.setattr("diffgrm.networks.item_energy.PAIRS_AT_ONCE", 7)
    assert torch.allclose(ask(network(candidates=ITEMS), *questions()).log_share, whole, atol=1e-6)


def test_gradients_stay_finite_where_codes_have_no_item():
    made = network().train()
    codes, mask = questions()
    found = made.steered(codes, mask, remember(made), lambda log_p, most: candidates(
        Catalogue(CODES, K), codes.flatten(0, 1), (~mask).flatten(0, 1), log_p.flatten(0, 1), most
    ))  # fmt: skip
    F.cross_entropy(found.logits[mask], codes[mask]).backward()
    grads = [p.grad for p in made.steering.parameters()]
    assert all(grad is not None and grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)


def test_a_network_without_states_of_digits_is_refused():
    with pytest.raises(RecipeError, match=r"the model 'RPG' lacks .*digit_logits, digit_states \(DenoisesByStates\)"):
        Epic(N, K, ITEMS, RPG(N, K, width=16, heads=2))
