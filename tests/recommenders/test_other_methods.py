"""Recipes of other papers' methods: what the contracts of all recommenders do not ask."""

from __future__ import annotations

import numpy as np
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


def test_what_sprint_says_of_whole_items_counts_over_its_temperature(toy):
    """Cosines differ by 2 at most: as bare ones they would hardly be heard beside log-probabilities."""
    sprint = unfitted("sprint").fit(toy, progress=False)
    weight, temperature = sprint.recipe.decoding.options["weight"], sprint.recipe.item_loss.temperature

    def scores(digits):
        chosen = sprint.variant([f"decoding.weight={digits}"])
        return chosen.recommend([["item 3", "item 7"]], k=480, exclude_seen=False).sort("item_id")["score"].to_numpy()

    of_items = 2 * scores(weight) - scores(2 * weight)  # without what digits say, but for a number that all share
    assert 2 < np.ptp(of_items) <= 2 / temperature + 1e-3
