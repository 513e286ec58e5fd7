"""Training and use in bf16, which is what training takes by itself on a GPU, over every registered method that trains."""

from __future__ import annotations

import pytest
import torch

from helpers.gpus import AsOnGPUs
from helpers.recipes import methods, unfitted

HISTORIES = [["item 3", "item 77"], ["item 410"]]
TRAINED = [name for name in methods() if "training" in unfitted(name).recipe.sections]


def test_what_gpus_lack_is_told():
    sparse, dense = torch.eye(2).to_sparse(), torch.ones(2, 3)
    with AsOnGPUs():
        assert torch.equal(sparse @ dense, dense)
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(NotImplementedError, match="not implemented on GPUs"):
            sparse @ dense


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_fitted_and_asked_in_half_precision_by_what_gpus_have(name, toy):
    recommender = unfitted(name)
    shorter = ["training.precision=bf16", "training.epochs=1", "training.validate_every=1"]
    recommender = type(recommender)(recommender.recipe.override(shorter))
    with AsOnGPUs():
        table = recommender.fit(toy, progress=False).to("cpu", "bf16").recommend(HISTORIES, k=5)
    assert table.height == 10 and table["score"].is_finite().all()
