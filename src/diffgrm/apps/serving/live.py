"""The recommender that answers, and how its catalogue changes under way; histories of known users."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from diffgrm.apps.serving.live_folder import LiveFolder, Version, titles_of
from diffgrm.data.dataset import Ragged
from diffgrm.data.histories import HistoryEvent
from diffgrm.data.ids import IdMap
from diffgrm.foundation import model_folder
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, ModelFolderError
from diffgrm.ranking.rules import Rules
from diffgrm.recommenders import Recommender, load

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot(Version[Recommender]):
    """One version of a recommender.

    Attributes:
        words: [I] titles and ids in small letters, to search in.
    """

    words: pl.Series


class LiveModel(LiveFolder[Snapshot]):
    """The newest good recommender of a folder, whose catalogue may be changed under way.

    Args:
        rules: of lists for which a request says none. A newer model that they do not fit is not taken over.

    Raises:
        DataError: rules that do not fit it; else see :class:`LiveFolder`.
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
        self.rules, self._changes = rules, threading.Lock()
        super().__init__(folder, overrides, device, precision, trust_code)

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

    def _load(self) -> Recommender:
        return load(self.folder, trust_code=self.trust_code)

    def _snapshot(self, saved: Recommender, name: str) -> Snapshot:
        recommender = saved.variant(self.overrides)
        recommender.item_rules(self.rules)
        table = saved.item_table
        titles = titles_of(table)
        anything = [
            HistoryEvent(item, time=0) for item in recommender.items.ids(np.flatnonzero(recommender.recommendable)[:1])
        ]
        recommender.recommend([anything], k=1, exclude_seen=False)  # makes the tables, so that no request waits for them
        words = pl.select(pl.concat_str(titles, saved.items.series.cast(pl.String), separator=" ").str.to_lowercase())
        return Snapshot(name, saved, recommender, titles, words.to_series())


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
