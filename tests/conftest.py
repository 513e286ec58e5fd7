from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe, toy_world
from helpers.recipes import TINY


@pytest.fixture(scope="session", autouse=True)
def _quiet_machine(tmp_path_factory):
    """Tests share a cache folder of their own and leave the user's alone; tiny networks are fastest on one thread."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DIFFGRM_CACHE", str(tmp_path_factory.mktemp("cache")))
    torch.set_num_threads(1)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return Recipe.from_dict(TINY)


@pytest.fixture(scope="session")
def toy() -> InteractionDataset:
    return toy_world(users=120, seed=1).dataset


@pytest.fixture(scope="session")
def fitted(toy, tiny_recipe) -> DiffGRMRecommender:
    """A small trained recommender; tests must not change it."""
    return DiffGRMRecommender(tiny_recipe).fit(toy, progress=False)


@pytest.fixture(scope="session")
def saved(fitted, tmp_path_factory) -> Path:
    """Folder of the small trained recommender; tests must not change it."""
    return fitted.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the small trained recommender's folder, which a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))
