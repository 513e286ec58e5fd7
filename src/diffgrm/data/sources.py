"""Public datasets from their publishers, and the toy storefront by name."""

from __future__ import annotations

import ast
import gzip
import io
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.download import fetch, name_for
from diffgrm.data.tables import clean_text
from diffgrm.data.toy import toy_world
from diffgrm.foundation.schema import Columns, DataError, DownloadError, did_you_mean
from diffgrm.foundation.storage import atomic_file, cache_folder, write_parquet

logger = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")

AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
MOVIELENS = "https://files.grouplens.org/datasets/movielens"
MOVIELENS_MD5 = {  # as published in ml-*.zip.md5
    "100k": "md5:0e33842e24a9c977be4e0107933c0723",
    "1m": "md5:c4d9eecfca2ab87c1945afe126590906",
}
AMAZON_CATEGORIES = [
    "Amazon_Instant_Video",
    "Apps_for_Android",
    "Automotive",
    "Baby",
    "Beauty",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Grocery_and_Gourmet_Food",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Kindle_Store",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Sports_and_Outdoors",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
]
TEXT_FIELDS = ("title", "price", "brand", "feature", "categories", "description")  # the order of the paper's release


def amazon_reviews_2014(
    category: str, *, cache: Path | None = None, base_url: str = AMAZON_2014, core: int = 5
) -> InteractionDataset:
    """Amazon Reviews 2014, 5-core, of any category: the paper's Beauty, Sports_and_Outdoors, Toys_and_Games and others.

    Every review is an event, in order of its day (ties keep the order of the file). An item's text is its title, price,
    brand, features, categories and description, without HTML.

    Args:
        category: as in the publisher's file names, for example ``"Beauty"``.
        cache: folder for downloads; None is the user's cache folder.
        base_url: where ``reviews_CATEGORY_5.json.gz`` and ``meta_CATEGORY.json.gz`` lie.
        core: users and items with fewer events are dropped, until none is left with fewer.

    Raises:
        DataError: unknown category. DownloadError: files that cannot be had or read.
    """
    if category not in AMAZON_CATEGORIES:
        raise DataError(f"Amazon Reviews 2014 has no category {category!r}{did_you_mean(category, AMAZON_CATEGORIES)}")
    folder = _home(cache) / f"amazon-2014-{name_for(base_url)}"

    def make() -> tuple[pl.DataFrame, pl.DataFrame]:
        reviews = fetch(f"{base_url}/reviews_{category}_5.json.gz", folder / f"reviews_{category}_5.json.gz")
        meta = fetch(f"{base_url}/meta_{category}.json.gz", folder / f"meta_{category}.json.gz")
        names = [Columns.USER, Columns.ITEM, Columns.TIMESTAMP]
        events = k_core(pl.DataFrame(list(_gzip_records(reviews, _amazon_event)), names, orient="row"), core)
        return events, _amazon_items(meta, events[Columns.ITEM].unique(maintain_order=True))

    return _parsed(folder / f"{category}-{core}core", make, f"amazon-2014-{category}")


def movielens(
    size: Literal["100k", "1m"] = "100k", *, cache: Path | None = None, base_url: str = MOVIELENS, checksum: str | None = ""
) -> InteractionDataset:
    """MovieLens 100K or 1M: every rating is an event; an item's text is title, year and genres.

    Args:
        checksum: of the zip file; ``""`` is the publisher's, None is not to check.

    Raises:
        DataError: unknown size. DownloadError: a file that cannot be had or read.
    """
    size = size.lower()  # type: ignore[assignment]
    if size not in MOVIELENS_MD5:
        raise DataError(f"MovieLens size {size!r} is not offered{did_you_mean(size, MOVIELENS_MD5)}")
    folder = _home(cache) / f"movielens-{name_for(base_url)}"

    def make() -> tuple[pl.DataFrame, pl.DataFrame]:
        wanted = MOVIELENS_MD5[size] if checksum == "" else checksum
        archive = fetch(f"{base_url}/ml-{size}.zip", folder / f"ml-{size}.zip", wanted)
        read = _movielens_100k if size == "100k" else _movielens_1m
        try:
            with zipfile.ZipFile(archive) as opened:
                return read(lambda name: opened.read(f"ml-{size}/{name}"))
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, pl.exceptions.PolarsError) as error:
            raise DownloadError(f"{archive} is not the MovieLens archive: {error}; delete it and try again") from error

    return _parsed(folder / f"ml-{size}", make, f"movielens-{size}")


SOURCES: dict[str, tuple[str, Callable[[], InteractionDataset]]] = {
    "toy": ("generated storefront; needs no network", lambda: toy_world().dataset),
    "movielens-100k": ("943 users, 1,682 films, 100,000 ratings", lambda: movielens("100k")),
    "movielens-1m": ("6,040 users, 3,706 films, 1,000,209 ratings", lambda: movielens("1m")),
    **{
        f"amazon-2014:{category}": (
            "reviews and metadata, 5-core",
            partial(amazon_reviews_2014, category),
        )
        for category in AMAZON_CATEGORIES
    },
}


def load_source(name: str) -> InteractionDataset:
    """A dataset by its name in ``SOURCES``.

    Raises:
        DataError: unknown name.
    """
    if name not in SOURCES:
        raise DataError(f"there is no dataset {name!r}{did_you_mean(name, SOURCES)}")
    return SOURCES[name][1]()


