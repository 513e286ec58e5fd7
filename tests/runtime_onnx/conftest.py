from __future__ import annotations

import numpy as np
import pytest

from diffgrm import HybridRecommender, load_onnx
from diffgrm.runtime_onnx.export import export_onnx
from helpers.recipes import small_recipe


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    """Folder of the small trained recommender's export; tests must not change it."""
    return export_onnx(fitted, tmp_path_factory.mktemp("exports") / "tiny")


@pytest.fixture(scope="module")
def onnx(exported):
    return load_onnx(exported, threads=1)


@pytest.fixture(scope="module")
def histories(toy):
    """Of every length from 1 item to more than the network looks at."""
    found = {f"user {i}": toy.items.ids(toy.events[i][: 1 + i % 12]) for i in range(24)}
    return found | {"long": toy.items.ids(np.arange(0, 400, 9)), "repeats": ["item 5"] * 9 + ["nowhere", "item 6"]}


@pytest.fixture(scope="module")
def hybrid(toy):
    """A small recommender that scores whole items; tests must not change it."""
    return HybridRecommender(small_recipe("hybrid").override(["training.epochs=1"])).fit(toy, progress=False)


@pytest.fixture(scope="module")
def hybrid_exported(hybrid, tmp_path_factory):
    """Folder of its export; tests must not change it."""
    return export_onnx(hybrid, tmp_path_factory.mktemp("exports") / "hybrid")
