"""Recipes that say that every value is marked mark every value, those of the optimiser too."""

from __future__ import annotations

import re

import pytest
import yaml

from diffgrm.foundation.presets import preset_names, preset_text

MARKED = [name for name in preset_names() if "Every value is marked" in preset_text(name)]
VALUE = re.compile(r"^\s+(?:- )?(?!name:)[^\s#:]+:? ?[^\s#].*$")  # a part's name is no value
MARK = re.compile(r"#.*\b(?:verbatim|adapted|ours)\b")


def unmarked(text):
    return [line for line in text.splitlines() if VALUE.match(line) and not MARK.search(line)]


def test_a_value_without_a_mark_is_found():
    text = "# head\nmodel:\n  name: rpg\n  width: 8\n  heads: 4  # verbatim\n  depth: 2  # two cores\n"
    assert unmarked(text) == ["  width: 8", "  depth: 2  # two cores"]


@pytest.mark.parametrize("name", MARKED)
def test_every_value_is_marked_where_a_recipe_says_so(name):
    assert unmarked(preset_text(name)) == []


@pytest.mark.parametrize("name", MARKED)
def test_what_the_optimiser_does_is_said_too(name):
    said = yaml.safe_load(preset_text(name))["training"]
    assert {"learning_rate", "weight_decay", "schedule", "gradient_clip"} <= set(said)
