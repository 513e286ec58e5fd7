"""The model that answers, and how it changes under way.

A request holds a :class:`Snapshot`, which never changes. A newer model in the folder, or a change of the catalogue, makes a
new one that later requests get; the old one goes when its last request is answered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from diffgrm.data.dataset import Ragged
from diffgrm.data.histories import HistoryEvent
from diffgrm.data.ids import IdMap
from diffgrm.foundation import model_folder
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DiffGRMError, ModelFolderError
from diffgrm.foundation.shown import visible
from diffgrm.ranking.rules import Rules
from diffgrm.recommenders import Recommender, load

logger = logging.getLogger(__name__)

WIDTHS = ("beam", "candidates")  # decoding settings of how far to search; a decoder has one of them, or none
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds between tries to read a model that cannot be used; each is twice the last
VARIANTS = 4  # widths of which a snapshot keeps what it made for them


@dataclass(frozen=True)
class Snapshot:
    """One version of a model.

    Attributes:
        version: short name, equal for equal model folders.
        saved: the model as it is in the folder.
        recommender: the same with the server's settings.
        titles: [I] of the items, the text where there is no title.
        words: [I] titles and ids in small letters, to search in.
    """

    version: str
    saved: Recommender
    recommender: Recommender
    titles: pl.Series
    words: pl.Series
    _variants: dict[str, Recommender] = field(default_factory=dict)

    def with_width(self, width: str | None) -> Recommender:
        """The recommender with another width of its search, an override such as ``decoding.beam=64``; None: its own."""
        if width is None:
            return self.recommender
        if width not in self._variants:
            if len(self._variants) >= VARIANTS:
                self._variants.pop(next(iter(self._variants)), None)
            self._variants[width] = self.recommender.variant([width])
        return self._variants[width]

    @property
    def widths(self) -> dict[str, int | None]:
        """The recommender's own value of each of ``WIDTHS``; None where its decoder has none."""
        recipe = self.recommender.recipe
        options = recipe.decoding.options if "decoding" in recipe.sections else {}
        return {name: options.get(name) for name in WIDTHS}


