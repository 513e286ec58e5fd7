"""What is said of a network that lacks what is asked of it."""

from __future__ import annotations

import pytest
from torch import nn

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.contracts import Denoises, EncodesHistories, PredictsDigits, ScoresItems, check_network, contract


class Mute(nn.Module):
    """Encodes histories and can do nothing with them."""

    max_len, causal = 5, False

    def item_vectors(self, items):
        return items.text

    def encode_history(self, vectors, index, valid):
        return vectors[index]


@pytest.mark.parametrize(
    ("protocol", "methods"),
    [(Denoises, "denoise"), (PredictsDigits, "next_digit, predict"), (ScoresItems, "user_vectors")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_ability_that_is_missing_is_named(protocol, methods):
    assert contract(Mute(), EncodesHistories).max_len == 5
    with pytest.raises(RecipeError, match=rf"'Mute' lacks .*: what is asked of it needs {methods} \({protocol.__name__}\)"):
        contract(Mute(), protocol)


def test_all_that_is_missing_is_named_at_once_with_who_needs_it():
    with pytest.raises(RecipeError) as error:
        check_network(
            "mine:Mute", Mute, [(Denoises, "objective 'x'"), (EncodesHistories, "y"), (ScoresItems, "decoding 'z'")]
        )
    text = str(error.value)
    assert "the model 'mine:Mute' lacks what this recipe asks of it: objective 'x' needs denoise (Denoises); " in text
    assert "decoding 'z' needs user_vectors (ScoresItems)" in text and "y needs" not in text


@pytest.mark.parametrize(
    ("attribute", "value", "text"),
    [("max_len", None, "max_len: int, found None"), ("causal", 1, "causal: bool, found 1")],
)
def test_a_network_that_does_not_say_how_far_back_it_looks_is_refused(attribute, value, text):
    network = Mute()
    setattr(network, attribute, value)
    with pytest.raises(RecipeError, match=f"the model 'Mute' must have {text}"):
        contract(network, EncodesHistories)
