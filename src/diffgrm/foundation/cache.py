"""What lies in the user's cache folder, and taking it out again while others use it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

DAY = 86_400.0  # seconds
IN_USE = 60.0  # seconds since its last use for which an entry is taken to be in use
NAMES = {  # of entries, by kind, which is the name of their folder; nothing else is touched
    "embeddings": re.compile(r"[0-9a-f]{64}\.safetensors"),
    "semantic_ids": re.compile(r"[0-9a-f]{64}\.safetensors"),
    "events": re.compile(r"[0-9a-f]{32}"),
}
LEFT_OVER = re.compile(r"\.[0-9a-f]{32,64}(\.safetensors)?\.[0-9a-f]+\.tmp")  # by a process that was killed, or is at work


@dataclass(frozen=True)
class Entry:
    """One thing of the cache.

    Attributes:
        kind: one of ``NAMES``.
        path: a file, or a folder of coded events.
        size: bytes.
        used: when it was made or last read, in seconds since 1970.
        whole: whether it is none that is being written, or was when a process was killed.
    """

    kind: str
    path: Path
    size: int
    used: float
    whole: bool

    def idle(self, now: float) -> float:
        """Seconds for which nobody has used it."""
        return max(0.0, now - self.used)

    def is_free(self, now: float) -> bool:
        """Whether it can be taken out: not in use, and not being written as far as its files tell."""
        return self.idle(now) >= (IN_USE if self.whole else DAY)


def entries(home: Path) -> Iterator[Entry]:
    """All entries of a cache folder, by kind, the longest idle first; what others take out meanwhile is left out."""
    for kind, name in NAMES.items():
        found = []
        folder = home / kind
        for path in folder.iterdir() if folder.is_dir() else ():
            whole = name.fullmatch(path.name) is not None
            if whole or LEFT_OVER.fullmatch(path.name):
                try:
                    found.append(_entry(kind, path, whole))
                except OSError:
                    continue
        yield from sorted(found, key=lambda entry: entry.used)


def _entry(kind: str, path: Path, whole: bool) -> Entry:
    stats = [path.lstat(), *(inner.lstat() for inner in (path.iterdir() if path.is_dir() else ()))]
    size = sum(stat.st_size for stat in stats[1:]) if len(stats) > 1 else stats[0].st_size
    return Entry(kind, path, size, max(stat.st_mtime for stat in stats), whole)


def remove(entry: Entry) -> None:
    """Take an entry out at once: whoever looks for it finds it whole or not at all, and makes it anew.

    Raises:
        OSError: one may not, or a process holds it open where the system forbids it then (Windows).
    """
    try:
        if not entry.path.is_dir() or entry.path.is_symlink():
            entry.path.unlink(missing_ok=True)
            return
        aside = entry.path.with_name(f".{entry.path.name.strip('.').split('.')[0]}.{uuid4().hex[:8]}.tmp")
        entry.path.rename(aside)
    except FileNotFoundError:  # another process was quicker
        return
    shutil.rmtree(aside)


def downloads_size(home: Path) -> int:
    """Bytes of public datasets, which are not among the entries: to fetch them again takes their publishers."""
    return sum(path.lstat().st_size for path in (home / "datasets").rglob("*") if path.is_file())
