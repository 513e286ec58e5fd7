"""Places to write to, checked before the work whose result they are for."""

from __future__ import annotations

import errno
import glob
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from diffgrm.foundation import manifest
from diffgrm.foundation.schema import DataError, DiffGRMError, first_few
from diffgrm.foundation.storage import is_there

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=DiffGRMError)

WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # network disks whose server gives none
SHARING = "; users who share a folder have to let each other write (umask 002, and chmod -R g+w of what is there)"


def check_file(path: Path) -> None:
    """Make sure that a file may be written here, over one that is there; its folder must be there.

    Raises:
        DataError: a folder stands there, its parent is none or a model's, or one may not write there.
    """
    if is_there(path) and path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder; name a file in it")
    if is_there(path) and not path.is_file():
        raise DataError(f"cannot write {path}: it is no file; choose another name")
    folder = path.absolute().parent
    if not (is_there(folder) and folder.is_dir()):
        raise DataError(f"cannot write {path}: there is no folder {folder}; make it first")
    _check_outside(path)
    check_writable(path.absolute(), DataError)


def check_folder(path: Path) -> None:
    """Make sure that files may be written into this folder, which is made if it is not there, parents too.

    Raises:
        DataError: a file stands in its place, it is or lies in the folder of a model, or one may not write there.
    """
    if is_there(path) and not path.is_dir():
        raise DataError(f"cannot write into {path}: it is a file; give a folder")
    _check_outside(path / "file")
    check_writable(path.absolute() / "file", DataError)


def check_own_folder(path: Path, what: str, ours: Iterable[str]) -> None:
    """The same of a folder for one thing only: it is new, empty, or that thing was begun there.

    Args:
        what: the thing, for messages.
        ours: patterns of what lies in such a folder; one of them fits.

    Raises:
        DataError: see :func:`check_folder`; or it holds other files, which are named.
    """
    check_folder(path)
    there = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if there and not any(next(path.glob(pattern), None) for pattern in ours):
        raise DataError(f"{path} holds files that are not of {what}: {first_few(there)}; choose a new or empty folder")


def acquired(path: Path, **options: Any) -> FileLock:
    """A lock that is held: a file which whoever may write to its folder may lock, made with the folder.

    Args:
        options: of the lock.

    Raises:
        Timeout: others hold it. OSError: one may not write there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, mode=0o600 | path.parent.stat().st_mode & 0o066, **options)
    lock.acquire()
    return lock


def told(error: OSError) -> str:
    """Why a lock could not be had, and the mend where others' rights are the reason."""
    return f"{error}{SHARING if isinstance(error, PermissionError) else ''}"


@contextmanager
def held_folder(path: Path, lock: str, what: str) -> Iterator[None]:
    """A folder, made if need be, in which nobody else does the same work meanwhile; a disk without locks is warned of.

    Args:
        lock: the file in it that is locked; what: the work, for messages.

    Raises:
        DataError: somebody else is at work there, or one may not write there.
    """
    held = None
    try:
        held = acquired(path / lock, timeout=0)
    except Timeout as error:
        raise DataError(f"another {what} is at work in {path}; wait for it, or name another folder") from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
            raise DataError(f"nothing can be written in {path}: {told(error)}") from error
        logger.warning("The disk of %s has no locks (%s): see to it that no other %s is at work there", path, error, what)
    try:
        yield
    finally:
        if held is not None:
            held.release()


def check_unread(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Make sure that nothing is written over what is read, and no two things to one place.

    Args:
        outputs: files; inputs: files, folders of files, and patterns of files. None stands for nothing in both.

    Raises:
        DataError: an output is an input or lies in one, by whatever name or link; or two outputs are one file.
    """
    written, read = [path for path in outputs if path is not None], [path for path in inputs if path is not None]
    for number, path in enumerate(written):
        if any(_is(path, other) for other in written[:number]):
            raise DataError(f"cannot write two things to {path}; give each a name of its own")
        for source in read:
            if any(_is(path, place) for place in _places(source)):
                raise DataError(f"cannot write {path}: it is read too ({source}), and would be lost; choose another name")
            if is_there(source) and source.is_dir() and _real(path).is_relative_to(_real(source)):
                raise DataError(f"cannot write {path}: it would be a part of {source}, which is read; choose another place")


def _places(source: Path) -> list[Path]:
    """The path itself, if something is there; else, as a pattern, what it fits."""
    if is_there(source) or not glob.has_magic(str(source)):
        return [source]
    root = next(parent for parent in source.parents if not glob.has_magic(str(parent)))
    return list(root.glob(str(source.relative_to(root))))


def _is(path: Path, other: Path) -> bool:
    """Whether two paths lead to one place, where there need not be anything yet."""
    return path.samefile(other) if is_there(path) and is_there(other) else _real(path) == _real(other)


def _real(path: Path) -> Path:
    """The place that a path leads to, where there need not be anything; links that lead in a circle stay as they are.

    Raises:
        DataError: a NUL in it, which no path holds.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise DataError(f"{str(path)!r} is no path: {error}; choose another name") from error


def _check_outside(path: Path) -> None:
    """Refuse a place in the folder of a model: the next save there would stop at what it did not write."""
    if (found := manifest.around(_real(path))) is not None:
        what = manifest.WHAT[found[1]]
        raise DataError(f"cannot write {path}: {found[0]} is {what}, and holds nothing else; choose a place outside of it")


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
        longest = max(path.relative_to(above).parts, key=len)  # of the names that are to be made
        with tempfile.TemporaryDirectory(prefix=f".{longest}.", dir=above):
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = f"{above} is no folder" if not above.is_dir() else str(getattr(error, "strerror", None) or error)
        raise kind(f"cannot write {path}: {why}; choose another place") from error
