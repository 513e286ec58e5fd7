from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile

import pytest

from diffgrm import amazon_reviews_2014, movielens
from diffgrm.data.sources import AMAZON_CATEGORIES, SOURCES, load_source
from diffgrm.foundation.schema import DataError, DownloadError
from helpers.servers import FileServer

REVIEWS, META = "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"
DAY = 86_400


def review(user, item, day):
    return {
        "reviewerID": user,
        "asin": item,
        "reviewerName": "A reader of \u201cquotes\u201d",
        "helpful": [0, 1],
        "reviewText": 'It\'s "good".\nVery.',
        "overall": 4.0,
        "summary": "Good",
        "unixReviewTime": 1_391_040_000 + day * DAY,
        "reviewTime": "01 30, 2014",
    }


def amazon_files():
    """Five users with five items each; user F is thin, and without F so is item p6."""
    days = {"p3": 2, "p1": 1, "p2": 1, "p5": 2, "p4": 0}
    reviews = [review(user, item, day) for user in "ABCDE" for item, day in days.items()]
    reviews += [review(user, "p6", 9) for user in "ABCD"] + [review("F", "p6", 0), review("F", "p1", 1)]
    meta = [
        {
            "asin": "p1",
            "title": "Rose Soap &amp; Oil",
            "price": 12.5,
            "imUrl": "http://example.com/p1.jpg",
            "related": {"also_bought": ["p2", "p9"]},
            "salesRank": {"Beauty": 10},
            "brand": "Caf\u00e9 d'Eau",
            "categories": [["Beauty", "Bath"], ["Beauty", "Skin Care"]],
            "description": "<p>A <b>gentle</b> soap.<br />For  all\nskins.</p>",
        },
        {"asin": "p2", "description": "A brush without a title.", "categories": [["Beauty"]]},
        {"asin": "p9", "title": "Never reviewed", "categories": [["Beauty"]]},
        {"asin": "p3", "title": "Comb", "price": 3, "brand": "", "categories": [[]]},
        {"asin": "p4", "title": "Mirror", "related": {"bought_together": ["p1"]}},
    ]
    return {
        REVIEWS: gzip.compress("".join(json.dumps(line) + "\n" for line in reviews).encode()),
        META: gzip.compress("".join(repr(line) + "\n" for line in meta).encode()),
    }


def zipped(folder, **texts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"{folder}/{name.replace('_', '.')}", text.encode("latin-1"))
    return buffer.getvalue()


GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


def film_100k(item, title, *genres):
    flags = "|".join(str(int(genre in genres)) for genre in GENRES)
    return f"{item}|{title}|01-Jan-1995||http://us.imdb.com/M/title-exact?{item}|{flags}\n"


def movielens_files():
    return {
        "ml-100k.zip": zipped(
            "ml-100k",
            u_data="196\t242\t3\t881250949\n196\t7\t3\t881250949\n22\t242\t1\t878887116\n196\t30\t5\t100\n",
            u_genre="".join(f"{genre}|{i}\n" for i, genre in enumerate(GENRES)) + "\n",
            u_item=film_100k(242, "Kolya (1996)", "Comedy")
            + film_100k(7, "Mis\u00e9rables, Les (1995)", "Drama", "Musical")
            + film_100k(30, "unknown", "unknown")
            + film_100k(31, "Unseen (1995)"),
        ),
        "ml-1m.zip": zipped(
            "ml-1m",
            ratings_dat="1::1193::5::978300760\n1::661::3::978302109\n1::914::3::978300760\n2::661::4::978298413\n",
            movies_dat="661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
            "914::My Fair Lady: A Musical (1964)::Musical|Romance\n"
            "1193::Cit\u00e9 des enfants perdus, La (1995)::Adventure|Sci-Fi\n",
        ),
    }


@pytest.fixture
def server():
    with FileServer({**amazon_files(), **movielens_files()}) as running:
        yield running


@pytest.fixture
def beauty(server, tmp_path):
    return lambda **more: amazon_reviews_2014("Beauty", cache=tmp_path, base_url=server.url, **more)


def history(dataset, user):
    return dataset.items.ids(dataset.events[dataset.users.positions([user])[0]])


def texts(dataset):
    return dict(zip(dataset.item_table["item_id"], dataset.item_table["text"], strict=True))


