"""What all public datasets share: the cache, filters, items without metadata, and files that only the user can fetch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.download import name_for
from diffgrm.data.marks import PLAIN
from diffgrm.data.tables import clean_text
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, DownloadError, first_few
from diffgrm.foundation.storage import atomic_file, cache_folder, file_digest, write_parquet

logger = logging.getLogger(__name__)

EVENT = [Columns.USER, Columns.ITEM, Columns.TIMESTAMP]
RATING = "rating"  # column of ratings, whatever their publisher calls it
SHOWN = 80  # characters of a text that stand in for a title


def downloads(cache: Path | None, publisher: str, base_url: str) -> Path:
    """The folder for what is downloaded from a server of a publisher.

    Args:
        cache: of all downloads; None is the user's.

    Raises:
        DownloadError: none is given, and the user has no home.
    """
    return _home(cache) / f"{publisher}-{name_for(base_url)}"


def given_file(path: str | Path | None, name: str, file: str, page: str) -> Path:
    """A file that its publisher gives only to those who log in or accept terms, from where the user has put it.

    Args:
        name: of the dataset on the command line.
        file: what it is called by its publisher.
        page: where it is to be had.

    Raises:
        DataError: none is given, or it is not there.
    """
    way = f"get {file} on {page} (its terms have to be accepted there), and name the file: {name}:FILE"
    if path is None or not str(path).strip():
        raise DataError(f"{name} cannot be downloaded without its publisher's consent; {way}")
    path = Path(path)
    with suppress(RuntimeError):  # nobody has the name behind ~
        path = path.expanduser()
    if not path.is_file():
        raise DataError(f"there is no file {path}; {way}")
    return path


def cached_near(cache: Path | None, publisher: str, given: Path) -> Path:
    """The folder for the tables that are made of a user's file."""
    return _home(cache) / f"{publisher}-{file_digest(given)[:8]}"


def _home(cache: Path | None) -> Path:
    if cache is None and (cache := cache_folder()) is not None:
        cache = cache / "datasets"
    if cache is None:
        raise DownloadError("there is no home folder to download to; name a folder in DIFFGRM_CACHE")
    return cache


def dataset_of(
    prefix: Path,
    name: str,
    core: int,
    events: Callable[[], pl.DataFrame],
    items: Callable[[pl.Series], pl.DataFrame],
    called: str = "item",
    more: Sequence[str] = (),
    settings: EventSettings = PLAIN,
    users: Callable[[], pl.DataFrame] | None = None,
) -> InteractionDataset:
    """A dataset from tables in the cache, else made and put there.

    Args:
        prefix: of the names of its two files.
        core: users and items with fewer events are dropped, until none is left with fewer, and then items without any;
            0: all are kept.
        events: makes ``user_id, item_id, timestamp`` and ``more``, in any order; events of one time stay as they stand.
        items: makes the item table; told which ids have events, it may leave out the others.
        called: what an item is, in the texts of those without metadata.
        more: columns of events that ``settings`` may name; a cached table without them, of an older version, is made anew.
        settings: which of the kept rows are events, and what is known of them.
        users: makes the table of users, where ``settings`` names columns of it; None: the publisher gives none.

    Raises:
        DataError: the filter leaves nothing, or settings that do not go with the columns.
    """
    if users is None:
        refuse_users(name, settings)
    paths = [prefix.with_name(f"{prefix.name}-{core}-core-{table}.parquet") for table in ("interactions", "items")]
    if not (all(path.is_file() for path in paths) and set(more) <= set(pl.read_parquet_schema(paths[0]))):
        kept = k_core(events().select(*EVENT, *more), core).sort(Columns.TIMESTAMP, maintain_order=True)
        if kept.is_empty():
            raise DataError(f"no user and item of {name} have {core} events each; take a smaller core, or 0 for all")
        wanted = kept[Columns.ITEM].unique(maintain_order=True)
        made = _complete(items(wanted), wanted, called)
        made = made.filter(pl.col(Columns.ITEM).is_in(wanted.implode())) if core else made
        for path, table in zip(paths, (kept, made), strict=True):
            with atomic_file(path) as temporary:
                write_parquet(table, temporary)
    people = users() if users is not None and settings.user_columns else None
    return InteractionDataset.from_tables(paths[0], paths[1], name=name, events=settings, profiles=people)


def refuse_users(name: str, settings: EventSettings) -> None:
    """Tell that a dataset has no table of users.

    Raises:
        DataError: columns of it are asked for.
    """
    if settings.user_columns:
        raise DataError(
            f"events.user_columns names {first_few(map(repr, settings.user_columns))}, but {name} has no table of users; "
            "leave it out, or give tables of your own (command line: --interactions, --items and --profiles)"
        )


def k_core(events: pl.DataFrame, core: int) -> pl.DataFrame:
    """Drop users and items with fewer than ``core`` events, again and again until none is left with fewer."""
    while True:
        kept = events.filter((pl.len().over(Columns.USER) >= core) & (pl.len().over(Columns.ITEM) >= core))
        if kept.height == events.height:
            return kept
        events = kept


def _complete(items: pl.DataFrame, wanted: pl.Series, called: str) -> pl.DataFrame:
    """An item table, the first row of each id, in which every wanted item has a title and a text."""
    items = items.unique(Columns.ITEM, keep="first", maintain_order=True)
    missing = wanted.filter(~wanted.is_in(items[Columns.ITEM].implode()))
    if len(missing):
        logger.warning("%d items with events have no metadata; their id stands in for their text", len(missing))
        items = pl.concat([items, missing.to_frame(Columns.ITEM)], how="diagonal")
    filled = {
        name: pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)) for name in (Columns.TITLE, Columns.TEXT)
    }
    text = pl.coalesce(filled[Columns.TEXT], filled[Columns.TITLE], pl.format(f"{called} {{}}", pl.col(Columns.ITEM)))
    return items.with_columns(
        pl.coalesce(filled[Columns.TITLE], text.str.slice(0, SHOWN)).alias(Columns.TITLE), text.alias(Columns.TEXT)
    )


def words(value: Any) -> list[str]:
    """The texts in a value that may be a text, a number, nothing, or lists of them however nested; without HTML.

    >>> words([["Beauty", "Bath &amp; Body"], None, 2.5, ""])
    ['Beauty', 'Bath & Body', '2.5']
    """
    if isinstance(value, list):
        return [word for inner in value for word in words(inner)]
    text = "" if value is None else clean_text(str(value))
    return [text] if text else []


def text_of(*values: Any) -> str:
    """One text of several values, those that say something: lists with commas between, then full stops.

    >>> text_of("Soap", 2.5, None, ["Beauty", "Bath"])
    'Soap. 2.5. Beauty, Bath'
    """
    return ". ".join(text for text in (", ".join(words(value)) for value in values) if text)


def distinct(values: Iterable[str]) -> list[str]:
    """Without repeats, each at its first place."""
    return list(dict.fromkeys(values))
