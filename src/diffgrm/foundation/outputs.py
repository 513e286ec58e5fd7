"""Places to write to, checked before the work whose result they are for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TypeVar

from diffgrm.foundation.schema import DataError, DiffGRMError

E = TypeVar("E", bound=DiffGRMError)


def check_file(path: Path) -> None:
    """Make sure that a file may be written here, over one that is there; its folder must be there.

    Raises:
        DataError: a folder stands there, its parent is none, or one may not write there.
    """
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise DataError(f"cannot write {path}: it is no file; choose another name")
    if not path.absolute().parent.is_dir():
        raise DataError(f"cannot write {path}: there is no folder {path.absolute().parent}; make it first")
    check_writable(path.absolute(), DataError)


def check_folder(path: Path) -> None:
    """Make sure that files may be written into this folder, which is made if it is not there, parents too.

    Raises:
        DataError: a file stands in its place, or one may not write there.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"cannot write into {path}: it is a file; give a folder")
    check_writable(path.absolute() / "file", DataError)


def check_writable(path: Path, kind: type[E]) -> None:
    """Make sure that something new can be put at a path, by trying it in the nearest folder that is there.

    Args:
        path: absolute.
        kind: of the error.

    Raises:
        DiffGRMError: of that kind; it cannot.
    """
    above = next(parent for parent in path.parents if os.path.lexists(parent))
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=above):
            pass
    except OSError as error:
        why = f"{above} is no folder" if not above.is_dir() else str(error.strerror or error)
        raise kind(f"cannot write {path}: {why}; choose another place") from error
