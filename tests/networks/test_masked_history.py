"""One stream over the digits of history and target: what its settings do, and that every path through it agrees."""

from __future__ import annotations

import math

import pytest
import torch

from diffgrm import Recipe
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.noising.confidence import ConfidenceNoising
from diffgrm.learning.noising.full_mask import FullMaskNoising
from diffgrm.learning.noising.sequence import hide
from diffgrm.learning.objectives.history import HistoryDiffusionObjective
from diffgrm.networks import masked_history
from diffgrm.networks.compiled import compile_layers
from diffgrm.networks.contracts import DenoisesSequences, contract
from diffgrm.networks.masked_history import MaskedHistory, RawHistory
from diffgrm.networks.stream import Rotation
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.ranker import Ranker
from helpers.networks import START, K, N, S, close, encode, histories, learning_task, one_batch, questions

SMALL = {"width": 16, "heads": 2, "layers": 2, "feed_forward": 32, "max_len": S, "dropout": 0.0}
VARIANTS = {
    "defaults": {},
    "rotary": {"positions": "rotary"},
    "rms": {"norm": "rms"},
    "an output of its own": {"tied": False},
    "one layer": {"layers": 1, "positions": "rotary", "norm": "rms", "tied": False},
}


def built(**options):
    torch.manual_seed(0)
    return MaskedHistory(N, K, **{**SMALL, **options}).eval()


@pytest.fixture(params=VARIANTS)
def network(request):
    return built(**VARIANTS[request.param])


def sequences(batch=6):
    """Histories and targets [B, S + 1, n], and which items are real."""
    codes, valid = histories(batch)
    target = torch.randint(0, K, (batch, 1, N))
    return torch.cat([codes, target], 1), torch.cat([valid, torch.ones(batch, 1, dtype=torch.bool)], 1)


def whole(network, codes, mask, valid):
    """Logits [B, S + 1, n, K] of histories and the targets behind them."""
    return network.denoise_sequence(codes[:, -1], mask, RawHistory(codes[:, :-1], valid[:, :-1]))


def some_hidden(codes, valid, seed=0):
    return hide("uniform_t", codes.shape[:2], N, torch.Generator().manual_seed(seed)).mask & valid[..., None]


# ---- sequences --------------------------------------------------------------------------------------------------------


def test_a_question_about_the_target_is_a_sequence_whose_history_is_clean(network):
    contract(network, DenoisesSequences)
    codes, valid = sequences()
    mask = torch.zeros_like(codes, dtype=torch.bool)
    mask[:, -1] = torch.rand(len(codes), N) < 0.6
    together = whole(network, codes, mask, valid)[:, -1]
    asked = network.denoise(codes[:, -1:], mask[:, -1:], RawHistory(codes[:, :-1], valid[:, :-1]))[:, 0]
    assert together.shape == (6, N, K) and close(together[mask[:, -1]], asked[mask[:, -1]])


def test_what_is_hidden_is_not_looked_at_and_what_is_known_is(network):
    codes, valid = sequences()
    mask = some_hidden(codes, valid)
    logits = whole(network, codes, mask, valid)[valid]
    assert close(whole(network, torch.where(mask, 0, codes), mask, valid)[valid], logits)
    assert not close(whole(network, torch.where(mask, codes, (codes + 1) % K), mask, valid)[valid], logits)


def test_masks_on_the_history_of_one_user_change_no_logit_of_another(network):
    codes, valid = sequences()
    mask, other = (some_hidden(codes, valid, seed) for seed in (0, 1))
    other[0] = mask[0]
    before, after = (whole(network, codes, hidden, valid) for hidden in (mask, other))
    assert close(before[0], after[0]) and not close(before[1:][valid[1:]], after[1:][valid[1:]])


def test_padding_in_the_midst_of_a_sequence_changes_no_logit(network):
    codes, valid = sequences()
    mask = some_hidden(codes, valid)
    together = whole(network, codes, mask, valid)
    garbage = torch.where(valid[..., None], codes, (codes + 3) % K)
    assert close(whole(network, garbage, mask, valid)[valid], together[valid])
    for row in range(len(codes)):
        real = valid[row]
        alone = whole(network, codes[row : row + 1, real], mask[row : row + 1, real], valid[row : row + 1, real])
        assert close(alone[0], together[row, real])


def test_every_digit_of_the_history_sees_both_sides(network):
    codes, valid = (torch.randint(0, K, (1, S + 1, N)), torch.ones(1, S + 1, dtype=torch.bool))
    mask = torch.zeros_like(codes, dtype=torch.bool)
    mask[:, 2] = True
    before = whole(network, codes, mask, valid)[:, 2]
    for place in (0, S):
        other = codes.clone()
        other[:, place] = (other[:, place] + 1) % K
        assert not torch.allclose(whole(network, other, mask, valid)[:, 2], before, atol=1e-5)


# ---- settings ---------------------------------------------------------------------------------------------------------


def test_rotary_positions_tell_only_how_far_apart_two_tokens_are():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 8, generator=generator).expand(1, 9, 8) for _ in range(2))

    def scores(shift):
        rotation = Rotation.of(torch.arange(9)[None] + shift, 4)
        turned = rotation.queries(query, 2).view(9, 2, 4), rotation.keys(key.unflatten(-1, (2, 4)).transpose(1, 2))[0]
        return torch.einsum("qhd,hkd->hqk", *turned)

    found = scores(0)
    assert torch.allclose(scores(40), found, atol=1e-4)
    for apart in range(-8, 9):
        diagonal = found.diagonal(apart, 1, 2)
        assert torch.allclose(diagonal, diagonal[:, :1], atol=1e-5)
    assert torch.allclose(found[:, 0, 0], (query[0, 0] * key[0, 0]).view(2, 4).sum(1), atol=1e-5)
    assert found[:, 4].std(-1).min() > 0.01


