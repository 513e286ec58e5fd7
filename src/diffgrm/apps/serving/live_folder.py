"""A model folder that is served: the newest good model in it, and how a newer one is taken over.

A request holds a :class:`Version`, which never changes. A newer model in the folder makes a new one that later requests
get; the old one goes when its last request is answered.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import polars as pl

from diffgrm.foundation import model_folder
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, DiffGRMError
from diffgrm.foundation.shown import visible

logger = logging.getLogger(__name__)

WIDTHS = ("beam", "candidates")  # decoding settings of how far to search; a decoder has one of them, or none
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds between tries to read a model that cannot be used; each is twice the last
VARIANTS = 4  # widths of which a version keeps what it made for them


class Served(Protocol):
    """A recommender, or a retriever of documents."""

    recipe: Recipe

    def variant(self, overrides: Iterable[str]) -> Self:
        """The same with other decoding settings."""
        ...


M = TypeVar("M", bound=Served)


@dataclass(frozen=True)
class Version(Generic[M]):
    """One version of a model.

    Attributes:
        version: short name, equal for equal model folders.
        saved: the model as it is in the folder.
        model: the same with the server's settings.
        titles: [I] of the items, the text where there is no title.
    """

    version: str
    saved: M
    model: M
    titles: pl.Series
    _variants: dict[str, M] = field(default_factory=dict, kw_only=True)

    def with_width(self, width: str | None) -> M:
        """The model with another width of its search, an override such as ``decoding.beam=64``; None: its own."""
        if width is None:
            return self.model
        if width not in self._variants:
            if len(self._variants) >= VARIANTS:
                self._variants.pop(next(iter(self._variants)), None)
            self._variants[width] = self.model.variant([width])
        return self._variants[width]

    @property
    def widths(self) -> dict[str, int | None]:
        """The model's own value of each of ``WIDTHS``; None where its decoder has none."""
        recipe = self.model.recipe
        options = recipe.decoding.options if "decoding" in recipe.sections else {}
        return {name: options.get(name) for name in WIDTHS}


V = TypeVar("V", bound=Version[Any])


class LiveFolder(ABC, Generic[V]):
    """The newest good model of a folder.

    Args:
        folder: of the model.
        overrides: decoding settings of this server.
        device, precision: see :meth:`Recommender.to`; trust_code: see :meth:`Recommender.load`.

    Raises:
        ModelFolderError: there is no whole model.
        RecipeError: overrides that do not fit it.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str] = (),
        device: str = "auto",
        precision: Literal["32", "bf16"] = "32",
        trust_code: bool = False,
    ) -> None:
        self.folder, self.overrides, self.device, self.precision = folder, list(overrides), device, precision
        self.trust_code = trust_code
        self.failed_reloads = 0
        self._failure = _Failure()
        self._lock = threading.RLock()
        self._seen = model_folder.version(folder)
        self.current = self._read()

    def refresh(self) -> bool:
        """Take the folder's model if it is another one; whatever is wrong with it, the current one then stays.

        A model that cannot be used is counted and told once. It is tried again, more and more seldom, for what was wrong
        may have been the disk or the memory.
        """
        with self._lock:
            seen = model_folder.version(self.folder)
            if seen == self._seen or seen is None or not self._failure.try_again(seen):
                return False
            try:
                self.current = self._read()
            except Exception as error:  # whatever it was: the current model answers on, and a fault of ours is logged whole
                if self._failure.happened(seen, str(error) or repr(error)):
                    self.failed_reloads += 1
                    trace = None if isinstance(error, DiffGRMError | OSError) else error
                    logger.error("The model in %s cannot be used; going on with %s: %s",
                                 self.folder, self.current.version, self._failure.why, exc_info=trace)  # fmt: skip
                return False
            logger.info("Now serving model %s", self.current.version)
            return True

    def _read(self) -> V:
        with self._lock:
            while True:
                seen = model_folder.version(self.folder)
                model, name = self._load(), model_folder.fingerprint(self.folder)
                if model_folder.version(self.folder) == seen:
                    break
            snapshot = self._snapshot(model.to(self.device, self.precision), name)
            self._seen = seen
            return snapshot

    @abstractmethod
    def _load(self) -> Any:
        """The model that is in the folder now."""

    @abstractmethod
    def _snapshot(self, saved: Any, name: str) -> V:
        """A version of this name, ready to answer."""


def titles_of(table: pl.DataFrame) -> pl.Series:
    """[I] titles of an item table, whatever values they are; the text where there is none."""
    if Columns.TITLE not in table.columns:
        return table[Columns.TEXT]
    title = table[Columns.TITLE]
    if title.dtype.is_nested() or title.dtype == pl.Binary:
        title = pl.Series([None if value is None else visible(value) for value in title.to_list()], dtype=pl.String)
    return pl.select(pl.coalesce(title.cast(pl.String), table[Columns.TEXT])).to_series()


class _Failure:
    """A version of the folder that could not be used, why, and when it is worth another try."""

    def __init__(self) -> None:
        self.why = ""
        self._version: tuple[int, ...] | None = None
        self._pause = self._next = 0.0

    def try_again(self, version: tuple[int, ...]) -> bool:
        """Whether a version is another one, or its time has come."""
        return version != self._version or time.monotonic() >= self._next

    def is_of(self, version: tuple[int, ...]) -> bool:
        """Whether it is this version that could not be used."""
        return version == self._version

    def happened(self, version: tuple[int, ...], why: str) -> bool:
        """Remember a failure; whether it is the version's first."""
        first, self.why = version != self._version, why
        self._version, self._pause = version, FIRST_PAUSE if first else min(2 * self._pause, LONGEST_PAUSE)
        self._next = time.monotonic() + self._pause
        return first
