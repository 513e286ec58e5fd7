"""Gates on what the sublayers add: the formula written out, open and closed gates, compiled layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffgrm import DiffGRMRecommender
from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.blocks import DecoderLayer, EncoderLayer, Residual
from diffgrm.networks.compiled import compile_layers
from diffgrm.networks.contracts import Denoises, PredictsDigits, lacks
from diffgrm.networks.stream import StreamLayer
from helpers.networks import GENERATOR, SMALL, build, close, encode, features, histories, questions, trainable
from helpers.recipes import SMALL_SCORER, small_generation

D, GATED = 16, [name for name, options in trainable() if options == {"gated": True}]
NETWORKS = pytest.mark.parametrize("name", GATED)


def gates(network):
    return [part.gate for part in network.modules() if isinstance(part, Residual)]


def set_gates(network, bias):
    for gate in gates(network):
        nn.init.zeros_(gate.weight)
        nn.init.constant_(gate.bias, bias)


def everything_said(network):
    """What a network says of some users: logits of many questions, or users' vectors."""
    (codes, valid), ask = histories(5), questions(5, 9)
    if lacks(type(network), Denoises) and lacks(type(network), PredictsDigits):
        index = torch.arange(20).view(4, 5) % len(features())
        valid = torch.ones(4, 5, dtype=torch.bool)
        return network.user_vectors(network.encode_history(network.item_vectors(features()), index, valid))
    memory = encode(network, codes, valid)
    return network.predict(ask[0], memory) if lacks(type(network), Denoises) else network.denoise(*ask, memory)


def reseeded(network):
    """The same, asked the same."""
    GENERATOR.manual_seed(7)
    return everything_said(network)


def added(layer, name, x, y):
    """X and what a gate leaves of y."""
    return x + layer.get_submodule(name).gate(x).sigmoid() * y


@pytest.mark.parametrize("learning", [True, False])
def test_a_layer_over_the_history_is_the_formula(learning):
    layer = EncoderLayer(D, 2, 24, 0.0, gated=True).train(learning)
    x, valid = torch.randn(3, 4, D), torch.ones(3, 4, dtype=torch.bool)
    with torch.set_grad_enabled(learning):
        y = layer.attention_norm(x)
        said = layer.attention.out(layer.attention.attend(layer.attention.query(y), *layer.attention.project(y)))
        wanted = added(layer, "add_attention", x, said)
        said = nn.Sequential.forward(layer.feed_forward, layer.feed_forward_norm(wanted))
        wanted = added(layer, "add_feed_forward", wanted, said)
        assert close(layer(x.clone(), valid), wanted)


@pytest.mark.parametrize("folded", [True, False])
def test_a_layer_over_the_digits_is_the_formula(folded):
    layer = DecoderLayer(D, 2, 24, 0.0, gated=True).eval()
    x, hidden, valid = torch.randn(3, 2, 4, D), torch.randn(3, 5, D), torch.ones(3, 1, 5, dtype=torch.bool)
    with torch.no_grad():
        history = layer.history.project(hidden)
        flat = x.flatten(0, 1)
        query, key_value = layer.project_digits(flat)
        said = layer.digits.out(layer.digits.attend(query, *layer.digits.split(key_value)))
        wanted = added(layer, "add_digits", flat, said).view(3, 8, D)
        said = layer.history.attend(layer.history.query(layer.history_norm(wanted)), *history)
        wanted = added(layer, "add_history", wanted, layer.history.out(said))
        said = nn.Sequential.forward(layer.feed_forward, layer.feed_forward_norm(wanted))
        wanted = added(layer, "add_feed_forward", wanted, said).view(x.shape)
        assert close(layer(x.clone(), layer.history.fold(*history) if folded else history, valid), wanted)


@NETWORKS
@pytest.mark.parametrize("learning", [True, False])
def test_open_gates_are_the_network_without_and_every_sublayer_has_one(name, learning):
    plain, gated = build(name, **SMALL).eval(), build(name, **SMALL, gated=True).eval()
    extra = gated.load_state_dict(plain.state_dict(), strict=False)
    assert not extra.unexpected_keys and all(".gate." in key for key in extra.missing_keys)
    assert None not in gates(gated) and not any(gates(plain))
    sublayers = {EncoderLayer: 2, StreamLayer: 2, DecoderLayer: 3}
    assert len(gates(gated)) == sum(sublayers.get(type(part), 0) for part in gated.modules()) > 0
    with torch.set_grad_enabled(learning):
        set_gates(gated, 50.0)
        assert close(reseeded(gated), reseeded(plain))
        set_gates(gated, 0.0)
        assert not close(reseeded(gated), reseeded(plain))


@NETWORKS
def test_behind_closed_gates_no_layer_says_anything(name):
    network = build(name, **SMALL, gated=True).eval()
    set_gates(network, -200.0)
    with torch.no_grad():
        before = reseeded(network)
        for part in network.modules():
            if isinstance(part, EncoderLayer | StreamLayer | DecoderLayer):
                part.feed_forward.out.weight.normal_()
        assert torch.equal(reseeded(network), before)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_layers_say_the_same_and_learn_the_same(backend):
    network, found = build("diffgrm", **SMALL, gated=True, encoder_layers=1, decoder_layers=1), []
    for compiles in (False, True):
        if compiles:
            compile_layers(network, backend)
        network.zero_grad()
        reseeded(network).square().mean().backward()
        found.append([p.grad.clone() for p in network.parameters()])
        assert all(gate.weight.grad.abs().sum() > 0 for gate in gates(network))
    assert all(close(a, b) for a, b in zip(*found, strict=True))


def test_a_network_with_gates_begins_at_an_item_scorer_with_gates(toy):
    changes = f"embedding.changes=[{', '.join([*SMALL_SCORER, 'model.gated=true'])}]"
    made = DiffGRMRecommender(small_generation("model.gated=true", changes, "training.epochs=1")).fit(toy, progress=False)
    assert made.recommend([["item 3"]], k=5).height == 5 and None not in gates(made.network)
    with pytest.raises(RecipeError, match="gated is True here and False there; change model"):
        DiffGRMRecommender(small_generation("model.gated=true")).fit(toy, progress=False)
