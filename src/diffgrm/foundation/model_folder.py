"""Model folders: written whole or not at all, checked on reading.

A folder is made beside its final place under another name and takes the place in one rename, so a full disk or a kill
leaves the old model as it was. ``manifest.json`` lists every file with its size and SHA-256.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from filelock import FileLock, Timeout

from diffgrm.foundation.schema import DiffGRMError, ModelFolderError
from diffgrm.foundation.storage import file_digest

logger = logging.getLogger(__name__)
T = TypeVar("T")

MANIFEST = "manifest.json"
MODEL, EXPORT = "diffgrm-model", "diffgrm-onnx"  # formats
FORMAT_VERSION = 3  # 3: item scoring is a part of its own
OLDEST_READ = {MODEL: 2, EXPORT: 3}  # 2: positions as strong as items, item vectors of several branches
WHAT = {MODEL: "a diffgrm model", EXPORT: "an ONNX export of diffgrm"}
READER = {MODEL: "diffgrm.load", EXPORT: "diffgrm.load_onnx"}
READS = 3  # times that a folder is read which others replace meanwhile, before they are made to wait


@contextmanager
def writing(folder: Path, facts: dict[str, Any], kind: str = MODEL) -> Iterator[Path]:
    """A new, empty folder to write into; when the block ends well, it replaces ``folder``.

    Args:
        facts: kept in the manifest (format and files are added).
        kind: format of the folder, and of one that may be replaced.

    Raises:
        ModelFolderError: ``folder`` is a file or holds something that is not of this kind; or writing failed. In every case
            what was there before stays whole.
    """
    folder = folder.absolute()
    new, old = _sibling(folder, "new"), _sibling(folder, "old")
    with locked(folder):
        check_target(folder, kind)
        yield from _write(folder, new, old, {"format": kind, "format_version": FORMAT_VERSION, **facts})


def _write(folder: Path, new: Path, old: Path, facts: dict[str, Any]) -> Iterator[Path]:
    try:
        shutil.rmtree(new, ignore_errors=True)  # left over from a process that was killed
        new.mkdir(parents=True)
        yield new
        _write_manifest(new, facts)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # left over from a save that was killed at its very end
            folder.replace(old)
        new.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        recover(folder)
        raise ModelFolderError(
            f"the model could not be saved to {folder} ({error}); what was there before is untouched"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the right to change a model folder; others that want it wait (the same thread may ask again). Readers need none.

    Raises:
        ModelFolderError: another process held it for a minute.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(_sibling(folder, "lock"), timeout=60, is_singleton=True).acquire()
    except Timeout as error:
        raise ModelFolderError(f"another process has been changing {folder} for a minute; try again later") from error
    with lock:
        yield


def check_target(folder: Path, kind: str = MODEL) -> None:
    """Make sure that a model may be saved here; worth doing before a long fit.

    Raises:
        ModelFolderError: ``folder`` is a file or holds something that is not of this kind.
    """
    recover(folder)
    if folder.exists() and not folder.is_dir():
        raise ModelFolderError(f"{folder} is a file; give a folder to save the model in")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            _manifest_of(folder, kind)
        except ModelFolderError as error:
            raise ModelFolderError(
                f"{folder} holds files that are not {WHAT[kind]}; choose a new or empty folder ({error})"
            ) from error


def recover(folder: Path) -> None:
    """Put the old model back where a save was killed between its two renames."""
    folder = folder.absolute()
    old = _sibling(folder, "old")
    if old.is_dir() and not folder.exists():
        with locked(folder):  # a save that is alive ends first
            if old.is_dir() and not folder.exists():
                old.replace(folder)


def version(folder: Path) -> tuple[int, ...] | None:
    """What differs between two saves to one folder; None where there is no model."""
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def read(folder: Path, take: Callable[[dict[str, Any]], T], kind: str = MODEL) -> T:
    """What ``take`` makes of a folder's manifest and files, all from one save even where others replace the folder.

    Raises:
        ModelFolderError: see :func:`read_manifest`; and whatever ``take`` raises of a folder that is not being replaced.
    """
    for _ in range(READS):
        before = version(folder)
        try:
            taken = take(read_manifest(folder, kind))
        except (DiffGRMError, OSError, pl.exceptions.PolarsError):
            if version(folder) == before:
                raise
        else:
            if version(folder) == before:
                return taken
        logger.info("%s was replaced while it was read; reading it again", folder)
    with locked(folder):  # those who replace it all the time wait now
        return take(read_manifest(folder, kind))


def read_manifest(folder: Path, kind: str = MODEL) -> dict[str, Any]:
    """Check a model folder and return its manifest.

    Files that the manifest does not name (a hub's own files, say) are no concern.

    Raises:
        ModelFolderError: no such folder, not of this kind or version, or files that are missing, truncated or changed.
    """
    recover(folder)
    if not folder.is_dir():
        raise ModelFolderError(f"there is no model folder {folder}")
    manifest = _manifest_of(folder, kind)
    if manifest["format_version"] > FORMAT_VERSION:
        raise ModelFolderError(
            f"{folder} was saved by a newer diffgrm (format {manifest['format_version']}, this one reads "
            f"{FORMAT_VERSION}); upgrade with: pip install -U diffgrm"
        )
    if manifest["format_version"] < OLDEST_READ[kind]:
        mend = "whose networks compute otherwise; fit and save it again" if kind == MODEL else "export the model again"
        raise ModelFolderError(
            f"{folder} was saved by an older diffgrm (format {manifest['format_version']}, this one reads "
            f"{FORMAT_VERSION} and back to {OLDEST_READ[kind]}), {mend}"
        )
    problems = []
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != wanted["bytes"]:
            problems.append(f"{name} has {path.stat().st_size} bytes, expected {wanted['bytes']} (truncated?)")
        elif file_digest(path) != wanted["sha256"]:
            problems.append(f"{name} is not the file that was saved (its SHA-256 differs)")
    if problems:
        raise ModelFolderError(f"the model folder {folder} is not whole: {'; '.join(problems)}. Copy or save it again.")
    return manifest


def _manifest_of(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest, which has ``format_version`` and ``files``."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFolderError(f"{folder} is not {WHAT[kind]}: it has no {MANIFEST}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{folder / MANIFEST} is damaged: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(found, str) and found in WHAT and found != kind:
        raise ModelFolderError(f"{folder} is {WHAT[found]}, not {WHAT[kind]}; read it with {READER[found]}")
    if found != kind:
        raise ModelFolderError(f"{folder} is not {WHAT[kind]}: its {MANIFEST} is another program's")
    if not isinstance(manifest.get("format_version"), int) or not isinstance(manifest.get("files"), dict):
        raise ModelFolderError(f"{folder / MANIFEST} is damaged: format_version or files is missing")
    return manifest


def _write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.name != "README.md"  # the card is for people, who may edit it
    }
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=2) + "\n", encoding="utf-8")
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")
