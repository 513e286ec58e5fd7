"""Misspelt words of settings, and what they may have been meant to be."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from diffgrm import Recipe
from diffgrm.foundation.model_keys import misspelt
from diffgrm.foundation.schema import RecipeError


class Leg(BaseModel):
    length: Annotated[int, Field(alias="len gth")] = 1


class Chair(BaseModel):
    legs: Annotated[tuple[Leg, ...] | None, Field(max_length=4)] = None
    cushions: dict[Annotated[str, Field(min_length=1)], Leg] = {}
    seat: Leg | None = None


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        (("leg",), "; did you mean 'legs'?"),
        (("legs", 0, "lengh"), "; did you mean 'len gth'?"),
        (("cushions", "red", "lngth"), "; did you mean 'len gth'?"),
        (("seat", "zzz"), "; known: len gth"),
        (("seat", "len gth", "deeper"), ""),
        (("nowhere", 3, "at"), ""),
    ],
)
def test_keys_are_hinted_at_wherever_they_stand(place, hint):
    assert misspelt(Chair, place) == misspelt(Chair | None, place) == hint
    assert misspelt(int, place) == ""


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("events.repeats=lst", "'last'"),
        ("events.time_inputs=[gaps]", "'gap'"),
        ("data.split=temporl", "'temporal'"),
        ("semantic_ids.collisions=reasign", "'reassign'"),
    ],
)
def test_words_of_settings_are_hinted_at(override, word):
    with pytest.raises(RecipeError, match=rf"Input should be .*; did you mean {word}\?"):
        Recipe().override([override])


def test_what_is_like_no_word_has_no_hint():
    with pytest.raises(RecipeError) as error:
        Recipe().override(["events.repeats=xyz"])
    assert "did you mean" not in str(error.value) and "Input should be 'keep', 'first'" in str(error.value)
