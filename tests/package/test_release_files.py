"""The files around the package: they agree with each other, and with their linters where those are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"
RANGE = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)(?:,<[\d.]+)?")


def linter(name):
    """A linter of the environment that runs the tests, or of the machine."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def pins(name):
    """Of a constraints file, the version of each package."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return {package(line.split("==")[0]): line.split("==")[1] for line in lines if line}


def package(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def same(version, other):
    """Whether two versions are the same but for zeros at the end."""
    first, second = ([int(part) for part in text.split(".")] for text in (version, other))
    width = max(len(first), len(second))
    return first + [0] * (width - len(first)) == second + [0] * (width - len(second))


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    assert re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == PROJECT["version"]


def test_the_oldest_versions_are_the_lower_bounds_of_the_project():
    """Of the core and of pandas, which tests of tables need; but PyTorch's, of which only the pinned build is tested."""
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["pandas"]
    oldest, bounds = pins("constraints-oldest.txt"), dict(RANGE.fullmatch(text).groups() for text in wanted)
    assert oldest.pop("torch") == pins("constraints.txt")["torch"]
    bounds = {package(name): version for name, version in bounds.items() if name != "torch"}
    assert set(oldest) == set(bounds)
    assert not {name: (oldest[name], bound) for name, bound in bounds.items() if not same(oldest[name], bound)}


def test_every_dependency_has_a_lower_bound_and_dev_has_every_extra():
    extras = PROJECT["optional-dependencies"]
    for name, wanted in extras.items():
        if name != "dev":
            assert all(RANGE.fullmatch(text) for text in wanted), name
    (everything,) = [text for text in extras["dev"] if text.startswith("diffgrm[")]
    assert set(everything[len("diffgrm[") : -1].split(",")) == set(extras) - {"dev"}


def test_the_workflow_calls_targets_that_there_are_on_pythons_that_are_supported():
    text = WORKFLOW.read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(r"run: make ([\w-]+)", text)
    assert set(called) == {"test", "check", "package-test", "test-oldest", "container-test"} and set(called) <= targets
    job = yaml.safe_load(text)["jobs"]["test"]["strategy"]["matrix"]
    assert f">={job['python'][0]}" == PROJECT["requires-python"] and len(job["os"]) == 3


def test_the_workflow_and_the_image_take_pytorch_without_cuda_of_the_pinned_version():
    """pip takes ``2.13.0+cpu`` of that index before PyPI's ``2.13.0``, and ``==2.13.0`` allows both."""
    index = yaml.safe_load(WORKFLOW.read_text())["env"]["PIP_EXTRA_INDEX_URL"]
    assert index == "https://download.pytorch.org/whl/cpu"
    assert f"torch --index-url {index}" in (ROOT / "Dockerfile").read_text()
    assert all(re.fullmatch(r"[\d.]+", pins(name)["torch"]) for name in ("constraints.txt", "constraints-oldest.txt"))


def test_how_long_the_tests_take_is_told_alike():
    names = "README.md", "CONTRIBUTING.md"
    told = [re.findall(r"about (\d+) minutes on two cores", (ROOT / name).read_text()) for name in names]
    assert told[0] == told[1] and len(told[0]) == 1


def test_the_image_has_a_user_without_rights_and_a_health_check():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert any(re.fullmatch(r"USER [1-9]\d*", line) for line in lines)
    assert any(line.startswith("HEALTHCHECK") for line in lines) and "VOLUME /model" in lines
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    assert entry.startswith('ENTRYPOINT ["diffgrm", "serve", "/model", "--host", "0.0.0.0"')
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]}
    assert copied == set(kept) and all((ROOT / name).exists() for name in kept)


def test_hadolint_has_nothing_to_say_of_the_dockerfile():
    done = subprocess.run([linter("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("schema", "path"), [("github-workflows", WORKFLOW), ("citation-file-format", ROOT / "CITATION.cff")]
)
def test_files_that_others_read_follow_their_schemas(schema, path):
    command = [linter("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