class LiveModel:
    """The newest good model of a folder.

    Args:
        folder: of the model.
        overrides: decoding settings of this server.
        device, precision: see :meth:`Recommender.to`; trust_code: see :meth:`Recommender.load`.
        rules: of lists for which a request says none. A newer model that they do not fit is not taken over.

    Raises:
        ModelFolderError: there is no whole model.
        RecipeError: overrides that do not fit it.
        DataError: rules that do not fit it.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str] = (),
        device: str = "auto",
        precision: Literal["32", "bf16"] = "32",
        trust_code: bool = False,
        rules: Rules | None = None,
    ) -> None:
        self.folder, self.overrides, self.device, self.precision = folder, list(overrides), device, precision
        self.trust_code, self.rules = trust_code, rules
        self.failed_reloads = 0
        self._failure = _Failure()
        self._lock, self._changes = threading.RLock(), threading.Lock()
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

    def change(self, change: Callable[[Recommender], Recommender]) -> Snapshot:
        """Change the model, save it, and answer with it from now on; until then, the current one answers.

        Raises:
            ModelFolderError: the folder holds another model than the one that answers; or see :meth:`Recommender.save`.
            DiffGRMError: see the change. In every case nothing has happened.
        """
        folder = model_folder.place(self.folder)  # a link may be turned to another model meanwhile

        def make() -> tuple[Recommender, Snapshot]:
            with self._lock:
                self.refresh()
                self._check_served(folder)
                served = self.current.saved
            changed = change(served)
            return changed, self._snapshot(changed, "")

        def save(made: tuple[Recommender, Snapshot]) -> None:
            self._check_served(folder)
            made[0].save(folder)
            self._seen = model_folder.version(folder)
            self.current = replace(made[1], version=model_folder.fingerprint(folder))
            logger.info("The catalogue changed; now serving model %s", self.current.version)

        with self._changes:  # one at a time, lest each makes the others begin again
            model_folder.change(folder, make, save, self._hold)
            return self.current

    def _check_served(self, folder: Path) -> None:
        """Make sure that a folder holds no model that could not be used, lest a change of the one that answers takes its
        place. One that others have put there just now is taken over by the next try.

        Raises:
            ModelFolderError: it does, or holds none, or no longer is the folder to serve.
        """
        if model_folder.place(self.folder) != folder:
            raise ModelFolderError(f"{self.folder} was turned to another model during the change; send it again")
        found = model_folder.version(folder)
        if found is None:
            raise ModelFolderError(f"{self.folder} holds no model any more; save the one to change there")
        if found != self._seen and self._failure.is_of(found):
            raise ModelFolderError(
                f"{self.folder} holds another model, which this server cannot use: {self._failure.why}. Save one there "
                "that it can use, or start it anew with settings that fit"
            )

    @contextmanager
    def _hold(self, folder: Path) -> Iterator[None]:
        """The right to change the folder and what answers."""
        with self._lock, model_folder.locked(folder):
            yield

    def _read(self) -> Snapshot:
        with self._lock:
            while True:
                seen = model_folder.version(self.folder)
                recommender, name = load(self.folder, trust_code=self.trust_code), model_folder.fingerprint(self.folder)
                if model_folder.version(self.folder) == seen:
                    break
            snapshot = self._snapshot(recommender.to(self.device, self.precision), name)
            self._seen = seen
            return snapshot

    def _snapshot(self, saved: Recommender, name: str) -> Snapshot:
        recommender = saved.variant(self.overrides)
        recommender.item_rules(self.rules)
        table = saved.item_table
        titles = _titles(table)
        anything = [
            HistoryEvent(item, time=0) for item in recommender.items.ids(np.flatnonzero(recommender.recommendable)[:1])
        ]
        recommender.recommend([anything], k=1, exclude_seen=False)  # makes the tables, so that no request waits for them
        words = pl.select(pl.concat_str(titles, saved.items.series.cast(pl.String), separator=" ").str.to_lowercase())
        return Snapshot(name, saved, recommender, titles, words.to_series())


def _titles(table: pl.DataFrame) -> pl.Series:
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


class UserHistories:
    """Histories of known users, from a table of events.

    Args:
        table: user_id, item_id in order of time; histories tell what it has besides: ``event``, the type of each,
            ``timestamp``, and columns of ``events.event_columns``.
    """

    def __init__(self, table: pl.DataFrame) -> None:
        users = table[Columns.USER].unique(maintain_order=True)
        self.ids = IdMap(users)
        user = self.ids.positions(table[Columns.USER])
        order = np.argsort(user, kind="stable")
        self._items = table[Columns.ITEM].gather(order)
        self._told = table.drop(Columns.USER, Columns.ITEM)[order]
        self._rows = Ragged(np.arange(len(order)), np.concatenate([[0], np.cumsum(np.bincount(user))]))

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, users: Sequence[Any], last: int, settings: EventSettings) -> list[list[Any] | None]:
        """The last items of each user, oldest first; None for unknown users.

        Args:
            settings: of the model that is asked, which may be told less than the one by which the table was read.
        """
        rows = self.ids.positions([str(user) for user in users])
        return [None if row < 0 else self._history(self._rows[row][-last:], settings) for row in rows]

    def _history(self, places: np.ndarray, settings: EventSettings) -> list[Any]:
        items = self._items.gather(places).to_list()
        known = {Columns.TIMESTAMP, *settings.event_columns, *([] if settings.event is None else [Columns.EVENT])}
        if not (told := known & set(self._told.columns)):
            return items
        rows = self._told[places].select(told).to_dicts()
        kinds, times = ([row.pop(name, None) for row in rows] for name in (Columns.EVENT, Columns.TIMESTAMP))
        return list(map(HistoryEvent, items, kinds, times, rows))
