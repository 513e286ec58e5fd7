"""MIND-small: which news readers of Microsoft News clicked on.

Microsoft Research License Terms: for non-commercial research only; cite Wu et al., ACL 2020. The files are given to those
who accept them.
"""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.archives import read_member, reading, told
from diffgrm.data.sources.tables import EVENT, cached_near, dataset_of, given_file, text_of
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns

PAGE, FILE = "https://msnews.github.io", "MINDsmall_train.zip"
BEHAVIOURS = ("impression", "user", "time", "history", "shown")
OURS = dict(zip(("user", "item", "time"), EVENT, strict=True))
NEWS = ("item", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")


def mind_small(
    path: str | Path | None = None, *, cache: Path | None = None, core: int = 5, events: EventSettings = PLAIN
) -> InteractionDataset:
    """MIND-small: what each reader had clicked on before the week that was logged, then the clicks of that week.

    The publisher gives no times of the earlier clicks, only their order: here they have the second before the first
    impression of all, which is our reading and leaves their order. Clicks of one impression have its time and stand in the
    order in which news were shown. A text is title, category and abstract; ``category`` (both levels) is a column too.

    Args:
        path: ``MINDsmall_train.zip`` as downloaded from https://msnews.github.io.
        cache: folder for the tables that are made of it; None is the user's cache folder.
        core: readers and news with fewer events are dropped, until none is left with fewer; 0: all are kept, and news that
            nobody clicked on.
        events: which of the kept rows are events, as in a recipe's section ``events``.

    Raises:
        DataError: no file is given, or nothing is left. DownloadError: it cannot be read.
    """
    archive = given_file(path, "mind-small", FILE, PAGE)

    def table(name: str, columns: tuple[str, ...]) -> pl.DataFrame:
        """A table of text without a header, in which quotation marks mean themselves."""
        content, types = io.BytesIO(read_member(archive, name)), dict.fromkeys(columns, pl.String)
        return pl.read_csv(content, separator="\t", has_header=False, schema=types, quote_char=None)

    def clicked() -> pl.DataFrame:
        with reading(archive, f"MIND's {FILE}", f"get it anew from {PAGE}"):
            seen = told(table("behaviors.tsv", BEHAVIOURS), ("user", "time", "shown"))
            time = pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p").dt.epoch("s")
            seen = seen.with_columns(time).sort("time", maintain_order=True)
            return pl.concat([_earlier(seen), _clicks(seen)])

    def items(wanted: pl.Series) -> pl.DataFrame:
        with reading(archive, f"MIND's {FILE}", f"get it anew from {PAGE}"):
            news = told(table("news.tsv", NEWS), NEWS[:1])
        rows = [
            (item, title, text_of(title, [category, below], abstract), [kind for kind in (category, below) if kind])
            for item, category, below, title, abstract in news.select(NEWS[:5]).iter_rows()
        ]
        names = dict.fromkeys((Columns.ITEM, Columns.TITLE, Columns.TEXT), pl.String)
        return pl.DataFrame(rows, {**names, "category": pl.List(pl.String)}, orient="row")

    prefix = cached_near(cache, "mind", archive) / "small"
    return dataset_of(prefix, "mind-small", core, clicked, items, "news", settings=events)


def _earlier(seen: pl.DataFrame) -> pl.DataFrame:
    """What stands as each reader's history, once."""
    first = seen.unique("user", keep="first", maintain_order=True).filter(pl.col("history").is_not_null())
    rows = first.select("user", item=pl.col("history").str.split(" ")).explode("item").filter(pl.col("item") != "")
    return rows.select("user", "item", time=pl.lit(seen["time"].min(), pl.Int64) - 1).rename(OURS)


def _clicks(seen: pl.DataFrame) -> pl.DataFrame:
    """What was clicked on of what was shown: ``N5-1`` (``N6-0`` was not)."""
    shown = seen.select("user", "time", item=pl.col("shown").str.split(" ")).explode("item")
    clicked = shown.filter(pl.col("item").str.ends_with("-1"))
    return clicked.select("user", pl.col("item").str.strip_suffix("-1"), "time").rename(OURS)
