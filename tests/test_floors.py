"""The house stands on its floors: a file imports only from lower floors or its own folder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffgrm import _HOME

SOURCE = Path(__file__).resolve().parents[1] / "src" / "diffgrm"
FLOORS = (  # from the ground up; a folder is a floor
    "foundation",
    "data",
    "evaluation",
    "semantic_ids",
    "networks",
    "ranking",
    "learning",
    "recommenders",
    "runtime_onnx",
    "apps",
)
ROOF = {"__init__", "__main__"}  # the public names and `python -m diffgrm`, which may name anything
FREE_OF_TORCH = FLOORS[:4]  # at the top of a file; a tokenizer may import it inside a function
FILES = sorted(SOURCE.rglob("*.py"))
MODULE = re.compile(rf"diffgrm\.({'|'.join(FLOORS)})(\.\w+)*(:\w+)?")


def room(path: Path) -> str:
    """A file's place in the house, such as ``networks/blocks``."""
    return path.relative_to(SOURCE).with_suffix("").as_posix().removesuffix("/__init__")


def floor(name: str) -> int:
    folder = name.split("/")[0]
    assert folder in FLOORS, f"{name} is in no folder of the house: {', '.join(FLOORS)}"
    return FLOORS.index(folder)


def visible(path: Path) -> ast.Module:
    """A file's code without what only type checkers see."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
    return tree


def modules(node: ast.AST, here: Path) -> list[str]:
    """The modules that a node of code names: by an import of any kind, an attribute, or a text that is a path."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = ["diffgrm", *here.relative_to(SOURCE).parts[:-1]]
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "diffgrm":
        return [f"diffgrm.{node.attr}"]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE.fullmatch(node.value):
        return [node.value.split(":")[0]]
    return []


def named(path: Path) -> list[str]:
    """Rooms of the library that a file names."""
    found = [name for node in ast.walk(visible(path)) for name in modules(node, path)]
    return sorted({where(name) for name in found if name.split(".")[0] == "diffgrm"})


def where(module: str) -> str:
    """The room of a module or of a public name; what reaches everything is as high as the top floor."""
    first, *more = module.split(".")[1:] or ["*"]
    home = _HOME.get(first, first).split(".")
    return "/".join([*home, *more]) if home[0] in FLOORS else FLOORS[-1]


@pytest.mark.parametrize("path", [p for p in FILES if room(p) not in ROOF], ids=room)
def test_imports_come_from_lower_floors_or_the_own_folder(path):
    here = room(path)
    if here == "foundation/registry":  # its table names the parts of all floors, which is what it is for
        return
    for other in named(path):
        assert floor(other) <= floor(here), f"{here} must not know of {other}"


def test_every_file_lies_in_a_folder_of_the_house():
    for path in FILES:
        if room(path) not in {*ROOF, "."}:
            floor(room(path))


@pytest.mark.parametrize("path", [p for p in FILES if room(p).split("/")[0] in FREE_OF_TORCH], ids=room)
def test_lower_floors_import_torch_inside_functions_of_tokenizers_at_most(path):
    tree = visible(path)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if {name.split(".")[0] for name in modules(node, path)} & {"torch", "lightning"}:
            assert id(node) in lazy and room(path).startswith("semantic_ids/tokenizers/"), f"{room(path)} imports torch"


@pytest.mark.parametrize(
    "code",
    [
        "from diffgrm.apps import bench",
        "import diffgrm.apps.bench",
        "from ..apps import bench",
        "import importlib; importlib.import_module('diffgrm.apps.bench')",
        "PART = 'diffgrm.apps.bench:Suite'",
        "def f():\n    from diffgrm.apps.bench import suite",
        "from .. import apps",
        "import diffgrm.data; diffgrm.apps.bench",
        "import diffgrm as d; d.apps.bench",
        "from diffgrm import *",
        "from diffgrm import __main__",
        "from .. import __main__",
        "if not TYPE_CHECKING:\n    import diffgrm.apps",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import diffgrm.apps",
    ],
)
def test_no_way_of_importing_is_overlooked(code, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    path = tmp_path / "data" / "file.py"
    path.parent.mkdir()
    path.write_text(code)
    assert any(other.startswith("apps") for other in named(path))


def test_a_public_name_stands_for_the_module_that_it_comes_from(tmp_path):
    path = tmp_path / "file.py"
    path.write_text("from diffgrm import export_onnx\nimport diffgrm.data\ndiffgrm.load_onnx")
    assert named(path) == ["data", "runtime_onnx", "runtime_onnx/export"]


@pytest.mark.parametrize(
    "module",
    [
        "diffgrm",
        "diffgrm.apps.cli.main",
        "diffgrm.foundation.registry",
        "diffgrm.evaluation.metrics",
        "diffgrm.semantic_ids.semantic_ids",
        "diffgrm.recommenders",
        "diffgrm.runtime_onnx",
    ],
)
def test_importing_stays_light(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