def k_core(events: pl.DataFrame, core: int) -> pl.DataFrame:
    """Drop users and items with fewer than ``core`` events, again and again until none is left with fewer."""
    while True:
        kept = events.filter((pl.len().over(Columns.USER) >= core) & (pl.len().over(Columns.ITEM) >= core))
        if kept.height == events.height:
            return kept
        events = kept


def _home(cache: Path | None) -> Path:
    """The folder of downloads.

    Raises:
        DownloadError: none is given, and the user has no home.
    """
    if cache is None and (cache := cache_folder()) is not None:
        cache = cache / "datasets"
    if cache is None:
        raise DownloadError("there is no home folder to download to; name a folder in DIFFGRM_CACHE")
    return cache


def _parsed(prefix: Path, make: Callable[[], tuple[pl.DataFrame, pl.DataFrame]], name: str) -> InteractionDataset:
    """Tables from the cache, or made and put there."""
    paths = [prefix.with_name(f"{prefix.name}-{table}.parquet") for table in ("interactions", "items")]
    if not all(path.is_file() for path in paths):
        for path, table in zip(paths, make(), strict=True):
            with atomic_file(path) as temporary:
                write_parquet(table, temporary)
    interactions, items = paths
    return InteractionDataset.from_tables(interactions, items, name=name)


def _gzip_records(path: Path, parse: Callable[[str], Parsed]) -> Iterator[Parsed]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from map(parse, file)
    except (OSError, EOFError, zlib.error, ValueError, SyntaxError, KeyError, TypeError) as error:
        raise DownloadError(f"{path} is damaged ({error!r}); delete it and try again") from error


def _amazon_event(line: str) -> tuple[str, str, int]:
    review = json.loads(line)
    return review["reviewerID"], review["asin"], int(review["unixReviewTime"])


def _amazon_items(meta: Path, wanted: pl.Series) -> pl.DataFrame:
    """The item table of the wanted products. Metadata lines are Python literals, not JSON."""
    missing, rows = set(wanted), {}
    find = re.compile(r"""['"]asin['"]: ['"]([^'"]+)['"]""")

    def wanted_product(line: str) -> dict[str, object] | None:
        found = find.search(line)
        return ast.literal_eval(line) if found and found[1] in missing else None

    for product in _gzip_records(meta, wanted_product):
        if product is not None:
            item = str(product["asin"])
            missing.discard(item)
            rows[item] = (clean_text(str(product.get("title") or "")), amazon_text(product))
    if missing:
        logger.warning("%d reviewed products have no metadata; their id stands in for their text", len(missing))
    rows |= {item: ("", f"product {item}") for item in missing}
    table = [(item, *rows[item]) for item in wanted]
    table = [(item, title or text[:80], text or f"product {item}") for item, title, text in table]
    return pl.DataFrame(table, [Columns.ITEM, Columns.TITLE, Columns.TEXT], orient="row")


def amazon_text(product: dict[str, object]) -> str:
    """One product's text: the paper's fields in order, those that are there.

    >>> amazon_text({"asin": "1", "title": "Soap", "price": 2.5, "categories": [["Beauty", "Bath"]]})
    'Soap. 2.5. Beauty, Bath'
    """
    parts = []
    for field in TEXT_FIELDS:
        value = product.get(field)
        if isinstance(value, list):
            value = ", ".join(
                clean_text(str(v)) for inner in value for v in (inner if isinstance(inner, list) else [inner])
            )
        if value not in (None, ""):
            parts.append(clean_text(str(value)))
    return ". ".join(part for part in parts if part)


def _movielens_100k(read: Callable[[str], bytes]) -> tuple[pl.DataFrame, pl.DataFrame]:
    events = pl.read_csv(
        io.BytesIO(read("u.data")),
        separator="\t",
        has_header=False,
        new_columns=[Columns.USER, Columns.ITEM, "rating", Columns.TIMESTAMP],
        schema_overrides=[pl.String, pl.String, pl.Float32, pl.Int64],
    )
    genres = [line.split("|")[0] for line in read("u.genre").decode("latin-1").splitlines() if "|" in line]
    rows = []
    for line in read("u.item").decode("latin-1").splitlines():
        item, title, _, _, _, *flags = line.split("|")
        rows.append((item, title, [g for g, flag in zip(genres, flags, strict=False) if flag == "1"]))
    return _ordered(events), _films(rows)


def _movielens_1m(read: Callable[[str], bytes]) -> tuple[pl.DataFrame, pl.DataFrame]:
    ratings = [line.split("::") for line in read("ratings.dat").decode("latin-1").splitlines()]
    names = [Columns.USER, Columns.ITEM, "rating", Columns.TIMESTAMP]
    events = pl.DataFrame(ratings, names, orient="row").cast({"rating": pl.Float32, Columns.TIMESTAMP: pl.Int64})
    films = (line.split("::") for line in read("movies.dat").decode("latin-1").splitlines())
    return _ordered(events), _films([(item, title, genres.split("|")) for item, title, genres in films])


def _ordered(events: pl.DataFrame) -> pl.DataFrame:
    return events.sort(Columns.TIMESTAMP, maintain_order=True)


def _films(rows: list[tuple[str, str, list[str]]]) -> pl.DataFrame:
    table = [(item, title, "; ".join([title, " ".join(genres)]).strip("; ")) for item, title, genres in rows]
    return pl.DataFrame(table, [Columns.ITEM, Columns.TITLE, Columns.TEXT], orient="row")
