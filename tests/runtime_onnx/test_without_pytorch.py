"""Exports are asked where nothing is installed but the packages that the docs name."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "onnx.md"
ASKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import diffgrm

model, *exports = sys.argv[1:]
for export in exports:
    assert diffgrm.load_onnx(export, threads=1).recommend([["item 5", "item 7"]], k=3).height == 3
print(*{name.partition(".")[0] for name in sys.modules})
for ask in (lambda: diffgrm.load(model), lambda: diffgrm.HybridRecommender):
    try:
        ask()
    except ImportError as error:
        print(error)
"""


def named():
    (line,) = re.findall(r"^pip install (numpy .*)$", PAGE.read_text(), re.MULTILINE)
    return set(line.split())


def with_theirs(packages):
    """Packages, and all that they require."""
    found, new = set(), {canonicalize_name(package) for package in packages}
    while new:
        found |= new
        asked = [Requirement(text) for package in new for text in requires(package) or []]
        new = {canonicalize_name(one.name) for one in asked if not one.marker or one.marker.evaluate({"extra": ""})} - found
    return found


def test_the_packages_that_the_docs_name_are_enough_and_all_needed(hybrid, hybrid_exported, exported, tmp_path):
    owners = {module: set(map(canonicalize_name, found)) for module, found in packages_distributions().items()}
    there = with_theirs(named()) | {"diffgrm"}
    missing = {module for module, found in owners.items() if not found & there}
    assert {"torch", "lightning", "sklearn", "requests"} <= missing
    model = hybrid.save(tmp_path / "model")
    words = [sys.executable, "-c", f"MISSING = {missing}\n{ASKED}", model, hybrid_exported, exported]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded, *errors = done.stdout.splitlines()
    assert named() <= {package for module in loaded.split() for package in owners.get(module, ())}
    assert len(errors) == 2
    assert "the recommender 'hybrid' needs the package 'torch'; install it with: pip install diffgrm" in errors[0]
    assert "diffgrm.HybridRecommender needs the package 'torch'" in errors[1]