# ---- Amazon ---------------------------------------------------------------------------------------------------------


def test_amazon_keeps_only_the_five_core(beauty):
    dataset = beauty()
    assert (dataset.n_users, dataset.n_items, len(dataset.events.values)) == (5, 5, 25)
    assert sorted(texts(dataset)) == ["p1", "p2", "p3", "p4", "p5"]
    assert dataset.name == "amazon-2014-Beauty"


def test_a_smaller_core_keeps_thin_users_and_items(beauty):
    dataset = beauty(core=2)
    assert (dataset.n_users, dataset.n_items, len(dataset.events.values)) == (6, 6, 31)


def test_amazon_events_are_in_order_of_the_day_and_then_of_the_file(beauty):
    dataset = beauty()
    assert all(history(dataset, user) == ["p4", "p1", "p2", "p3", "p5"] for user in "ABCDE")
    assert [(t - 1_391_040_000) // DAY for t in dataset.timestamps[:5]] == [0, 1, 1, 2, 2]


def test_amazon_texts_hold_the_fields_without_html(beauty):
    assert texts(beauty()) == {
        "p1": "Rose Soap & Oil. 12.5. Caf\u00e9 d'Eau. Beauty, Bath, Beauty, Skin Care. A gentle soap. For all skins.",
        "p2": "Beauty. A brush without a title.",
        "p3": "Comb. 3",
        "p4": "Mirror",
        "p5": "product p5",
    }


def test_amazon_items_always_have_a_title(beauty):
    table = beauty().item_table
    assert dict(zip(table["item_id"], table["title"], strict=True)) == {
        "p1": "Rose Soap & Oil",
        "p2": "Beauty. A brush without a title.",
        "p3": "Comb",
        "p4": "Mirror",
        "p5": "product p5",
    }


def test_products_without_metadata_are_counted_in_a_warning(beauty, caplog):
    beauty()
    assert "1 reviewed products have no metadata" in caplog.text


def test_the_second_load_needs_no_server(server, beauty):
    first = beauty()
    server.close()
    second = beauty()
    assert second.item_table.equals(first.item_table) and second.event_table().equals(first.event_table())
    assert len(server.requests) == 2


def test_another_core_is_made_from_the_files_at_hand(server, beauty):
    beauty()
    server.close()
    assert beauty(core=1).n_items == 6


def test_downloads_go_to_the_users_cache_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "mine"))
    amazon_reviews_2014("Beauty", base_url=server.url)
    assert {path.name for path in (tmp_path / "mine" / "datasets").rglob("*.gz")} == {REVIEWS, META}


def test_two_servers_do_not_share_files(server, beauty, tmp_path):
    beauty()
    with FileServer({**amazon_files(), META: gzip.compress(b"")}) as other:
        dataset = amazon_reviews_2014("Beauty", cache=tmp_path, base_url=other.url)
    assert texts(dataset)["p1"] == "product p1" and texts(beauty())["p4"] == "Mirror"


def test_a_truncated_gzip_file_is_a_download_error(server, beauty):
    server.files[REVIEWS] = server.files[REVIEWS][:-20]
    with pytest.raises(DownloadError, match=rf"{REVIEWS} is damaged .* delete it and try again"):
        beauty()


@pytest.mark.parametrize(
    "content",
    [b"<html>Moved</html>", gzip.compress(b"no json\n"), gzip.compress(b'{"asin": "p1"}\n')],
    ids=["no gzip", "no json", "no review"],
)
def test_a_file_that_is_no_review_file_is_a_download_error(server, beauty, content):
    server.files[REVIEWS] = content
    with pytest.raises(DownloadError, match=f"{REVIEWS} is damaged"):
        beauty()


def test_a_metadata_line_that_breaks_off_is_a_download_error(server, beauty):
    server.files[META] = gzip.compress(b"{'asin': 'p1', 'title': 'So\n")
    with pytest.raises(DownloadError, match=f"{META} is damaged"):
        beauty()


def test_a_file_labelled_as_encoded_stays_packed(server, beauty, tmp_path):
    server.headers[REVIEWS] = {"Content-Encoding": "x-gzip"}
    assert beauty().n_users == 5
    assert next(tmp_path.rglob(REVIEWS)).read_bytes() == server.files[REVIEWS]


