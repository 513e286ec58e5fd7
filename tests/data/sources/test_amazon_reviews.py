from __future__ import annotations

import gzip

import pytest

from diffgrm import amazon_reviews_2014, amazon_reviews_2018, amazon_reviews_2023
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, DownloadError
from helpers.published import column, events, gzip_lines, sizes
from helpers.servers import FileServer

REVIEWS, META, ALL_REVIEWS = "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz", "reviews_Beauty.json.gz"
DAY, START = 86_400, 1_391_040_000


def review(user, item, day):
    return {
        "reviewerID": user,
        "asin": item,
        "reviewerName": "A reader of \u201cquotes\u201d",
        "helpful": [0, 1],
        "reviewText": 'It\'s "good".\nVery.',
        "overall": 4.0,
        "summary": "Good",
        "unixReviewTime": START + day * DAY,
        "reviewTime": "01 30, 2014",
    }


def reviews():
    """Five users with five items each; user F is thin, and without F so is item p6."""
    days = {"p3": 2, "p1": 1, "p2": 1, "p5": 2, "p4": 0}
    found = [review(user, item, day) for user in "ABCDE" for item, day in days.items()]
    return found + [review(user, "p6", 9) for user in "ABCD"] + [review("F", "p6", 0), review("F", "p1", 1)]


def files_2014():
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
    thin = [*reviews(), review("G", "p7", 3)]
    return {
        REVIEWS: gzip_lines(reviews()),
        ALL_REVIEWS: gzip_lines(thin[:10]) + gzip_lines(thin[10:], repr),
        META: gzip_lines(meta, repr),
    }


@pytest.fixture
def server():
    with FileServer(files_2014()) as running:
        yield running


@pytest.fixture
def beauty(server, tmp_path):
    return lambda **more: amazon_reviews_2014("Beauty", cache=tmp_path, base_url=server.url, **more)


# ---- 2014 -----------------------------------------------------------------------------------------------------------


def test_amazon_keeps_only_the_five_core(beauty):
    dataset = beauty()
    assert sizes(dataset) == (5, 5, 25) and dataset.name == "amazon-2014-Beauty"
    assert sorted(dataset.items.series) == ["p1", "p2", "p3", "p4", "p5"]


def test_a_smaller_core_is_made_of_the_file_of_all_reviews(server, beauty):
    assert sizes(beauty(core=2)) == (6, 6, 31)
    assert sizes(beauty(core=0)) == (7, 7, 32)
    assert server.asked(ALL_REVIEWS) == [None] and not server.asked(REVIEWS)


def test_amazon_events_are_in_order_of_the_day_and_then_of_the_file(beauty):
    expected = [("p4", 0), ("p1", 1), ("p2", 1), ("p3", 2), ("p5", 2)]
    found = events(beauty())
    assert found == {user: [(item, START + day * DAY) for item, day in expected] for user in "ABCDE"}


def test_amazon_texts_hold_the_fields_without_html(beauty):
    assert column(beauty(), "text") == {
        "p1": "Rose Soap & Oil. 12.5. Caf\u00e9 d'Eau. Beauty, Bath, Beauty, Skin Care. A gentle soap. For all skins.",
        "p2": "Beauty. A brush without a title.",
        "p3": "Comb. 3",
        "p4": "Mirror",
        "p5": "product p5",
    }


def test_amazon_items_always_have_a_title(beauty):
    assert column(beauty(), "title") == {
        "p1": "Rose Soap & Oil",
        "p2": "Beauty. A brush without a title.",
        "p3": "Comb",
        "p4": "Mirror",
        "p5": "product p5",
    }


def test_categories_and_brands_are_a_column(beauty):
    kinds = {"p1": ["Beauty", "Bath", "Skin Care", "Caf\u00e9 d'Eau"], "p2": ["Beauty"], "p3": [], "p4": [], "p5": None}
    assert column(beauty(), "categories") == kinds


def test_products_without_metadata_are_counted_in_a_warning(beauty, caplog):
    beauty()
    assert "1 items with events have no metadata; their id stands in for their text" in caplog.text


def test_the_second_load_needs_no_server(server, beauty):
    first = beauty()
    server.close()
    second = beauty()
    assert second.item_table.equals(first.item_table) and second.event_table().equals(first.event_table())
    assert len(server.requests) == 2


def test_another_core_is_made_from_the_files_at_hand(server, beauty):
    beauty()
    server.close()
    with pytest.raises(DataError, match="no user and item of amazon-2014-Beauty have 6 events each; take a smaller core"):
        beauty(core=6)


def test_downloads_go_to_the_users_cache_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "mine"))
    amazon_reviews_2014("Beauty", base_url=server.url)
    assert {path.name for path in (tmp_path / "mine" / "datasets").rglob("*.gz")} == {REVIEWS, META}


def test_two_servers_do_not_share_files(server, beauty, tmp_path):
    beauty()
    with FileServer({**files_2014(), META: gzip.compress(b"")}) as other:
        dataset = amazon_reviews_2014("Beauty", cache=tmp_path, base_url=other.url)
    assert column(dataset, "text")["p1"] == "product p1" and column(beauty(), "text")["p4"] == "Mirror"


