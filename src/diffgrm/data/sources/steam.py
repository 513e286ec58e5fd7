"""Steam: who reviewed which game.

Its publisher, the McAuley lab of UC San Diego, names no licence and asks to cite Kang and McAuley, ICDM 2018
(arXiv 1808.09781). Reviews are of Valve's customers.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.download import fetch
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.archives import gzip_records, loose_json, reading, table_of
from diffgrm.data.sources.tables import EVENT, dataset_of, distinct, downloads, text_of, words
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import Columns

REVIEWS = "the file of reviews"
URL = "https://cseweb.ucsd.edu/~wckang"


def steam(
    *, cache: Path | None = None, base_url: str = URL, core: int = 5, events: EventSettings = PLAIN
) -> InteractionDataset:
    """Steam: every review is an event, in order of its day (ties keep the order of the file).

    Users are known by their names. A game's text is its name, genres, tags and developer; ``genres`` and ``tags`` are
    columns too. Some users review a game more than once.

    Args:
        cache: folder for downloads; None is the user's cache folder.
        base_url: where ``steam_reviews.json.gz`` and ``steam_games.json.gz`` lie.
        core: users and games with fewer events are dropped, until none is left with fewer; 0: all are kept, and games that
            nobody reviewed.
        events: which of the kept rows are events, as in a recipe's section ``events``.

    Raises:
        DataError: nothing is left. DownloadError: files that cannot be had or read.
    """
    folder = downloads(cache, "steam", base_url)

    def reviewed() -> pl.DataFrame:
        reviews = fetch(f"{base_url}/steam_reviews.json.gz", folder / "steam_reviews.json.gz")
        with reading(reviews, REVIEWS):
            table = table_of(gzip_records(reviews, _review, REVIEWS), EVENT)
            return table.with_columns(pl.col(Columns.TIMESTAMP).cast(pl.String).str.to_date("%Y-%m-%d"))

    def items(wanted: pl.Series) -> pl.DataFrame:
        games = fetch(f"{base_url}/steam_games.json.gz", folder / "steam_games.json.gz")
        found = [row for row in gzip_records(games, _game, "the file of games") if row is not None]
        kinds = {"genres": pl.List(pl.String), "tags": pl.List(pl.String)}
        texts = dict.fromkeys((Columns.ITEM, Columns.TITLE, Columns.TEXT), pl.String)
        return pl.DataFrame(found, {**texts, **kinds}, orient="row")

    return dataset_of(folder / "steam", "steam", core, reviewed, items, "game", settings=events)


def _review(line: str) -> tuple[str, str, str]:
    review = loose_json(line)
    return review["username"], str(review["product_id"]), review["date"]


def _game(line: str) -> tuple[str, str, str, list[str], list[str]] | None:
    """None of a line without an id, of which there are some."""
    game = loose_json(line)
    if game.get("id") is None:
        return None
    name = game.get("app_name") or game.get("title")
    genres, tags = distinct(words(game.get("genres"))), distinct(words(game.get("tags")))
    text = text_of(name, distinct([*genres, *tags]), game.get("developer"))
    return str(game["id"]), " ".join(words(name)), text, genres, tags
