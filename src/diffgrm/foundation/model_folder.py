"""Model folders: written whole or not at all, checked on reading.

A folder is made beside its final place under another name and takes the place in one rename, so a full disk or a kill
leaves the old model as it was. A link to a folder stays: what it leads to is replaced.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from filelock import Timeout
from safetensors import SafetensorError

from diffgrm.foundation import manifest, registry
from diffgrm.foundation.manifest import DOCUMENTS as DOCUMENTS  # named here for those who write and read
from diffgrm.foundation.manifest import EXPORT as EXPORT
from diffgrm.foundation.manifest import MANIFEST as MANIFEST
from diffgrm.foundation.manifest import MODEL, WHAT
from diffgrm.foundation.manifest import fingerprint as fingerprint
from diffgrm.foundation.manifest import version as version
from diffgrm.foundation.outputs import SHARING, acquired, check_writable, told
from diffgrm.foundation.registry import Trust
from diffgrm.foundation.schema import DataError, DiffGRMError, ModelFolderError, RecipeError, TokenizerError, first_few
from diffgrm.foundation.storage import is_there

logger = logging.getLogger(__name__)
T = TypeVar("T")

TRIES = 3  # times that a folder is read or changed which others replace meanwhile, before they are made to wait
STRANGE = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError, RuntimeError),
    *(pl.exceptions.PolarsError, SafetensorError),
)


def place(folder: Path) -> Path:
    """Where a folder lies, links followed; it need not be there.

    Raises:
        ModelFolderError: links that lead in a circle, or a name with a NUL.
    """
    try:
        return folder.resolve()
    except ValueError as error:
        raise ModelFolderError(f"{str(folder)!r} is no path: {error}; choose another name") from error
    except (OSError, RuntimeError) as error:
        raise ModelFolderError(f"the links of {folder} lead nowhere: {error}") from error


@contextmanager
def writing(folder: Path, facts: dict[str, Any], kind: str = MODEL) -> Iterator[Path]:
    """A new, empty folder to write into; when the block ends well, it replaces ``folder``.

    Args:
        facts: kept in the manifest (format and files are added).
        kind: format of the folder, and of one that may be replaced.

    Raises:
        ModelFolderError: see :func:`check_target`; or writing failed. In every case what was there before stays whole.
    """
    folder = place(folder)
    check_target(folder, kind)  # before anything is made beside it
    with locked(folder):
        check_target(folder, kind)  # again, for others may have been before
        yield from _write(folder, kind, facts)


def _write(folder: Path, kind: str, facts: dict[str, Any]) -> Iterator[Path]:
    new, old = _sibling(folder, "new"), _sibling(folder, "old")
    try:
        for left_over in (old, new):  # from a process that was killed; the old one first, see recover
            if left_over.exists():
                shutil.rmtree(left_over)
        new.mkdir(parents=True)
        yield new
        manifest.write(new, kind, facts)
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ModelFolderError(
            f"the model could not be saved to {folder} ({error}); what was there before is untouched"
        ) from error
    finally:
        recover(folder)
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the right to change a model folder; others that want it wait (the same thread may ask again). Readers need none.

    Raises:
        ModelFolderError: another process held it for a minute, or one may not write beside the folder.
    """
    folder = place(folder)
    try:
        lock = acquired(_sibling(folder, "lock"), timeout=60, is_singleton=True)
    except Timeout as error:
        raise ModelFolderError(f"another process has been changing {folder} for a minute; try again later") from error
    except OSError as error:
        raise ModelFolderError(f"{folder} cannot be changed: {told(error)}") from error
    try:
        yield
    finally:
        lock.release()


def change(
    folder: Path,
    make: Callable[[], T],
    save: Callable[[T], object],
    hold: Callable[[Path], AbstractContextManager[None]] = locked,
) -> T:
    """Put something in a folder's place that is made of what lies there; others may read and change it meanwhile.

    Only ``save`` holds the right to change the folder. Where others have changed it since ``make`` began, it is made again
    of theirs, so that no change is lost; they wait if that happens time after time.

    Args:
        make: reads the folder, and may take long.
        save: takes what was made, and saves it there.
        hold: how the right is held, see :func:`locked`.

    Raises:
        ModelFolderError: see :func:`locked` and :func:`check_target`.
    """
    for _ in range(TRIES):
        with hold(folder):  # whoever may not write here is told before the work
            check_target(folder)
            before = version(folder)
        made = make()
        with hold(folder):
            if version(folder) == before:
                save(made)
                return made
        logger.info("%s was changed meanwhile; changing what it holds now", folder)
    with hold(folder):
        made = make()
        save(made)
        return made


