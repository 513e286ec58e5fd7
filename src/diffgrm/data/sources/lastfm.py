"""LastFM-1K: what listeners of Last.fm played.

For non-commercial use only, by agreement of its maker with Last.fm; cite Celma, Music Recommendation and Discovery,
Springer 2010.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.download import fetch
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.archives import read_member, reading, told
from diffgrm.data.sources.tables import dataset_of, downloads
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns, DataError, did_you_mean

URL = "http://mtg.upf.edu/static/datasets/last.fm"
ARCHIVE, PLAYS = "lastfm-dataset-1K.tar.gz", "userid-timestamp-artid-artname-traid-traname.tsv"
FIELDS = ("user", "time", "artist_id", "artist", "track_id", "track")


def lastfm_1k(
    items: Literal["tracks", "artists"] = "tracks",
    *,
    cache: Path | None = None,
    base_url: str = URL,
    core: int = 5,
    events: EventSettings = PLAIN,
) -> InteractionDataset:
    """LastFM-1K: every play is an event, in order of its second; the same item comes many times.

    An item is a track or an artist, by the MusicBrainz id, or by name where there is none. A track's text is its title and
    its artist; ``artist`` is a column too.

    Args:
        items: what is recommended.
        cache: folder for downloads; None is the user's cache folder.
        base_url: where ``lastfm-dataset-1K.tar.gz`` lies.
        core: users and items with fewer events are dropped, until none is left with fewer; 0: all are kept.
        events: which of the kept rows are events, as in a recipe's section ``events``.

    Raises:
        DataError: other items, or nothing is left. DownloadError: a file that cannot be had or read.
    """
    if items not in ("tracks", "artists"):
        raise DataError(f"LastFM-1K has no items {items!r}{did_you_mean(items, ('tracks', 'artists'))}")
    folder, of_tracks = downloads(cache, "lastfm-1k", base_url), items == "tracks"
    named = pl.format("{} - {}", "artist", "track") if of_tracks else pl.col("artist")
    given = pl.col("track_id" if of_tracks else "artist_id")
    item = pl.coalesce(pl.when(given != "").then(given), named).alias(Columns.ITEM)
    read: list[pl.DataFrame] = []  # one reading serves both tables

    def plays() -> pl.DataFrame:
        if not read:
            archive = fetch(f"{base_url}/{ARCHIVE}", folder / ARCHIVE)
            with reading(archive, "the LastFM-1K archive"):
                read.append(_plays(read_member(archive, PLAYS)).with_columns(item).drop("artist_id", "track_id"))
        return read[0]

    def timed() -> pl.DataFrame:
        time = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%SZ").dt.epoch("s").alias(Columns.TIMESTAMP)
        with reading(folder / ARCHIVE, "the LastFM-1K archive"):
            return plays().select(pl.col("user").alias(Columns.USER), Columns.ITEM, time)

    def table(wanted: pl.Series) -> pl.DataFrame:
        title = pl.col("track" if of_tracks else "artist").alias(Columns.TITLE)
        text = (pl.format("{}; {}", "track", "artist") if of_tracks else pl.col("artist")).alias(Columns.TEXT)
        return plays().unique(Columns.ITEM, keep="last", maintain_order=True).select(Columns.ITEM, title, text, "artist")

    return dataset_of(folder / items, f"lastfm-1k-{items}", core, timed, table, items.removesuffix("s"), settings=events)


def _plays(content: bytes) -> pl.DataFrame:
    """All plays, oldest first: in the file the newest of a user stands first."""
    table = pl.read_csv(
        io.BytesIO(content),
        separator="\t",
        has_header=False,
        schema=dict.fromkeys(FIELDS, pl.String),
        quote_char=None,
    )
    return told(table, FIELDS[:2]).with_columns(pl.col("artist", "track").fill_null("")).reverse()
