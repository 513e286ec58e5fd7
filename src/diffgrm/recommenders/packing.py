"""A recommender inside of another's model folder: the files of its own folder as arrays, since such folders are flat."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import ModelFolderError, first_few
from diffgrm.recommenders.base import Recommender, load


def packed(recommender: Recommender) -> dict[str, np.ndarray]:
    """The files of a recommender's model folder: uint8 arrays of their bytes, by name."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = recommender.save(Path(temporary) / "model")
        return {path.name: np.frombuffer(path.read_bytes(), dtype=np.uint8) for path in sorted(folder.iterdir())}


def check_names(files: Mapping[str, np.ndarray]) -> None:
    """Refuse names that no file of a model folder has, before anything is written.

    Raises:
        ModelFolderError: no files, or names that lead elsewhere.
    """
    if not files or any(name in ("", "..") or Path(name).name != name or "\0" in name for name in files):
        raise ModelFolderError(
            f"the model folder of a recommender inside of another's cannot have the files {first_few(map(repr, files))}"
        )


def unpacked(files: Mapping[str, np.ndarray], trust_code: Trust = False) -> Recommender:
    """The recommender of :func:`packed` files, read as any model folder of a stranger is.

    Args:
        trust_code: see ``Recommender.load``.

    Raises:
        ModelFolderError: names or files that are not those of a model folder.
    """
    check_names(files)
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.items():
            (Path(temporary) / name).write_bytes(content.tobytes())
        return load(temporary, trust_code=trust_code)
