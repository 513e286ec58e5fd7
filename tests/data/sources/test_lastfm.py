from __future__ import annotations

import pytest

from diffgrm import lastfm_1k
from diffgrm.foundation.schema import DataError, DownloadError
from helpers.published import column, events, sizes, tarred
from helpers.servers import FileServer

ARCHIVE = "lastfm-dataset-1K.tar.gz"
FOLDER = "lastfm-dataset-1K"
PLAYS = (  # the newest of a user first; two plays of one second; quotation marks that mean themselves; tracks without an id
    'user_000001\t2009-05-04T23:08:57Z\ta1\tDeep "Dish\tt1\tFlashdance\n'
    "user_000001\t2009-05-04T13:54:10Z\ta2\t\u5742\u672c\u9f8d\u4e00\t\tComposition 0919 (Live)\n"
    'user_000001\t2009-05-04T13:54:10Z\ta1\tDeep "Dish\tt1\tFlashdance\n'
    "user_000002\t2006-08-13T13:59:59Z\t\tNo Id\tt2\tSong\n"
    "user_000002\t2006-08-13T13:59:20Z\ta2\t\u5742\u672c\u9f8d\u4e00\t\tComposition 0919 (Live)\n"
)
FIRST, SECOND = 1_241_478_537, 1_241_445_250


@pytest.fixture
def server():
    content = {
        f"{FOLDER}/README.txt": b"Non-commercial use only.",
        f"{FOLDER}/userid-profile.tsv": b"#id\tgender\n",
        f"{FOLDER}/userid-timestamp-artid-artname-traid-traname.tsv": PLAYS.encode(),
    }
    with FileServer({ARCHIVE: tarred(content, "w:gz")}) as running:
        yield running


def test_tracks_of_lastfm(server, tmp_path):
    dataset = lastfm_1k(cache=tmp_path, base_url=server.url, core=0)
    live = "\u5742\u672c\u9f8d\u4e00 - Composition 0919 (Live)"
    assert sizes(dataset) == (2, 3, 5) and dataset.name == "lastfm-1k-tracks"
    assert events(dataset) == {
        "user_000001": [("t1", SECOND), (live, SECOND), ("t1", FIRST)],  # of one second, the lower line is the older play
        "user_000002": [(live, 1_155_477_560), ("t2", 1_155_477_599)],
    }
    assert column(dataset, "title") == {"t1": "Flashdance", live: "Composition 0919 (Live)", "t2": "Song"}
    assert column(dataset, "text")["t1"] == 'Flashdance; Deep "Dish' and column(dataset, "text")["t2"] == "Song; No Id"
    assert column(dataset, "artist") == {"t1": 'Deep "Dish', live: "\u5742\u672c\u9f8d\u4e00", "t2": "No Id"}


def test_artists_of_lastfm(server, tmp_path):
    dataset = lastfm_1k("artists", cache=tmp_path, base_url=server.url, core=0)
    assert sizes(dataset) == (2, 3, 5) and dataset.name == "lastfm-1k-artists"
    assert events(dataset)["user_000002"] == [("a2", 1_155_477_560), ("No Id", 1_155_477_599)]
    assert column(dataset, "text") == {"a1": 'Deep "Dish', "a2": "\u5742\u672c\u9f8d\u4e00", "No Id": "No Id"}
    server.close()
    assert server.asked(ARCHIVE) == [None]
    assert sizes(lastfm_1k("tracks", cache=tmp_path, base_url=server.url, core=0)) == (2, 3, 5)  # of the same file


def test_a_core_counts_plays(server, tmp_path):
    dataset = lastfm_1k("artists", cache=tmp_path, base_url=server.url, core=2)
    assert events(dataset) == {"user_000001": [("a1", SECOND), ("a1", FIRST)]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "is damaged, or not the LastFM-1K archive"),
        (
            tarred({"other.tsv": b""}, "w:gz"),
            "there is no file userid-timestamp",
        ),
        (tarred({FOLDER + "/userid-timestamp-artid-artname-traid-traname.tsv": b"u\tsoon\ta\tb\tc\td\n"}), "is damaged"),
    ],
    ids=["html", "other files", "no times"],
)
def test_damaged_files_of_lastfm(server, tmp_path, content, message):
    server.files[ARCHIVE] = content
    with pytest.raises(DownloadError, match=message):
        lastfm_1k(cache=tmp_path, base_url=server.url, core=0)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_truncated_archive_of_lastfm(server, tmp_path):
    server.files[ARCHIVE] = server.files[ARCHIVE][:-200]
    with pytest.raises(DownloadError, match=r"lastfm-dataset-1K\.tar\.gz is damaged"):
        lastfm_1k(cache=tmp_path, base_url=server.url)


def test_a_file_of_lastfm_that_changed_since_its_download_is_noticed(server, tmp_path):
    lastfm_1k(cache=tmp_path, base_url=server.url, core=0)
    next(tmp_path.rglob(ARCHIVE)).write_bytes(tarred({"other.tsv": b""}, "w:gz"))
    with pytest.raises(DownloadError, match=r"lastfm-dataset-1K\.tar\.gz has changed since it was downloaded"):
        lastfm_1k("artists", cache=tmp_path, base_url=server.url, core=0)


def test_other_items_than_tracks_and_artists_get_a_hint():
    with pytest.raises(DataError, match="LastFM-1K has no items 'track'; did you mean 'tracks'"):
        lastfm_1k("track")