def test_a_truncated_gzip_file_is_a_download_error_and_nothing_is_kept_of_it(server, beauty, tmp_path):
    server.files[REVIEWS] = server.files[REVIEWS][:-20]
    with pytest.raises(DownloadError, match=rf"{REVIEWS} is damaged, .* delete it and try again"):
        beauty()
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Moved</html>",
        gzip.compress(b"no json\n", mtime=0),
        gzip.compress(b'{"asin": "p1"}\n', mtime=0),
        gzip.compress(b"[1]\n", mtime=0),
    ],
    ids=["no gzip", "no json", "no review", "a list"],
)
def test_a_file_that_is_no_review_file_is_a_download_error(server, beauty, content):
    server.files[REVIEWS] = content
    with pytest.raises(DownloadError, match=f"{REVIEWS} is damaged, or not a file of reviews"):
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
    next(tmp_path.rglob("*items.parquet")).unlink()
    with pytest.raises(DownloadError, match=f"{META} has changed"):
        beauty()


def test_stars_choose_reviews_or_weigh_them(server, beauty):
    """In the file all have four stars; here p1 has two."""
    server.files[REVIEWS] = gzip_lines(found | {"overall": 2.0 if found["asin"] == "p1" else 5.0} for found in reviews())
    liked = beauty(events=EventSettings(rating="rating", min_rating=4))
    assert sizes(liked) == (5, 5, 20) and "p1" not in set(liked.event_table()["item_id"])  # which the catalogue still has
    weighed = beauty(events=EventSettings(weight="rating")).event_table()
    assert set(weighed.select("item_id", "rating").unique().iter_rows()) == {("p1", 2.0)} | {
        (item, 5.0) for item in ("p2", "p3", "p4", "p5")
    }
    with pytest.raises(DataError, match="events.rating names the column 'stars'"):
        beauty(events=EventSettings(rating="stars", min_rating=4))


# ---- 2018 -----------------------------------------------------------------------------------------------------------

SMALL_2018, ALL_2018 = "categoryFilesSmall/Gift_Cards_5.json.gz", "categoryFiles/Gift_Cards.json.gz"
META_2018 = "metaFiles2/meta_Gift_Cards.json.gz"


@pytest.fixture
def cards(tmp_path):
    """Loads gift cards of 2018; the server is ``cards.server``."""
    product = {
        "category": ["Gift Cards", "Gift Cards", "For &amp; Her"],
        "tech1": "",
        "description": ["Fits <b>all</b>.", ""],
        "fit": "",
        "title": "Card of Joy",
        "also_buy": ["p2"],
        "image": [],
        "tech2": "",
        "brand": "Joy Inc.",
        "feature": ["No fees", "By mail"],
        "rank": [],
        "also_view": [],
        "main_cat": '<img src="x.png" alt="Gift Cards"/>',
        "similar_item": "",
        "date": "",
        "price": "$12.50 - $20.00",
        "asin": "p1",
        "imageURL": [],
        "imageURLHighRes": [],
    }
    script = {"asin": "p2", "title": "var aPageStart = (new Date()).getTime();", "price": ".a-box-inner{background:#fff}"}
    meta = [product, {**product, "title": "a second line of it"}, {**script, "brand": "Plain", "category": []}]
    meta += [{**product, "asin": "p9", "title": "Never reviewed"}]
    few = [{**found, "verified": True, "style": {"Amount:": " 25"}} for found in reviews()]
    everything = [*few, review("G", "p7", 3)]
    files = {SMALL_2018: gzip_lines([*few, few[0]]), ALL_2018: gzip_lines(everything), META_2018: gzip_lines(meta)}
    with FileServer(files) as running:

        def load(**more):
            return amazon_reviews_2018("Gift_Cards", cache=tmp_path, base_url=running.url, **more)

        load.server = running
        yield load


def test_amazon_2018(cards, caplog):
    dataset = cards()
    assert sizes(dataset) == (5, 5, 25) and dataset.name == "amazon-2018-Gift_Cards"  # a review written twice is one
    assert [item for item, _ in events(dataset)["A"]] == ["p4", "p1", "p2", "p3", "p5"]
    assert events(dataset)["E"][0] == ("p4", START)
    assert column(dataset, "title") == {
        "p1": "Card of Joy",
        "p2": "Plain",
        **{p: f"product {p}" for p in ("p3", "p4", "p5")},
    }
    text = "Card of Joy. $12.50 - $20.00. Joy Inc.. No fees, By mail. Gift Cards, Gift Cards, For & Her. Fits all ."
    assert column(dataset, "text")["p1"] == text and column(dataset, "text")["p2"] == "Plain"
    assert column(dataset, "categories")["p1"] == ["Gift Cards", "For & Her", "Joy Inc."]
    assert "3 items with events have no metadata" in caplog.text
    assert [request.path[1:] for request in cards.server.requests] == [SMALL_2018, META_2018]


