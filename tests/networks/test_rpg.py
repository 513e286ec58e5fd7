"""RPG's network, against sums written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.recommenders.one_pass import OnePassRecommender
from helpers.networks import SMALL, K, N, build, encode, features, histories, questions
from helpers.recipes import small_recipe

CODES = features().codes


def test_an_item_is_the_mean_of_the_vectors_of_its_codes():
    network = build("rpg", **SMALL)
    wanted = sum(network.digits.tables[digit, CODES[:, digit]] for digit in range(N)) / N
    assert torch.allclose(network.item_vectors(ItemFeatures(CODES)), wanted, atol=1e-6)


def test_places_are_counted_from_the_first_item_and_items_look_back_only():
    network = build("rpg", **SMALL).eval()
    vectors = network.item_vectors(ItemFeatures(CODES))
    index, lengths = torch.tensor([[3, 1, 4, 5], [9, 2, 0, 0]]), [4, 2]
    valid = torch.arange(4) < torch.tensor(lengths)[:, None]
    newest = network.encode_history(vectors, index, valid).newest()
    for row, length in enumerate(lengths):
        x = (vectors[index[row, :length]] + network.encoder.position[:length])[None] * network.encoder.scale
        for layer in network.encoder.layers:
            x = layer(x, torch.ones(1, length, dtype=torch.bool), causal=True)
        assert torch.allclose(newest[row], network.encoder.norm(x)[0, -1], atol=1e-5)


def test_logits_are_cosines_of_heads_and_codes_over_the_temperature():
    network = build("rpg", **SMALL, temperature=0.2).eval()
    torch.nn.init.normal_(network.heads)
    memory, (codes, mask) = encode(network, *histories(4)), questions(4, 3)
    logits, newest = network.denoise(codes, mask, memory), memory.newest()
    for user in range(4):
        for digit in range(N):
            x = newest[user]
            head = x + F.silu(network.heads[digit].T @ x)
            wanted = torch.stack([F.cosine_similarity(head, row, dim=0) for row in network.digits.tables[digit]]) / 0.2
            for question in range(3):
                hidden = mask[user, question, digit]
                assert torch.allclose(logits[user, question, digit], wanted * hidden, atol=1e-5)
    assert logits.abs().max() <= 1 / 0.2 + 1e-4 and logits.shape[-1] == K


def test_heads_begin_as_the_state_itself_and_learn_to_differ():
    network = build("rpg", **SMALL)
    assert (network.heads == 0).all()
    memory, hidden = encode(network, *histories(4)), torch.ones(4, 1, N, dtype=torch.bool)
    network.denoise(hidden.long(), hidden, memory)[..., 0].sum().backward()
    grown = network.heads.grad
    assert (grown.flatten(1).norm(dim=1) > 0).all() and not torch.allclose(grown[0], grown[1])


def test_digits_shown_for_nothing_are_refused(toy):
    recipe = small_recipe("one_pass").override(["model.name=rpg", "noising.name=random"])
    with pytest.raises(RecipeError, match=r"digits of the model 'rpg' are independent.*set noising\.name=full_mask"):
        OnePassRecommender(recipe).fit(toy, progress=False)
