"""Through the parts of torch.compile that read the code; benchmarks/run.py compile tries the code it generates."""

from __future__ import annotations

import pytest
import torch

from diffgrm import Recipe
from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.compiled import compile_layers, compiled
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.sasrec import SASRec
from helpers.networks import ITEMS, SIZES, K, N, build, close, encode, features, histories, questions


def compiled_layers(network):
    return {name for name, module in network.named_modules() if "forward" in vars(module)}


def test_the_layers_of_the_history_are_reached():
    network = SASRec(n_items=ITEMS, width=16)
    assert compile_layers(network, "eager") == 2
    assert compiled_layers(network) == {"encoder.layers.0", "encoder.layers.1"}


def test_the_layers_of_the_history_and_of_the_digits_are_reached():
    network = Recipe(recommender="hybrid").model.build(**SIZES)
    assert compile_layers(network, "eager") == 4
    assert compiled_layers(network) == {f"{part}.layers.{layer}" for part in ("encoder", "decoder") for layer in (0, 1)}
    assert compile_layers(DiffGRM(N, K, width=16, encoder_layers=0, decoder_layers=3), "eager") == 3


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(RecipeError, match="Sequential has no Transformer layers of this library to compile; leave compile"):
        compile_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)), "eager")
    with pytest.raises(RecipeError, match="Linear has no Transformer layers"), compiled(torch.nn.Linear(2, 2), True):
        pytest.fail("went on")


def test_layers_run_compiled_inside_the_block_only_and_only_if_that_is_wanted(monkeypatch):
    network = SASRec(n_items=ITEMS, width=16)
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    with compiled(network, False):
        assert not compiled_layers(network)
    with compiled(network, True):
        assert len(compiled_layers(network)) == 2
    assert not compiled_layers(network)
    with pytest.raises(ZeroDivisionError), compiled(network, True):
        1 / 0  # noqa: B018
    assert not compiled_layers(network)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_and_eager_give_the_same_logits_and_gradients(backend):
    torch.manual_seed(0)
    network = DiffGRM(N, K, width=16, heads=2, dropout=0.0, decoder_layers=1)
    before, ask, (codes, valid), found = set(network.state_dict()), questions(4, 5), histories(4), []
    for compiles in (False, True):
        if compiles:
            compile_layers(network, backend)
        network.zero_grad()
        logits = network.denoise(*ask, encode(network, codes, valid))
        logits.square().mean().backward()
        found.append((logits.detach(), [p.grad.clone() for p in network.parameters()]))
    assert close(found[0][0], found[1][0])
    assert all(close(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
    assert set(network.state_dict()) == before


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["sasrec", "diffgrm"])
def test_users_are_the_same_in_use_whatever_the_sizes(name, backend):
    network = build(name, width=16, heads=2, dropout=0.0).eval()
    everything = network.item_vectors(features()).detach()

    def users(batch, length):
        index = torch.arange(batch * length).view(batch, length) % ITEMS
        valid = torch.arange(length) < 1 + torch.arange(batch)[:, None] % length
        with torch.no_grad():
            return network.user_vectors(network.encode_history(everything, index, valid))

    sizes = [(3, 4), (5, 2), (2, 7)]
    wanted = [users(*size) for size in sizes]
    compile_layers(network, backend)
    assert all(close(users(*size), one) for size, one in zip(sizes, wanted, strict=True))