def test_stars_of_2018_and_2023_are_a_column_too(cards, software):
    assert set(cards(events=EventSettings(weight="rating")).event_table()["rating"]) == {4.0}
    assert set(software(events=EventSettings(weight="rating")).event_table()["rating"]) == {5.0}


def test_amazon_2018_of_all_reviews(cards):
    assert sizes(cards(core=0)) == (7, 7, 32) and sizes(cards(core=2)) == (6, 6, 31)
    assert cards.server.asked(ALL_2018) == [None] and not cards.server.asked(SMALL_2018)


def test_damaged_files_of_2018(cards):
    cards.server.files[SMALL_2018] = cards.server.files[SMALL_2018][:-9]
    with pytest.raises(DownloadError, match=r"Gift_Cards_5.json.gz is damaged"):
        cards()
    cards.server.files[META_2018] = gzip.compress(b'{"asin": "p1", "title"\n')
    with pytest.raises(DownloadError, match=r"meta_Gift_Cards.json.gz is damaged, or not a file of products"):
        cards(core=0)


# ---- 2023 -----------------------------------------------------------------------------------------------------------

RATED, ALL_RATED = (f"benchmark/{kind}/rating_only/Software.csv.gz" for kind in ("5core", "0core"))
META_2023 = "raw/meta_categories/meta_Software.jsonl.gz"


@pytest.fixture
def software(tmp_path):
    """Loads software of 2023; the server is ``software.server``."""

    def ratings(found):
        rows = [f"{r['reviewerID']},{r['asin']},5.0,{1000 * r['unixReviewTime'] + 7}" for r in found]
        return gzip.compress("\n".join(["user_id,parent_asin,rating,timestamp", *rows, ""]).encode())

    product = {
        "main_category": "Software",
        "title": "Tax, 2 users",
        "average_rating": 4.1,
        "rating_number": 9,
        "features": ["Fast"],
        "description": ["Files <br> taxes."],
        "price": 19.99,
        "images": [{"thumb": "t.jpg", "large": "l.jpg", "variant": "MAIN"}],
        "videos": [],
        "store": "Sum & Co",
        "categories": ["Software", "Tax"],
        "details": {"Date First Available": "May 1, 2020", "asin": "p2"},
        "parent_asin": "p1",
        "bought_together": None,
    }
    meta = [{**product, "parent_asin": "p9"}, product]
    meta += [{**product, "parent_asin": "p2", "title": "Game", "price": None, "store": None, "features": []}]
    everything = [*reviews(), review("G", "007", 3)]
    files = {RATED: ratings(reviews()), ALL_RATED: ratings(everything), META_2023: gzip_lines(meta)}
    with FileServer(files) as running:

        def load(**more):
            return amazon_reviews_2023("Software", cache=tmp_path, base_url=running.url, **more)

        load.server = running
        yield load


def test_amazon_2023(software):
    dataset = software()
    assert sizes(dataset) == (5, 5, 25) and dataset.name == "amazon-2023-Software"
    expected = [("p4", 0), ("p1", 1), ("p2", 1), ("p3", 2), ("p5", 2)]
    assert events(dataset)["C"] == [(item, 1000 * (START + day * DAY) + 7) for item, day in expected]
    text = column(dataset, "text")
    assert text["p1"] == "Tax, 2 users. 19.99. Sum & Co. Fast. Software, Tax. Files taxes."
    assert text["p2"] == "Game. Software, Tax. Files taxes." and text["p3"] == "product p3"
    assert column(dataset, "title")["p1"] == "Tax, 2 users"
    assert column(dataset, "categories")["p1"] == ["Software", "Tax", "Sum & Co"]
    assert [request.path[1:] for request in software.server.requests] == [RATED, META_2023]


def test_amazon_2023_of_all_ratings(software):
    whole = software(core=0)
    assert sizes(whole) == (7, 7, 32) and "007" in whole.items.series  # ids keep their zeros
    assert software.server.asked(ALL_RATED) == [None] and not software.server.asked(RATED)


def test_damaged_files_of_2023(software):
    software.server.files[RATED] = gzip.compress(b"user,item,rating,timestamp\nA,p1,5,1\n")
    with pytest.raises(DownloadError, match=r"Software-5core.csv.gz is damaged, or not a file of ratings .*user_id"):
        software()
    software.server.files[ALL_RATED] = software.server.files[ALL_RATED][:-9]
    with pytest.raises(DownloadError, match=r"Software-0core.csv.gz is damaged"):
        software(core=0)


@pytest.mark.parametrize(
    ("load", "year", "wrong", "near"),
    [
        (amazon_reviews_2014, 2014, "beauty", "Beauty"),
        (amazon_reviews_2018, 2018, "Luxury-Beauty", "Luxury_Beauty"),
        (amazon_reviews_2023, 2023, "Video_Game", "Video_Games"),
    ],
)
def test_an_unknown_category_gets_a_hint(load, year, wrong, near):
    with pytest.raises(DataError, match=f"Amazon Reviews {year} has no category '{wrong}'; did you mean '{near}'"):
        load(wrong)
