"""MovieLens, from 100K to 32M ratings.

GroupLens' terms: for research; no use for profit and no redistribution without permission; cite Harper and Konstan,
ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.download import fetch, published_md5
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.archives import csv_table, read_member, reading, told
from diffgrm.data.sources.tables import RATING, dataset_of, downloads
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, did_you_mean

URL = "https://files.grouplens.org/datasets/movielens"
NO_GENRES = "(no genres listed)"
AGES = [18, 25, 35, 45, 50, 56]  # the lowest of all groups but the first
AGE_GROUPS = ["under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56 and over"]
Film = tuple[str, str, list[str]]  # id, title with year, genres


class Layout(NamedTuple):
    """How the archive of a size is written.

    Attributes:
        md5: as published; None: it is asked for beside the archive.
        users: reads what is told of users; None: nothing is.
    """

    ratings: str
    films: Callable[[Path], list[Film]]
    md5: str | None = None
    users: Callable[[Path], pl.DataFrame] | None = None


def movielens(
    size: str = "100k",
    *,
    cache: Path | None = None,
    base_url: str = URL,
    checksum: str | None = "",
    core: int = 0,
    events: EventSettings = PLAIN,
) -> InteractionDataset:
    """MovieLens 100K, 1M, 10M, 20M, 25M or 32M: every rating is an event, in order of its second.

    An item's text is title, year and genres; ``genres`` are a column too. Events have the column ``rating``, and users the
    columns of :func:`movielens_users`.

    Args:
        cache: folder for downloads; None is the user's cache folder.
        base_url: where ``ml-SIZE.zip`` and ``ml-SIZE.zip.md5`` lie.
        checksum: of the zip file; ``""`` is the publisher's, None is not to check.
        core: users and films with fewer events are dropped, until none is left with fewer; 0: all are kept, and films that
            nobody rated.
        events: which ratings are events, after that filter, as in a recipe's section ``events``.

    Raises:
        DataError: unknown size, nothing is left, or columns of users of a size without them. DownloadError: a file that
            cannot be had or read.
    """
    layout, folder, archive = _published(size := size.lower(), cache, base_url, checksum)

    def ratings() -> pl.DataFrame:
        with reading(path := archive(), "the MovieLens archive"):
            return _ratings(read_member(path, layout.ratings), layout.ratings)

    def items(wanted: pl.Series) -> pl.DataFrame:
        with reading(path := archive(), "the MovieLens archive"):
            films = layout.films(path)
        rows = [(item, title, "; ".join([title, " ".join(genres)]).strip("; "), genres) for item, title, genres in films]
        names = (Columns.ITEM, Columns.TITLE, Columns.TEXT)
        return pl.DataFrame(rows, {**dict.fromkeys(names, pl.String), "genres": pl.List(pl.String)}, orient="row")

    def users() -> pl.DataFrame:
        return movielens_users(size, cache=cache, base_url=base_url, checksum=checksum)

    told = None if layout.users is None else users
    return dataset_of(folder / f"ml-{size}", f"movielens-{size}", core, ratings, items, "film", [RATING], events, told)


def movielens_users(
    size: str = "100k", *, cache: Path | None = None, base_url: str = URL, checksum: str | None = ""
) -> pl.DataFrame:
    """What MovieLens 100K and 1M tell of users.

    ``gender`` is F or M; ``age_group`` one of those that 1M has: under 18, 18-24, 25-34, 35-44, 45-49, 50-55, 56 and over;
    ``occupation`` a word in 100K, and in 1M a number, whose meaning its README tells; ``zip`` what it says. 100K has the
    ``age`` in years too. All are texts, as is ``user_id``.

    Args:
        cache, base_url, checksum: see :func:`movielens`.

    Raises:
        DataError: unknown size, or one of which no users are told. DownloadError: a file that cannot be had or read.
    """
    layout, _, archive = _published(size := size.lower(), cache, base_url, checksum)
    if layout.users is None:
        having = ", ".join(name for name, one in LAYOUTS.items() if one.users is not None)
        raise DataError(f"MovieLens {size} tells nothing of users; {having} do")
    with reading(path := archive(), "the MovieLens archive"):
        return layout.users(path)


def _published(
    size: str, cache: Path | None, base_url: str, checksum: str | None
) -> tuple[Layout, Path, Callable[[], Path]]:
    """How a size is written, the folder of its files, and what fetches the archive."""
    if size not in LAYOUTS:
        raise DataError(f"MovieLens size {size!r} is not offered{did_you_mean(size, LAYOUTS)}")
    layout, folder = LAYOUTS[size], downloads(cache, "movielens", base_url)

    def archive() -> Path:
        url = f"{base_url}/ml-{size}.zip"
        published = layout.md5 or (lambda: published_md5(url))
        return fetch(url, folder / f"ml-{size}.zip", published if checksum == "" else checksum)

    return layout, folder, archive


def _ratings(content: bytes, file: str) -> pl.DataFrame:
    """User, item, rating, time, whatever stands between them."""
    types = {"userId": pl.String, "movieId": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
    if file == "ratings.csv":
        table = csv_table(content, types)
    else:
        rows = io.BytesIO(content.replace(b"::", b"\t"))
        table = told(pl.read_csv(rows, separator="\t", has_header=False, schema=types))
    return table.select(pl.col("userId").alias(Columns.USER), pl.col("movieId").alias(Columns.ITEM), "timestamp", RATING)


def _films_of_flags(archive: Path) -> list[Film]:
    """Of 100K: a column for each genre."""
    genres = [line.split("|")[0] for line in _lines(archive, "u.genre", "latin-1") if "|" in line]
    films = []
    for line in _lines(archive, "u.item", "latin-1"):
        item, title, _, _, _, *flags = line.split("|")
        films.append((item, title, [genre for genre, flag in zip(genres, flags, strict=False) if flag == "1"]))
    return films


def _films_of_dat(encoding: str) -> Callable[[Path], list[Film]]:
    def films(archive: Path) -> list[Film]:
        rows = (line.split("::") for line in _lines(archive, "movies.dat", encoding))
        return [(item, title, _genres(genres)) for item, title, genres in rows]

    return films


def _films_of_csv(archive: Path) -> list[Film]:
    named = dict.fromkeys(("movieId", "title", "genres"), pl.String)
    rows = csv_table(read_member(archive, "movies.csv"), named, ("title", "genres")).iter_rows()
    return [(item, title, _genres(genres)) for item, title, genres in rows]


def _users_100k(archive: Path) -> pl.DataFrame:
    rows = [line.split("|") for line in _lines(archive, "u.user", "latin-1")]
    return _users(rows, [Columns.USER, "age", "gender", "occupation", "zip"], ["gender", "age_group", "age"])


def _users_1m(archive: Path) -> pl.DataFrame:
    rows = [line.split("::") for line in _lines(archive, "users.dat", "latin-1")]
    return _users(rows, [Columns.USER, "gender", "age", "occupation", "zip"], ["gender", "age_group"])


def _users(rows: list[list[str]], names: list[str], told: list[str]) -> pl.DataFrame:
    """The table of users; 1M has in place of an age the lowest of its group, and 1 for the first."""
    table = pl.DataFrame(rows, names, orient="row")
    group = np.searchsorted(AGES, table["age"].cast(pl.Int64).to_numpy(), side="right")
    table = table.with_columns(pl.Series("age_group", [AGE_GROUPS[number] for number in group], pl.String))
    return table.select(Columns.USER, *told, "occupation", "zip")


def _genres(text: str | None) -> list[str]:
    return [] if text in (None, "", NO_GENRES) else str(text).split("|")


def _lines(archive: Path, name: str, encoding: str) -> list[str]:
    lines = read_member(archive, name).decode(encoding).split("\n")  # splitlines would break titles at other characters
    return [line.rstrip("\r") for line in lines if line.strip()]


LAYOUTS = {
    "100k": Layout("u.data", _films_of_flags, "md5:0e33842e24a9c977be4e0107933c0723", _users_100k),
    "1m": Layout("ratings.dat", _films_of_dat("latin-1"), "md5:c4d9eecfca2ab87c1945afe126590906", _users_1m),
    "10m": Layout("ratings.dat", _films_of_dat("utf-8")),
    "20m": Layout("ratings.csv", _films_of_csv),
    "25m": Layout("ratings.csv", _films_of_csv),
    "32m": Layout("ratings.csv", _films_of_csv),
}
