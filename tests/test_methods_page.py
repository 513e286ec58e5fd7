"""docs/methods.md names recipes, parts and settings that are there, and pictures that its script draws."""

from __future__ import annotations

import re

import pytest

from diffgrm.foundation.presets import preset_names
from diffgrm.foundation.recipe import Recipe, rows_of_other_parts
from diffgrm.foundation.registry import PARTS, names, settings
from helpers.docs import DOCS, docs_script

SECTIONS = re.split(r"^## ", (DOCS / "methods.md").read_text(), flags=re.M)[1:]
WORDS = {
    "item_scoring",
    "section.setting=value",
    "python docs/draw_methods.py",
    "diffgrm plan",
    "diffgrm fit --recipe NAME",
}


def title(section):
    return section.splitlines()[0]


def spans(text):
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def recipe_of(section):
    """The recipe that a section is about, and the settings that it says stand there."""
    (line,) = re.findall(r"^\*(?:Recipe|Recommender)\* .*?\.(?:\n|$)(?![a-z])", section, flags=re.M | re.S)
    name, *stands = spans(line)
    recipe = Recipe.preset(name) if line.startswith("*Recipe*") else Recipe(recommender=name)
    return recipe, [span for span in stands if "=" in span]


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_the_settings_of_a_method_stand_in_its_recipe(section):
    recipe, stands = recipe_of(section)
    assert stands
    for setting in stands:
        if setting.startswith("recommender="):
            assert setting == f"recommender={recipe.recommender}"
        else:
            assert recipe.override([setting]) == recipe, setting


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_every_setting_that_is_named_can_be_made(section):
    recipe, stands = recipe_of(section)
    for span in spans(section):
        if "=" in span and span not in stands:
            recipe.override(span.split(" "))


def test_everything_else_that_is_named_is_there():
    whole = [*Recipe().table(), *Recipe(recommender="documents").table(), *rows_of_other_parts(Recipe())]
    paths = {row.path for row in whole}
    known = {f"{kind}.{key}" for kind in PARTS for name in names(kind) for key in settings(kind, name)}
    known |= paths | {name for kind in PARTS for name in names(kind)} | set(preset_names())
    for section in SECTIONS:
        for span in spans(section):
            assert "=" in span or span in known | WORDS, span


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_every_method_has_a_picture(section):
    assert re.search(r"^!\[[^\]]+\]\(methods/[\w-]+\.svg\)$", section, flags=re.M), "draw one: docs/draw_methods.py"


def test_the_page_shows_all_pictures_that_the_script_draws():
    shown = re.findall(r"!\[[^\]]+\]\(methods/([\w-]+)\.svg\)", (DOCS / "methods.md").read_text())
    drawn = [path.stem for path in (DOCS / "methods").glob("*.svg")]
    assert sorted(shown) == sorted(drawn) == sorted(docs_script("draw_methods").PICTURES)


def test_a_picture_is_the_same_again(tmp_path):
    draw, picture = docs_script("pictures").draw, docs_script("draw_methods").PICTURES["llada-rec"]
    again = [draw(picture, tmp_path / "picture.svg").read_bytes() for _ in range(2)]
    assert again[0] == again[1] and b"<dc:date>" not in again[0]
