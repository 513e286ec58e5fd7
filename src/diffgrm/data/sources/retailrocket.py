"""Retailrocket: what visitors of an online shop looked at, put into the basket and bought.

CC BY-NC-SA 4.0. The file is given to those who log in to Kaggle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.archives import csv_table, read_member, reading
from diffgrm.data.sources.tables import EVENT, cached_near, dataset_of, given_file
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, did_you_mean

PAGE, FILE = "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset", "archive.zip"
KINDS = ("view", "addtocart", "transaction")
Kind = Literal["view", "addtocart", "transaction"]


def retailrocket(
    path: str | Path | None = None,
    *,
    cache: Path | None = None,
    core: int = 5,
    kinds: Sequence[Kind] | None = None,
    events: EventSettings = PLAIN,
) -> InteractionDataset:
    """Retailrocket: every event of the chosen kinds, in order of its time (milliseconds).

    All words are hashed by the publisher, so an item's text is its category and those above it, from the last time that the
    shop said so; ``categories`` are a column too. Events have the column ``event``, of their kinds.

    Args:
        path: ``archive.zip`` as downloaded from https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset.
        cache: folder for the tables that are made of it; None is the user's cache folder.
        core: visitors and items with fewer events are dropped, until none is left with fewer; 0: all are kept, and items
            without events.
        kinds: of events: view, addtocart, transaction; None: the types that ``events`` names, else views.
        events: which of the kept rows are events, as in a recipe's section ``events``.

    Raises:
        DataError: no file is given, there is no such kind, or nothing is left. DownloadError: it cannot be read.
    """
    named: Sequence[str] = events.types if events.event == Columns.EVENT else ("view",)
    chosen = named if kinds is None else kinds
    for kind in chosen or ("",):
        if kind not in KINDS:
            raise DataError(f"Retailrocket has no events of the kind {kind!r}{did_you_mean(kind, KINDS)}")
    archive = given_file(path, "retailrocket", FILE, PAGE)

    def table(name: str, columns: Mapping[str, type[pl.DataType]], *lacking: str) -> pl.DataFrame:
        with reading(archive, f"Retailrocket's {FILE}", f"get it anew from {PAGE}"):
            return csv_table(read_member(archive, name), columns, lacking)

    def visits() -> pl.DataFrame:
        columns = {"visitorid": pl.String, "itemid": pl.String, "timestamp": pl.Int64, "event": pl.String}
        found = table("events.csv", columns).filter(pl.col("event").is_in(list(chosen)))
        return found.rename(dict(zip(found.columns, [*EVENT, Columns.EVENT], strict=True)))

    def items(wanted: pl.Series) -> pl.DataFrame:
        columns = {"timestamp": pl.Int64, "itemid": pl.String, "property": pl.String, "value": pl.String}
        parts = [table(f"item_properties_part{part}.csv", columns, "value") for part in (1, 2)]
        said = pl.concat(parts).filter(pl.col("property") == "categoryid").sort("timestamp", maintain_order=True)
        last = said.unique("itemid", keep="last", maintain_order=True).select("itemid", "value")
        above = dict(table("category_tree.csv", {"categoryid": pl.String, "parentid": pl.String}, "parentid").iter_rows())
        rows = [(item, _path(category, above)) for item, category in last.iter_rows()]
        found = pl.DataFrame(rows, {Columns.ITEM: pl.String, "categories": pl.List(pl.String)}, orient="row")
        text = pl.format("category {}", pl.col("categories").list.join(", "))
        return found.with_columns(pl.format("item {}", Columns.ITEM).alias(Columns.TITLE), text.alias(Columns.TEXT))

    prefix = cached_near(cache, "retailrocket", archive) / "-".join(kind for kind in KINDS if kind in chosen)
    return dataset_of(prefix, "retailrocket", core, visits, items, more=[Columns.EVENT], settings=events)


def _path(category: str, above: Mapping[str, str | None]) -> list[str]:
    """A category and those above it, nearest first."""
    found: list[str] = []
    while category not in (None, "") and category not in found:
        found.append(category)
        category = above.get(category) or ""
    return found
