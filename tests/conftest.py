from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe, toy_world
from diffgrm.foundation.registry import settings

TINY = {
    "embedding": {"name": "lsa", "width": 32},
    "tokenizer": {"name": "opq", "n_digits": 3, "codebook_size": 16, "iterations": 5},
    "model": {
        "branches": ["sid"],
        "history": "bidirectional",
        "width": 32,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "feed_forward": 64,
        "dropout": 0.1,
        "decoder_dropout": None,
        "max_len": 8,
    },
    "loss": {"item_weight": 0.0, "share": 1.0},
    "training": {
        "batch_size": 64,
        "epochs": 3,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "validation_decoding": {"beam": 8},
    },
    "decoding": {"name": "any_order_beam", "beam": 16},
}
DATA = Path(os.environ.get("DIFFGRM_BENCHMARK_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


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


def small_recipe(name: str) -> Recipe:
    """A recipe for any recommender that fits in seconds: of the tiny settings those that it knows.

    DiffGRM's is its default made small; ``tiny_recipe`` has digits only, as the paper has.
    """
    if name == "diffgrm":
        sizes = {
            key: value
            for key, value in TINY["model"].items()
            if key not in ("branches", "history", "dropout", "decoder_dropout")
        }
        training = {key: value for key, value in TINY["training"].items() if key != "validation_decoding"}
        return Recipe(embedding=TINY["embedding"], tokenizer=TINY["tokenizer"], model=sizes, training=training)
    plain = Recipe(recommender=name)
    raw: dict = {"recommender": name}
    for section in set(TINY) & set(plain.sections):
        raw[section] = dict(TINY[section])
        if section in ("model", "decoding"):
            known = settings(section, getattr(plain, section).name)
            raw[section] = {key: value for key, value in TINY[section].items() if key in known}
    if not raw.get("decoding"):
        raw.get("training", {}).pop("validation_decoding", None)
    return Recipe.from_dict(raw)


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


def shared_data(name: str) -> Path:
    """A benchmark dataset's folder; the test is skipped where it is absent."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
