"""Model folders as a stranger might make them: changed, but whole by their hashes; and disks that are full."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgrm.foundation.storage import file_digest


def rehash(folder: Path) -> None:
    """Let the manifest say what the files are now."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        if (file := folder / name).is_file():
            manifest["files"][name] = {"bytes": file.stat().st_size, "sha256": file_digest(file)}
    path.write_text(json.dumps(manifest))


def change_recipe(folder: Path, changes: dict[str, Any]) -> None:
    """Other sections in the saved recipe; a mapping changes single settings."""
    path = folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    for section, value in changes.items():
        known = recipe.get(section)
        recipe[section] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(recipe))
    rehash(folder)


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file grows beyond some bytes while the block lasts, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