def check_target(folder: Path, kind: str = MODEL) -> None:
    """Make sure that a model may be saved here; worth doing before a long fit. Folders above it are made when it is saved.

    Raises:
        ModelFolderError: ``folder`` is a file, a mount, the current folder or one around that; it holds something that is
            not of this kind, or more than that; it lies in another model's folder; or one may not write there or beside it.
    """
    folder = place(folder)
    if (found := manifest.around(folder)) is not None:
        raise ModelFolderError(
            f"{folder} lies in {found[0]}, which is {WHAT[found[1]]}: whatever is saved there next would remove it; "
            "choose a folder outside of that one"
        )
    if _is_around_us(folder):
        raise ModelFolderError(
            f"{folder} is the current folder or holds it, and a save replaces the whole folder; name another one, or do it "
            "from elsewhere"
        )
    if os.path.ismount(folder):
        raise ModelFolderError(f"{folder} is where a disk is mounted, which cannot be replaced; give a folder in it")
    check_writable(folder, ModelFolderError)
    recover(folder)
    if folder.exists() and not folder.is_dir():
        raise ModelFolderError(f"{folder} is a file; give a folder to save the model in")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ModelFolderError(f"{folder} cannot be replaced: one may not read and write there{SHARING}")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            content = manifest.read(folder, kind)
        except ModelFolderError as error:
            raise ModelFolderError(
                f"{folder} holds files that are not {WHAT[kind]}; choose a new or empty folder ({error})"
            ) from error
        if strange := manifest.strange_files(folder, content):
            raise ModelFolderError(
                f"{folder} holds more than {WHAT[kind]}: {first_few(strange)}. A save replaces the whole folder; move "
                "what is not the model's elsewhere, or save to another folder"
            )


def _is_around_us(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except OSError:  # the current folder is deleted
        return False


def recover(folder: Path) -> None:
    """Put the old model back where a save was killed between its two renames.

    Only such a save leaves an old model and a new one and neither in its place. Where the old one lies alone, a save was
    killed after both, and who deleted the folder since does not want it back.
    """
    folder = place(folder)
    old, new = _sibling(folder, "old"), _sibling(folder, "new")

    def torn() -> bool:
        return is_there(old) and old.is_dir() and is_there(new) and new.is_dir() and not folder.exists()

    if torn():
        with locked(folder):  # a save that is alive ends first
            if torn():
                old.replace(folder)


def read(folder: Path, take: Callable[[dict[str, Any]], T], kind: str = MODEL, trust_code: Trust = False) -> T:
    """What ``take`` makes of a folder's manifest and files, all from one save even where others replace the folder.

    Args:
        trust_code: whether code may run that the folder names and diffgrm does not have; or the names of what may.

    Raises:
        ModelFolderError: see :func:`check`; code that is not trusted; or files that do not hold what they should.
    """
    for _ in range(TRIES):
        before = version(folder)
        try:
            taken = _taken(folder, take, kind, trust_code)
        except (DiffGRMError, OSError):
            if version(folder) == before:
                raise
        else:
            if version(folder) == before:
                return taken
        logger.info("%s was replaced while it was read; reading it again", folder)
    with locked(folder):  # those who replace it all the time wait now
        return _taken(folder, take, kind, trust_code)


def _taken(folder: Path, take: Callable[[dict[str, Any]], T], kind: str, trust_code: Trust) -> T:
    with registry.guarded(trust_code) as refused:
        try:
            return take(read_manifest(folder, kind))
        except DataError:  # of arguments that do not fit the model
            raise
        except ModelFolderError as error:
            if str(folder) in str(error):
                raise
            raise ModelFolderError(f"{folder}: {error}") from error
        except (OSError, RecipeError, TokenizerError, MemoryError, RecursionError, *STRANGE) as error:
            if refused:
                raise ModelFolderError(
                    f"{folder} names code that is not diffgrm's own: {', '.join(dict.fromkeys(refused))}. To load it is to "
                    "run that code; if you trust who made the folder, load it with trust_code=True (--trust-code)"
                ) from None
            if isinstance(error, DiffGRMError):
                raise ModelFolderError(f"{folder} does not hold a model that can be used: {error}") from error
            raise ModelFolderError(f"{folder} does not hold what it should: {error!r}; copy or save it again") from error


def read_manifest(folder: Path, kind: str = MODEL) -> dict[str, Any]:
    """Check a model folder and return its manifest; see :func:`diffgrm.foundation.manifest.check`.

    Raises:
        ModelFolderError: no such folder, or not a whole one.
    """
    recover(folder)
    if not (is_there(folder) and folder.is_dir()):
        raise ModelFolderError(f"there is no model folder {folder}")
    return manifest.check(folder, kind)


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.parent / f".{folder.name}.{suffix}"
