"""Recipes of other papers' methods: what the contracts of all recommenders do not ask."""

from __future__ import annotations

import pytest

import diffgrm
from diffgrm.foundation.schema import ModelFolderError
from helpers.folders import change_recipe
from helpers.recipes import unfitted


@pytest.fixture(scope="module", params=["rpg", "mdgr", "sprint"])
def fitted(request, toy):
    return unfitted(request.param).fit(toy, progress=False)


def test_it_explains_its_lists(fitted):
    told = fitted.explain(["item 3", "item 4"], k=2)
    assert told.height == 2 * 4 and told["confidence"].is_between(0, 1).all()


def test_weights_of_other_sizes_are_refused(fitted, tmp_path):
    folder = fitted.save(tmp_path / "model")
    change_recipe(folder, {"model": {"width": 64}})
    with pytest.raises(ModelFolderError, match="model.safetensors"):
        diffgrm.load(folder)
