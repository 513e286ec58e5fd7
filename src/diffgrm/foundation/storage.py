"""Small, safe storage: arrays in safetensors files, tables, atomic writes, hashes, the cache folder."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diffgrm.foundation import forks
from diffgrm.foundation.schema import DataError, ModelFolderError, OutputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What a fitted part has learnt: named arrays, of finite numbers, and JSON-able facts. Both are restored exactly."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write one safetensors file; the facts travel in its header.

        Raises:
            DataError: arrays with NaN or infinity; nothing is written.
        """
        if wrong := self._not_finite():
            raise DataError(
                f"{path.name} is not saved: {wrong} should hold finite numbers, and some are NaN or infinite; arrays of a "
                "state have to be finite: keep a number in place of those, such as the least that counts"
            )
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        with usual_mode(path):
            save_file(arrays, path, metadata={"facts": json.dumps(self.facts)})

    @classmethod
    def load(cls, path: Path) -> State:
        """Read what :meth:`save` wrote.

        Raises:
            ModelFolderError: missing, truncated or foreign file, or numbers that are not finite.
        """
        try:
            with safe_open(regular(path), framework="numpy") as file:
                facts = json.loads((file.metadata() or {}).get("facts", "{}"))
                if not isinstance(facts, dict):
                    raise ValueError(f"its facts are {type(facts).__name__}, expected a mapping")
                found = cls({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
        except ModelFolderError:
            raise
        except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
            wrong = refusal(error) or f"is damaged or not a safetensors file: {error}"
            raise ModelFolderError(f"the file {path} {wrong}") from error
        if wrong := found._not_finite():
            raise ModelFolderError(
                f"the file {path} cannot be used: {wrong} should hold finite numbers, and some are NaN or infinite; fit "
                "and save the model again"
            )
        return found

    def _not_finite(self) -> str:
        """Names of arrays with NaN or infinity."""
        kept = sorted(self.arrays.items())
        return ", ".join(name for name, array in kept if array.dtype.kind == "f" and not np.isfinite(array).all())


def is_there(path: Path) -> bool:
    """Whether there is something at a path, links followed; False of names that no file can have, too."""
    return os.path.lexists(path) and path.exists()  # for the first of which no name is too long


def regular(path: Path, most: int | None = None) -> Path:
    """The path itself, where a file stands; a pipe would be waited for, and a device has no end.

    Args:
        most: bytes that it may have.

    Raises:
        ModelFolderError: nothing is there, no file, or a larger one.
    """
    if not (is_there(path) and path.is_file()):
        raise ModelFolderError(f"{path} is no file" if is_there(path) else f"the file {path} is missing")
    if most is not None and (size := path.stat().st_size) > most:
        raise ModelFolderError(f"{path} has {size:,} bytes; expected at most {most:,}")
    return path


def refusal(error: Exception) -> str | None:
    """What to say where the system did not give a file, of whose content nothing is known then; None: the content is wrong.

    >>> refusal(OSError(24, "Too many open files"))
    'cannot be read: [Errno 24] Too many open files; raise the limit of open files (ulimit -n)'
    """
    told = getattr(error, "errno", None) is not None or "(os error " in str(error)  # the latter of libraries in Rust
    if not told or isinstance(error, FileNotFoundError):
        return None
    remedy = "; raise the limit of open files (ulimit -n)" if "Too many open files" in str(error) else ""
    return f"cannot be read: {error}{remedy}"


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """A file that the block writes gets the rights that every new file gets (the umask), whoever writes it.

    Raises:
        OSError: safetensors could not write it.
    """
    path.touch()
    mode = path.stat().st_mode & 0o777
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error
    path.chmod(mode)


def read_parquet(path: Path) -> pl.DataFrame:
    """A parquet file of this very name: ``[``, ``?``, ``*`` and ``~`` mean themselves.

    Raises:
        DataError: missing, damaged, or not to be read. DiffGRMError: see :func:`diffgrm.foundation.forks.check`.
    """
    forks.check()
    try:
        with path.open("rb") as file:
            return pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        wrong = refusal(error) or f"is not a parquet file that can be read: {error}"
        raise DataError(f"{path} {wrong}") from error


def write_parquet(table: pl.DataFrame, path: Path, group: int | None = None, compressed: bool = True) -> None:
    """Write a parquet file of this very name; see :func:`read_parquet`.

    Args:
        group: rows of a row group; None: polars chooses.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()  # of a file, polars does not always tell what the disk says
    table.write_parquet(content, row_group_size=group, compression="zstd" if compressed else "uncompressed")
    path.write_bytes(content.getbuffer())


def cache_folder() -> Path | None:
    """``$DIFFGRM_CACHE``, else ``$XDG_CACHE_HOME/diffgrm``, else ``~/.cache/diffgrm``; None where there is no home."""
    if chosen := os.environ.get("DIFFGRM_CACHE"):
        return Path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "diffgrm"
    try:
        return Path.home() / ".cache" / "diffgrm"
    except RuntimeError:  # neither HOME nor an entry of this user
        logger.warning("This user has no home folder, so nothing is cached; name a folder in DIFFGRM_CACHE to cache there.")
        return None


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends well, and vanishes when it does not.

    Raises:
        OutputError: it could not be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")  # nobody else's, in this process either
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}; what was there before is whole. Make room, or choose "
            "another place"
        ) from error


def flush_folder(folder: Path) -> None:
    """Wait until the files of a folder are on the disk and, where the system can be asked for it, their names too.

    Raises:
        OSError: the disk refuses them.
    """
    for path in folder.iterdir():
        with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:  # Windows flushes what is open for writing
            os.fsync(file.fileno())
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and keeps the names of files by itself
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def note_use(path: Path) -> None:
    """Let the time of a cached file or folder say that it has been used now, where one may."""
    with suppress(OSError):
        os.utime(path)


def cached(folder: Path | None, name: str, what: str, make: Callable[[], State]) -> State:
    """The state that a file of a cache keeps, else one made now and kept there.

    A damaged file is made again; a cache that cannot be written costs a warning only.

    Args:
        folder: of the cache; None is that of the user for ``what``, if there is any.
        name: of the file.
        what: its name in messages, such as ``"embeddings"``.
    """
    if folder is None:
        home = cache_folder()
        if home is None:
            return make()
        folder = home / what.lower().replace(" ", "_")
    path = folder / name
    if path.is_file():
        try:
            found = State.load(path)
        except ModelFolderError:
            logger.warning("The cached %s %s are damaged; making them again.", what, path)
        else:
            note_use(path)
            logger.info("The %s come from the cache: %s", what, path)
            return found
    made = make()
    try:
        with atomic_file(path) as temporary:
            made.save(temporary)
    except (OSError, DataError) as error:
        logger.warning("The %s could not be cached in %s: %s", what, path.parent, error)
    return made


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def content_digest(path: Path) -> str | None:
    """Hex digest of a file, or of the names and bytes of all files of a folder; None where there is neither.

    What has been read is remembered by its time and size.
    """
    if not os.path.lexists(path):  # for which no name is too long
        return None
    if path.is_file():
        found = path.stat()
        return _remembered_digest(path.resolve(), found.st_mtime_ns, found.st_size)
    if not path.is_dir():
        return None
    files = sorted(inner for inner in path.rglob("*") if inner.is_file())
    return digest([(inner.relative_to(path).as_posix(), content_digest(inner)) for inner in files])


@lru_cache(maxsize=1024)
def _remembered_digest(path: Path, time: int, size: int) -> str:
    return file_digest(path)


def code_digests(kind: type, *more: Path) -> list[str] | None:
    """Digests of the files that hold a class and all that it inherits from (but Python's own), and of more files.

    Returns:
        One hex digest a file, in an order that does not depend on where the files lie; None where a class has no file to
        read, such as one typed into a notebook.
    """
    own = [base for base in kind.__mro__ if base.__module__.split(".")[0] not in sys.stdlib_module_names]
    try:
        files = [Path(inspect.getfile(base)) for base in own]
        return sorted(file_digest(path) for path in {*files, *more})
    except (TypeError, OSError):  # what inspect says of a class without a file
        return None


def digest(facts: list[Any]) -> str:
    """A hash of facts that ``repr`` tells apart, and of arrays."""
    found = hashlib.sha256()
    for fact in facts:
        if isinstance(fact, np.ndarray):
            found.update(f"{fact.dtype}{fact.shape}".encode())
            # No copy of the bytes: they may be more than memory holds.
            found.update(np.ascontiguousarray(fact).reshape(-1).view(np.uint8).data)
        else:
            found.update(repr(fact).encode() + b"\0")
    return found.hexdigest()
