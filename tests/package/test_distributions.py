"""The built distributions: what is in them, and that the wheel works alone. Takes minutes and PyPI: make package-test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.package

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = {
    path.relative_to(ROOT / "src").as_posix()
    for path in (ROOT / "src" / "diffgrm").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def run(*command, **how):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a source distribution, and of a wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_holds_the_sources_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == SOURCES
    assert {"diffgrm/py.typed", "diffgrm/recipes/best.yaml", "diffgrm/recipes/defaults/hybrid.yaml"} <= SOURCES
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_metadata_say_what_the_project_file_says(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    lines = archive.read(name).decode().splitlines()
    assert f"Version: {PROJECT['version']}" in lines and "License-Expression: Apache-2.0" in lines
    assert {line.split(": ")[1] for line in lines if line.startswith("Provides-Extra")} == set(
        PROJECT["optional-dependencies"]
    )


def test_the_source_distribution_holds_what_it_is_built_and_tested_with(built):
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {f"src/{name}" for name in SOURCES} | {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md"} <= names
    assert {"Makefile", "constraints.txt", "tests/conftest.py"} <= names


def test_the_wheel_works_with_the_core_dependencies_alone(wheel, tmp_path):
    """In an environment of its own: the toy world is fitted, and what an extra is needed for says how to install it."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt")
    run(*pip, "torch")
    run(*pip, wheel)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DIFFGRM"))}
    environment["DIFFGRM_CACHE"] = str(tmp_path / "cache")
    script = Path(__file__).with_name("core_only.py")
    out = run(python, script, tmp_path, cwd=tmp_path, env=environment)
    found = json.loads(out.splitlines()[-1])
    assert Path(found["home"]).is_relative_to(tmp_path / "env") and found["version"] == PROJECT["version"]
    assert 0 < found["metrics"]["recall@10"] <= 1
    extras = set(PROJECT["optional-dependencies"]) - {"dev", "docs"}  # what tests and pages need, no part of the package
    assert set(found["missing"]) == extras, "core_only.py needs a function for each extra"
    for extra, message in found["missing"].items():
        assert f"pip install 'diffgrm[{extra}]'" in message, (extra, message)
    said = run(python.with_name("diffgrm" + python.suffix), "recipes", cwd=tmp_path, env=environment)
    assert "generative-best" in said
