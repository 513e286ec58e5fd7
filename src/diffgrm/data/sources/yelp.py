"""Yelp's open dataset: who reviewed which business.

The Yelp Dataset Terms of Use allow personal, educational and academic use only, and no redistribution. The file is given to
those who accept them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.archives import member, reading, table_of
from diffgrm.data.sources.tables import EVENT, RATING, cached_near, dataset_of, distinct, given_file, text_of, words
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns

PAGE, FILE = "https://www.yelp.com/dataset", "yelp_dataset.tar"
REVIEWS, BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"


def yelp(
    path: str | Path | None = None, *, cache: Path | None = None, core: int = 5, events: EventSettings = PLAIN
) -> InteractionDataset:
    """Yelp of any year: every review is an event, in order of its second.

    A business' text is its name, categories and place; ``categories`` are a column too. Events have the column
    ``rating`` (1 to 5 stars).

    Args:
        path: ``yelp_dataset.tar`` (or ``.tgz``) as downloaded from https://www.yelp.com/dataset.
        cache: folder for the tables that are made of it; None is the user's cache folder.
        core: users and businesses with fewer events are dropped, until none is left with fewer; 0: all are kept.
        events: which reviews are events, after that filter, as in a recipe's section ``events``.

    Raises:
        DataError: no file is given, or nothing is left. DownloadError: it cannot be read.
    """
    archive = given_file(path, "yelp", FILE, PAGE)

    def whole() -> AbstractContextManager[None]:
        return reading(archive, f"Yelp's {FILE}", f"get it anew from {PAGE}")

    def rows(name: str, parse: Callable[[dict[str, Any]], tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        with member(archive, name) as lines:
            yield from (parse(json.loads(line)) for line in lines)

    def reviewed() -> pl.DataFrame:
        with whole():
            table = table_of(rows(REVIEWS, _review), [*EVENT, RATING])
            time = pl.col(Columns.TIMESTAMP).cast(pl.String).str.to_datetime("%Y-%m-%d %H:%M:%S")
            return table.with_columns(time.dt.epoch("s"))

    def items(wanted: pl.Series) -> pl.DataFrame:
        names = dict.fromkeys((Columns.ITEM, Columns.TITLE, Columns.TEXT), pl.String)
        with whole():
            found = list(rows(BUSINESSES, _business))
        return pl.DataFrame(found, {**names, "categories": pl.List(pl.String)}, orient="row")

    prefix = cached_near(cache, "yelp", archive) / "yelp"
    return dataset_of(prefix, "yelp", core, reviewed, items, "business", [RATING], events)


def _review(review: dict[str, Any]) -> tuple[str, str, str, float]:
    return review["user_id"], review["business_id"], review["date"], float(review["stars"])


def _business(business: dict[str, Any]) -> tuple[str, str, str, list[str]]:
    kinds = distinct(words((business.get("categories") or "").split(", ")))
    place = [business.get("city"), business.get("state")]
    return business["business_id"], " ".join(words(business["name"])), text_of(business["name"], kinds, place), kinds
