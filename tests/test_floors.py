"""The house stands on its floors: a file imports only from lower floors or its own folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "diffgrm"
FLOORS = {
    "__init__": 7,
    "__main__": 7,
    "schema": 0,
    "storage": 0,
    "registry": 0,
    "recipe": 0,
    "model_folder": 1,
    "code_words": 1,
    "data/batches": 3,
    "data": 1,
    "query": 1,
    "evaluation": 1,
    "embeddings": 2,
    "tokenizers": 2,
    "collisions": 2,
    "semantic_ids": 2,
    "machine": 3,
    "models": 3,
    "noising": 3,
    "losses": 3,
    "item_losses": 3,
    "retrieval": 3,
    "catalogue": 3,
    "decoding": 3,
    "training": 4,
    "recommenders": 5,
    "bench": 6,
    "reporting": 6,
    "onnx_runtime": 6,
    "export": 6,
    "console": 6,
    "serving": 6,
    "demo": 6,
    "cli_items": 6,
    "cli_shared": 6,
    "cli": 6,
}
FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    name = path.relative_to(SOURCE).with_suffix("").as_posix()
    return name.removesuffix("/__init__") if name != "__init__" else name


def floor(name: str) -> int:
    while name not in FLOORS:
        assert "/" in name, f"{name} has no floor: add it to FLOORS"
        name = name.rsplit("/", 1)[0]
    return FLOORS[name]


def imports(path: Path) -> list[str]:
    """Rooms of the library that a file imports, at its top or inside functions, except for type checking."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "diffgrm":
            base = "/".join(node.module.split(".")[1:])
            for alias in node.names:
                inner = f"{base}/{alias.name}" if base else alias.name
                found.append(inner if any(room(f) == inner for f in FILES) else base or "__init__")
    return found


@pytest.mark.parametrize("path", FILES, ids=room)
def test_imports_come_from_lower_floors_or_the_own_folder(path):
    here = room(path)
    for other in imports(path):
        same_folder = "/" in here and here.rsplit("/", 1)[0] == other.split("/")[0]
        same_floor_file = floor(other) == floor(here)
        assert floor(other) < floor(here) or same_folder or same_floor_file, f"{here} must not import {other}"


@pytest.mark.parametrize("path", [p for p in FILES if floor(room(p)) < 3], ids=room)
def test_nothing_below_floor_three_imports_torch(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.split(".")[0] in ("torch", "lightning") for name in names)


@pytest.mark.parametrize(
    "module",
    [
        "diffgrm",
        "diffgrm.cli",
        "diffgrm.registry",
        "diffgrm.evaluation",
        "diffgrm.semantic_ids",
        "diffgrm.recommenders",
        "diffgrm.onnx_runtime",
    ],
)
def test_importing_stays_light(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
