from __future__ import annotations

import datetime
import gzip

import pytest

from diffgrm import steam
from diffgrm.foundation.schema import DownloadError
from helpers.published import column, events, gzip_lines, sizes
from helpers.servers import FileServer

REVIEWS, GAMES = "steam_reviews.json.gz", "steam_games.json.gz"


def python2(value):
    """A value as Python 2 printed it, which is how these files are written."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python2(k)}: {python2(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(python2, value)) + "]"
    return f"u{value!a}" if isinstance(value, str) else repr(value)


def review(user, game, date):
    return {
        "username": user,
        "hours": 9.9,
        "products": 108,
        "product_id": game,
        "page_order": 0,
        "date": date,
        "text": "It's \"good\".\n{u'product_id': u'1'}",
        "early_access": False,
        "page": 1,
    }


@pytest.fixture
def server():
    users = ["K\u00e9v", "b'ob", "c", "d", "e"]
    reviews = [review(user, str(game), f"2017-12-{20 - game % 3:02}") for game in range(10, 15) for user in users]
    reviews += [review("c", "10", "2018-01-04"), review("thin", "10", "2011-01-01"), review("thin", "99", "2011-01-02")]
    games = [
        {
            "publisher": "Kotoshiro",
            "genres": ["Action", "Indie"],
            "app_name": "Lost &amp; Found\u2122",
            "title": "Lost",
            "url": "http://store.steampowered.com/app/10/",
            "release_date": "2018-01-04",
            "tags": ["Strategy", "Action"],
            "price": 4.99,
            "early_access": False,
            "id": "10",
            "developer": "Koto's",
        },
        {"app_name": "A page without an id", "tags": []},
        {"title": "Only a title", "id": "11", "genres": ["RPG"]},
        {"app_name": "Never reviewed", "id": "50", "tags": ["RPG"]},
    ]
    with FileServer({REVIEWS: gzip_lines(reviews, python2), GAMES: gzip_lines(games, python2)}) as running:
        yield running


def test_steam(server, tmp_path, caplog):
    dataset = steam(cache=tmp_path, base_url=server.url)
    assert sizes(dataset) == (5, 5, 26) and dataset.name == "steam"
    days = [("11", 18), ("14", 18), ("10", 19), ("13", 19), ("12", 20)]
    expected = [(game, datetime.date(2017, 12, day)) for game, day in days]
    found = events(dataset)
    assert found["K\u00e9v"] == found["b'ob"] == expected
    assert found["c"] == [*expected, ("10", datetime.date(2018, 1, 4))]  # some review a game again
    assert column(dataset, "title")["10"] == "Lost & Found\u2122"
    assert column(dataset, "text")["10"] == "Lost & Found\u2122. Action, Indie, Strategy. Koto's"
    assert column(dataset, "text")["11"] == "Only a title. RPG" and column(dataset, "text")["14"] == "game 14"
    assert column(dataset, "genres")["10"] == ["Action", "Indie"] and column(dataset, "tags")["10"] == [
        "Strategy",
        "Action",
    ]
    assert "3 items with events have no metadata" in caplog.text
    server.close()
    assert steam(cache=tmp_path, base_url=server.url).event_table().equals(dataset.event_table())


def test_all_of_steam(server, tmp_path):
    dataset = steam(cache=tmp_path, base_url=server.url, core=0)
    assert sizes(dataset) == (6, 7, 28)  # with the game that nobody reviewed
    assert column(dataset, "text")["50"] == "Never reviewed. RPG"


def test_a_file_of_steam_that_changed_since_its_download_is_noticed(server, tmp_path):
    steam(cache=tmp_path, base_url=server.url)
    games = next(tmp_path.rglob(GAMES))
    games.write_bytes(gzip_lines([{"id": "10", "app_name": "Another"}], python2))
    with pytest.raises(DownloadError, match=rf"{GAMES} has changed since it was downloaded; delete it and try again"):
        steam(cache=tmp_path, base_url=server.url, core=0)
    games.unlink()
    assert column(steam(cache=tmp_path, base_url=server.url, core=0), "text")["50"] == "Never reviewed. RPG"


@pytest.mark.parametrize("file", [REVIEWS, GAMES])
@pytest.mark.parametrize(
    "content",  # without a time in it, so that every process collects the same tests
    [gzip.compress(b"{u'id': u'1'\n", mtime=0), gzip.compress(b"[1]\n", mtime=0), b"<html>", None],
)
def test_damaged_files_of_steam(server, tmp_path, file, content):
    server.files[file] = server.files[file][:-9] if content is None else content
    with pytest.raises(DownloadError, match=rf"{file} is damaged, or not the file of (reviews|games) .* delete it"):
        steam(cache=tmp_path, base_url=server.url)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_review_without_a_day_is_a_download_error(server, tmp_path):
    server.files[REVIEWS] = gzip_lines([{**review("a", "10", "Posted: May"), "date": "Posted: May"}] * 5, python2)
    with pytest.raises(DownloadError, match="steam_reviews"):
        steam(cache=tmp_path, base_url=server.url, core=0)
