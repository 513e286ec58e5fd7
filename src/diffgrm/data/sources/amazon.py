"""Amazon reviews of three years: 2014 (the papers'), 2018 and 2023.

Their publisher, the McAuley lab of UC San Diego, names no licence and asks to cite the papers: He and McAuley, WWW 2016
(2014); Ni, Li and McAuley, EMNLP 2019 (2018); Hou et al., arXiv 2403.03952 (2023). Texts are of Amazon's customers.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.download import fetch
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.amazon_categories import CATEGORIES_2014, CATEGORIES_2018, CATEGORIES_2023
from diffgrm.data.sources.archives import csv_table, gzip_records, loose_json, reading, table_of
from diffgrm.data.sources.tables import EVENT, RATING, dataset_of, distinct, downloads, text_of, words
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, did_you_mean

URL_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
URL_2018 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
URL_2023 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
FIELDS_2014 = ("title", "price", "brand", "feature", "categories", "description")  # the order of the paper's release
FIELDS_2018 = ("title", "price", "brand", "feature", "category", "description")
FIELDS_2023 = ("title", "price", "store", "features", "categories", "description")
PRICE = re.compile(r"[$\d.,\s-]*\d[$\d.,\s-]*")  # some products of 2018 have a page's style sheet in its place
ID = re.compile(r"""['"](?:parent_)?asin['"]: ['"]([^'"]+)['"]""")
SMALLEST_FILE = 5  # the core of the smaller files of reviews


def amazon_reviews_2014(
    category: str,
    *,
    cache: Path | None = None,
    base_url: str = URL_2014,
    core: int = 5,
    events: EventSettings = PLAIN,
) -> InteractionDataset:
    """Amazon Reviews 2014 of any category: the paper's Beauty, Sports_and_Outdoors, Toys_and_Games and others.

    Every review is an event, in order of its day (ties keep the order of the file). An item's text is its title, price,
    brand, features, categories and description, without HTML; the column ``categories`` lists categories and brand.
    Events have the column ``rating`` (1 to 5 stars).

    Args:
        category: as in the publisher's file names, for example ``"Beauty"``.
        cache: folder for downloads; None is the user's cache folder.
        base_url: where ``reviews_CATEGORY_5.json.gz`` (below core 5 ``reviews_CATEGORY.json.gz``, which is much larger) and
            ``meta_CATEGORY.json.gz`` lie.
        core: users and items with fewer events are dropped, until none is left with fewer; 0: all are kept.
        events: which reviews are events, after that filter, as in a recipe's section ``events``.

    Raises:
        DataError: unknown category, or nothing is left. DownloadError: files that cannot be had or read.
    """
    _check(category, CATEGORIES_2014, "2014")
    reviews = f"reviews_{category}{'_5' * (core >= SMALLEST_FILE)}.json.gz"
    folder = downloads(cache, "amazon-2014", base_url)

    def reviewed() -> pl.DataFrame:
        return _reviews(fetch(f"{base_url}/{reviews}", folder / reviews))

    def items(wanted: pl.Series) -> pl.DataFrame:
        meta = fetch(f"{base_url}/meta_{category}.json.gz", folder / f"meta_{category}.json.gz")
        return _products(meta, "asin", wanted, FIELDS_2014)

    return dataset_of(folder / category, f"amazon-2014-{category}", core, reviewed, items, "product", [RATING], events)


def amazon_reviews_2018(
    category: str,
    *,
    cache: Path | None = None,
    base_url: str = URL_2018,
    core: int = 5,
    events: EventSettings = PLAIN,
) -> InteractionDataset:
    """Amazon Reviews 2018 of any category.

    As :func:`amazon_reviews_2014`; a review that stands in the file twice (user, item and second) is one event.

    Args:
        base_url: where ``categoryFilesSmall/CATEGORY_5.json.gz`` (below core 5 ``categoryFiles/CATEGORY.json.gz``, which is
            much larger) and ``metaFiles2/meta_CATEGORY.json.gz`` lie.
        core, events: see :func:`amazon_reviews_2014`.

    Raises:
        DataError: unknown category, or nothing is left. DownloadError: files that cannot be had or read.
    """
    _check(category, CATEGORIES_2018, "2018")
    small = core >= SMALLEST_FILE
    reviews = f"categoryFilesSmall/{category}_5.json.gz" if small else f"categoryFiles/{category}.json.gz"
    folder = downloads(cache, "amazon-2018", base_url)

    def reviewed() -> pl.DataFrame:
        return _reviews(fetch(f"{base_url}/{reviews}", folder / Path(reviews).name)).unique(
            EVENT, keep="first", maintain_order=True
        )

    def items(wanted: pl.Series) -> pl.DataFrame:
        meta = fetch(f"{base_url}/metaFiles2/meta_{category}.json.gz", folder / f"meta_{category}.json.gz")
        return _products(meta, "asin", wanted, FIELDS_2018)

    return dataset_of(folder / category, f"amazon-2018-{category}", core, reviewed, items, "product", [RATING], events)


def amazon_reviews_2023(
    category: str,
    *,
    cache: Path | None = None,
    base_url: str = URL_2023,
    core: int = 5,
    events: EventSettings = PLAIN,
) -> InteractionDataset:
    """Amazon Reviews 2023 of any category; items are products with all their variants (``parent_asin``).

    Every rating is an event, in order of its time (milliseconds). Texts as in :func:`amazon_reviews_2014`; the store
    takes the place of the brand.

    Args:
        base_url: where ``benchmark/5core/rating_only/CATEGORY.csv.gz`` (below core 5 ``benchmark/0core/...``) and
            ``raw/meta_categories/meta_CATEGORY.jsonl.gz`` lie.
        core, events: see :func:`amazon_reviews_2014`.

    Raises:
        DataError: unknown category, or nothing is left. DownloadError: files that cannot be had or read.
    """
    _check(category, CATEGORIES_2023, "2023")
    kind = "5core" if core >= SMALLEST_FILE else "0core"
    folder = downloads(cache, "amazon-2023", base_url)

    def reviewed() -> pl.DataFrame:
        url = f"{base_url}/benchmark/{kind}/rating_only/{category}.csv.gz"
        path = fetch(url, folder / f"{category}-{kind}.csv.gz")
        types = {"user_id": pl.String, "parent_asin": pl.String, "timestamp": pl.Int64, RATING: pl.Float32}
        with reading(path, "a file of ratings"):
            return csv_table(gzip.decompress(path.read_bytes()), types).rename({"parent_asin": Columns.ITEM})

    def items(wanted: pl.Series) -> pl.DataFrame:
        url = f"{base_url}/raw/meta_categories/meta_{category}.jsonl.gz"
        return _products(fetch(url, folder / f"meta_{category}.jsonl.gz"), "parent_asin", wanted, FIELDS_2023)

    return dataset_of(folder / category, f"amazon-2023-{category}", core, reviewed, items, "product", [RATING], events)


def _check(category: str, known: tuple[str, ...], year: str) -> None:
    if category not in known:
        raise DataError(f"Amazon Reviews {year} has no category {category!r}{did_you_mean(category, known)}")


def _reviews(path: Path) -> pl.DataFrame:
    def event(line: str) -> tuple[str, str, int, float]:
        review = loose_json(line)
        return review["reviewerID"], review["asin"], int(review["unixReviewTime"]), float(review["overall"])

    return table_of(gzip_records(path, event, "a file of reviews"), [*EVENT, RATING])


def _products(path: Path, key: str, wanted: Iterable[str], fields: tuple[str, ...]) -> pl.DataFrame:
    """The item table of the wanted products; the first line of each counts."""
    rows, missing = [], set(wanted)
    for product in gzip_records(path, _chosen(key, missing), "a file of products"):
        if product is not None:
            missing.discard(str(product[key]))
            rows.append(_product(product, key, fields))
    names = (Columns.ITEM, Columns.TITLE, Columns.TEXT, "categories")
    return pl.DataFrame(rows, {**dict.fromkeys(names[:3], pl.String), names[3]: pl.List(pl.String)}, orient="row")


def _chosen(key: str, missing: set[str]) -> Callable[[str], dict[str, Any] | None]:
    """Reads lines of products that are missing yet; of the others only the id is looked at."""

    def parse(line: str) -> dict[str, Any] | None:
        ids = ID.findall(line)
        if ids and missing.isdisjoint(ids):
            return None
        product = loose_json(line)
        return product if str(product[key]) in missing else None

    return parse


def _product(product: dict[str, Any], key: str, fields: tuple[str, ...]) -> tuple[str, str, str, list[str]]:
    title, price, brand, _, categories, _ = fields
    if "getTime" in str(product.get(title)):  # a script of the page where some products of 2018 have their title
        product = {**product, title: None}
    if not PRICE.fullmatch(str(product.get(price))):
        product = {**product, price: None}
    values = [product.get(field) for field in fields]
    kinds = distinct([*words(product.get(categories)), *words(product.get(brand))])
    return str(product[key]), " ".join(words(product.get(title))), text_of(*values), kinds