def test_a_changed_archive_is_noticed_when_it_is_parsed_again(server, beauty, tmp_path):
    beauty()
    next(tmp_path.rglob(META)).write_bytes(gzip.compress(b"other"))
    with pytest.raises(DownloadError, match=f"{META} has changed"):
        beauty(core=3)


def test_an_unknown_category_gets_a_hint():
    with pytest.raises(DataError, match="no category 'beauty'; did you mean 'Beauty'"):
        amazon_reviews_2014("beauty")


# ---- MovieLens ------------------------------------------------------------------------------------------------------


def test_movielens_100k(server, tmp_path):
    dataset = movielens("100k", cache=tmp_path, base_url=server.url, checksum=None)
    assert (dataset.n_users, dataset.n_items, len(dataset.events.values)) == (2, 4, 4)
    assert history(dataset, "196") == ["30", "242", "7"] and history(dataset, "22") == ["242"]
    assert texts(dataset) == {
        "242": "Kolya (1996); Comedy",
        "7": "Mis\u00e9rables, Les (1995); Drama Musical",
        "30": "unknown; unknown",
        "31": "Unseen (1995)",
    }
    assert dataset.item_table["title"][0] == "Mis\u00e9rables, Les (1995)"


def test_movielens_1m(server, tmp_path):
    dataset = movielens("1M", cache=tmp_path, base_url=server.url, checksum=None)
    assert (dataset.n_users, dataset.n_items, len(dataset.events.values)) == (2, 3, 4)
    assert history(dataset, "1") == ["1193", "914", "661"] and history(dataset, "2") == ["661"]
    assert texts(dataset)["914"] == "My Fair Lady: A Musical (1964); Musical Romance"
    assert texts(dataset)["1193"] == "Cit\u00e9 des enfants perdus, La (1995); Adventure Sci-Fi"


def test_a_right_checksum_is_accepted_and_the_second_load_needs_no_server(server, tmp_path):
    checksum = "md5:" + hashlib.md5(server.files["ml-100k.zip"]).hexdigest()
    first = movielens("100k", cache=tmp_path, base_url=server.url, checksum=checksum)
    server.close()
    second = movielens("100k", cache=tmp_path, base_url=server.url, checksum=checksum)
    assert second.event_table().equals(first.event_table())


@pytest.mark.parametrize("checksum", ["", "md5:" + "0" * 32, "sha256:" + "0" * 64])
def test_a_wrong_checksum_is_an_error_and_the_file_is_discarded(server, tmp_path, checksum):
    with pytest.raises(DownloadError, match=r"checksum is .* the download was discarded"):
        movielens("100k", cache=tmp_path, base_url=server.url, checksum=checksum)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_archive_that_is_none_is_a_download_error(server, tmp_path):
    server.files["ml-100k.zip"] = server.files["ml-100k.zip"][:-30]
    server.files["ml-1m.zip"] = zipped("ml-1m", ratings_dat="1::2\n", movies_dat="")
    for size in ("100k", "1m"):
        with pytest.raises(DownloadError, match="is not the MovieLens archive"):
            movielens(size, cache=tmp_path, base_url=server.url, checksum=None)


def test_an_archive_without_a_file_names_it(server, tmp_path):
    server.files["ml-1m.zip"] = zipped("ml-1m", ratings_dat="1::661::3::978302109\n")
    with pytest.raises(DownloadError, match=r"ml-1m/movies\.dat"):
        movielens("1m", cache=tmp_path, base_url=server.url, checksum=None)


def test_an_unknown_size_gets_a_hint():
    with pytest.raises(DataError, match="'10m' is not offered; did you mean '1m'"):
        movielens("10m")


# ---- by name --------------------------------------------------------------------------------------------------------


def test_sources_have_every_dataset():
    assert {"toy", "movielens-100k", "movielens-1m"} | {f"amazon-2014:{c}" for c in AMAZON_CATEGORIES} == set(SOURCES)
    assert load_source("toy").n_items == 480


def test_an_unknown_source_gets_a_hint():
    with pytest.raises(DataError, match="no dataset 'movielens-100'; did you mean 'movielens-100k'"):
        load_source("movielens-100")
