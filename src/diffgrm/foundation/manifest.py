"""``manifest.json`` of a model folder or an export: what it is, and every file with its size and SHA-256.

A folder may come from anybody: nothing but plain files inside it is read, and nothing larger than the manifest says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffgrm.foundation.schema import ModelFolderError
from diffgrm.foundation.storage import file_digest, flush_folder, is_there, regular

MANIFEST, CARD = "manifest.json", "README.md"
LEFT_BY_VIEWERS = (".DS_Store", "Thumbs.db", "desktop.ini")  # by whoever looks into a folder on macOS and Windows
MODEL, EXPORT, DOCUMENTS = "diffgrm-model", "diffgrm-onnx", "diffgrm-documents"  # formats
FORMAT_VERSION = 3  # 3: item scoring is a part of its own
OLDEST_READ = {MODEL: 2, EXPORT: 3, DOCUMENTS: 3}  # 2: positions as strong as items, item vectors of several branches
WHAT = {MODEL: "a diffgrm model", EXPORT: "an ONNX export of diffgrm", DOCUMENTS: "a document retriever of diffgrm"}
READER = {
    MODEL: "diffgrm.load",
    EXPORT: "diffgrm.load_onnx",
    DOCUMENTS: "diffgrm.DocumentRetriever.load, or 'diffgrm documents search' and 'serve'",
}
LONGEST = 2**24  # bytes of a manifest; one has some thousand


def version(folder: Path) -> tuple[int, ...] | None:
    """What differs between two saves to one folder; None where there is no model."""
    try:
        found = (folder / MANIFEST).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def fingerprint(folder: Path) -> str:
    """A short name of what a folder holds, equal for equal folders: its manifest names all files with their hashes.

    Raises:
        OSError: there is no manifest.
    """
    return file_digest(folder / MANIFEST)[:12]


def check(folder: Path, kind: str) -> dict[str, Any]:
    """Check a folder by its manifest, and return that: it has ``files`` and the mapping ``facts``.

    Files that the manifest does not name (a hub's own files, say) are no concern.

    Raises:
        ModelFolderError: not of this kind or version, or files that are missing, truncated, changed or none.
    """
    manifest = read(folder, kind)
    found = manifest["format_version"]
    if found > FORMAT_VERSION:
        raise ModelFolderError(
            f"{folder} was saved by a newer diffgrm (format {found}, this one reads {FORMAT_VERSION}); upgrade with: "
            "pip install -U diffgrm"
        )
    if found < OLDEST_READ[kind]:
        mend = "whose networks compute otherwise; fit and save it again" if kind == MODEL else "export the model again"
        raise ModelFolderError(
            f"{folder} was saved by an older diffgrm (format {found}, this one reads {FORMAT_VERSION} and back to "
            f"{OLDEST_READ[kind]}), {mend}"
        )
    problems = [problem for name, wanted in manifest["files"].items() if (problem := _problem(folder, name, wanted))]
    if problems:
        raise ModelFolderError(f"the model folder {folder} is not whole: {'; '.join(problems)}. Copy or save it again.")
    if not isinstance(manifest.get("facts"), dict):
        raise ModelFolderError(f"{folder / MANIFEST} is damaged: facts is missing")
    return manifest


def strange_files(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """What lies in a folder and was not written by the save that its manifest tells of; saves of all versions name files.

    Args:
        content: the manifest, as :func:`read` gives it.
    """
    ours = {*content["files"], MANIFEST, CARD, *LEFT_BY_VIEWERS}
    return sorted(path.name for path in folder.iterdir() if path.name not in ours or path.is_dir())


def around(place: Path) -> tuple[Path, str] | None:
    """The folder of ours that a path lies in, and its format; None: in none.

    Args:
        place: absolute, links followed; it need not be there.
    """
    return next(((folder, kind) for folder in place.parents if (kind := kind_of(folder)) is not None), None)


def kind_of(folder: Path) -> str | None:
    """The format of a folder of ours; None of any other folder, and of one that does not tell."""
    for kind in WHAT:
        with suppress(ModelFolderError, OSError):  # of folders, too, into which one may not look
            read(folder, kind)
            return kind
    return None


def _problem(folder: Path, name: str, wanted: Any) -> str | None:
    """What is wrong with a file that a manifest names."""
    if name in ("", ".", "..") or "\0" in name or {"/", "\\"} & set(name):
        return f"{name!r} is no name of a file in it"
    if not isinstance(wanted, dict) or not isinstance(wanted.get("bytes"), int) or "sha256" not in wanted:
        return f"of {name} no size and SHA-256 are told"
    path = folder / name
    if not (is_there(path) and path.is_file()):
        return f"{name} is no file" if is_there(path) else f"{name} is missing"
    if (size := path.stat().st_size) != wanted["bytes"]:
        return f"{name} has {size} bytes, expected {wanted['bytes']} (truncated?)"
    if file_digest(path) != wanted["sha256"]:
        return f"{name} is not the file that was saved (its SHA-256 differs)"
    return None


def read(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest, which has ``format_version`` and ``files``; those are not looked at.

    Raises:
        ModelFolderError: there is none, it is damaged, or it is of another kind.
    """
    path = folder / MANIFEST
    if not is_there(path):
        raise ModelFolderError(f"{folder} is not {WHAT[kind]}: it has no {MANIFEST}")
    try:
        manifest = json.loads(regular(path, LONGEST).read_text(encoding="utf-8"))
    except ModelFolderError:
        raise
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, numbers or nesting without end
        raise ModelFolderError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(found, str) and found in WHAT and found != kind:
        raise ModelFolderError(f"{folder} is {WHAT[found]}, not {WHAT[kind]}; read it with {READER[found]}")
    if found != kind:
        raise ModelFolderError(f"{folder} is not {WHAT[kind]}: its {MANIFEST} is another program's")
    if not isinstance(manifest.get("format_version"), int) or not isinstance(manifest.get("files"), dict):
        raise ModelFolderError(f"{path} is damaged: format_version or files is missing")
    return manifest


def write(folder: Path, kind: str, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder's files, and wait until all of them are on the disk."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.name != CARD  # it is for people, who may edit it
    }
    content = {"format": kind, "format_version": FORMAT_VERSION, **facts, "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    flush_folder(folder)