def test_rotary_positions_turn_by_powers_of_ten_thousand():
    """Pair j of a head of size 8 turns by 10,000^(-j/4) a place: 1, 1/10, 1/100, 1/1000; written out."""
    x, place = torch.arange(1.0, 9.0), 7
    turned = Rotation.of(torch.tensor([[place]]), 8).queries(x[None, None], 1)[0, 0]
    for pair, angle in enumerate((7.0, 0.7, 0.07, 0.007)):
        wanted = complex(x[pair], x[pair + 4]) * complex(math.cos(angle), math.sin(angle))
        assert turned[[pair, pair + 4]].tolist() == pytest.approx([wanted.real, wanted.imag], abs=1e-4)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_are_of_the_kind_that_is_asked_for(kind):
    """rms: over the root of the mean square, nothing being subtracted."""
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)) + 2
    centred = x - x.mean(1, keepdim=True) if kind == "layer" else x
    wanted = centred / centred.square().mean(1, keepdim=True).sqrt()
    network = built(norm=kind)
    norms = [network.norm, *(norm for layer in network.layers for norm in (layer.attention_norm, layer.feed_forward_norm))]
    assert len(norms) == 5 and all(torch.allclose(norm(x), wanted, atol=1e-4) for norm in norms)


def test_tied_logits_compare_with_the_codes_that_enter_and_others_do_not():
    ask, memory = questions(4, 2), encode(built(), *histories(4))
    for tied in (True, False):
        network = built(tied=tied)
        before = network.denoise(*ask, memory)
        with torch.no_grad():
            (network.digits.codes if tied else network.output).view(N, K, -1)[:, 3].zero_()
        network.digits.codes.requires_grad_(False)
        logits = network.denoise(*ask, memory)
        assert (logits[..., 3] == 0).all() and not close(before, logits)
    assert "output" not in dict(built().named_parameters())


def test_logits_are_divided_by_the_temperature():
    ask, memory = questions(4, 2), encode(built(), *histories(4))
    assert close(built(temperature=0.5).denoise(*ask, memory), built().denoise(*ask, memory) * 2)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(RecipeError, match=r"model\.width 30 is not a multiple of model\.heads 4"):
        MaskedHistory(N, K, width=30)
    with pytest.raises(RecipeError, match=r"heads are of the odd size 5 \(model.width 20 / model.heads 4\)"):
        MaskedHistory(N, K, width=20, positions="rotary")
    with pytest.raises(RecipeError, match=r"model\.width"):
        Recipe(recommender="diffgrm", model={"name": "masked_history", "width": 30})


# ---- every path agrees ------------------------------------------------------------------------------------------------


def test_reading_in_parts_changes_nothing(network, monkeypatch):
    ask, memory = questions(5, 7), encode(network, *histories(5))
    with torch.no_grad():
        whole = network.denoise(*ask, memory)
        monkeypatch.setattr(masked_history, "TOKENS_AT_ONCE", 3 * N * (S + 1))
        in_parts = network.denoise(*ask, memory)
    assert close(whole, in_parts) and close(whole, network.denoise(*ask, memory).detach())


def test_probing_loss_and_decoding_give_equal_logits_for_equal_input(network, monkeypatch):
    """One fully masked question, asked through the three paths that use the network."""
    events = Ragged.from_lists([[0, 1, 2, 3], [4, 5], [2, 3, 1]])
    codes = torch.randperm(K**N, generator=torch.Generator().manual_seed(0))[:12, None] // K ** torch.arange(N) % K
    seen, original = {}, network.denoise

    def recording(ask_codes, mask, memory):
        logits = original(ask_codes, mask, memory)
        if mask.all():
            path = "loss" if torch.is_grad_enabled() else "decode" if len(memory) == 1 else "probe"
            length = memory.valid.sum(1)
            row = (length == 3).nonzero()[0, 0]
            seen[path] = logits[row, 0].detach()
        return logits

    monkeypatch.setattr(network, "denoise", recording)
    batch = one_batch(events, shared=False)
    for noising in (ConfidenceNoising(), FullMaskNoising()):
        objective = HistoryDiffusionObjective(learning_task(network, codes, noising))
        objective.loss(batch, torch.Generator().manual_seed(0), START)
    ranker = Ranker.over_codes(network, AnyOrderBeam(beam=4), Catalogue(codes, K))
    ranker.rank(Ragged.from_lists([[0, 1, 2]]), 3, exclude_seen=False)
    assert close(seen["probe"], seen["loss"]) and close(seen["probe"], seen["decode"])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_its_layers_can_be_compiled(backend):
    network = built(positions="rotary")
    asked = [(questions(4, q), histories(4)) for q in (1, 3)]
    wanted = [network.denoise(*ask, encode(network, *known)).detach() for ask, known in asked]
    assert compile_layers(network, backend) == 2
    found = [network.denoise(*ask, encode(network, *known)).detach() for ask, known in asked]
    assert all(close(a, b) for a, b in zip(wanted, found, strict=True))
