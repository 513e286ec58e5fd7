from __future__ import annotations

import hashlib

import polars as pl
import pytest

from diffgrm import movielens
from diffgrm.data.sources.movielens import movielens_users
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, DownloadError
from helpers.published import column, events, sizes, zipped
from helpers.servers import FileServer

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical Mystery "
    "Romance Sci-Fi Thriller War Western"
)


def film_100k(item, title, *genres):
    flags = "|".join(str(int(genre in genres)) for genre in GENRES.split(" "))
    return f"{item}|{title}|01-Jan-1995||http://us.imdb.com/M/title-exact?{item}|{flags}\n"


def csv_files(folder):
    return {
        f"{folder}/README.txt": "Terms of use",
        f"{folder}/ratings.csv": "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n2,29,4.0,5\n",
        f"{folder}/movies.csv": "movieId,title,genres\n2,Jumanji (1995),Adventure|Children|Fantasy\n"
        '29,"City of Lost Children, The (Cit\u00e9 des ""enfants"" perdus, La) (1995)",Adventure|Sci-Fi\n'
        "7,Sabrina (1995),(no genres listed)\n",
    }


@pytest.fixture
def server():
    """All sizes, each with its checksum as GroupLens writes them."""
    files = {
        "ml-100k.zip": {
            "ml-100k/u.data": "196\t242\t3\t881250949\n196\t7\t3\t881250949\n22\t242\t1\t878887116\n196\t30\t5\t100\n",
            "ml-100k/u.genre": "".join(f"{genre}|{i}\n" for i, genre in enumerate(GENRES.split(" "))) + "\n",
            "ml-100k/u.item": (
                film_100k(242, "Kolya (1996)", "Comedy")
                + film_100k(7, "Mis\u00e9rables, Les (1995)", "Drama", "Musical")
                + film_100k(30, "unknown", "unknown")
                + film_100k(31, "Unseen (1995)")
            ).encode("latin-1"),
            "ml-100k/u.user": "196|17|M|writer|55105\n22|25|F|none|T8H1N\n7|56|M|doctor|05201\n",
        },
        "ml-1m.zip": {
            "ml-1m/ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n1::914::3::978300760\n"
            "2::661::4::978298413\n",
            "ml-1m/movies.dat": (
                "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
                "914::My Fair Lady: A Musical (1964)::Musical|Romance\n"
                "1193::Cit\u00e9 des enfants perdus, La (1995)::Adventure|Sci-Fi\n"
            ).encode("latin-1"),
            "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n3::M::45::15::55117\n",
        },
        "ml-10m.zip": {  # in a folder of another name, and in UTF-8
            "ml-10M100K/ratings.dat": "1::122::5::838985046\n1::185::4.5::838983525\n2::122::0.5::868244562\n",
            "ml-10M100K/movies.dat": "122::Boomerang (1992)::Comedy|Romance\n185::Cit\u00e9 (1995)::(no genres listed)\n",
            "ml-10M100K/tags.dat": "15::4973::excellent!::1215184630\n",
        },
        **{f"ml-{size}.zip": csv_files(f"ml-{size}") for size in ("20m", "25m", "32m")},
    }
    packed = {name: zipped(content) for name, content in files.items()}
    sums = {f"{name}.md5": f"MD5 ({name}) = {hashlib.md5(data).hexdigest()}\n".encode() for name, data in packed.items()}
    with FileServer({**packed, **sums}) as running:
        yield running


@pytest.fixture
def load(server, tmp_path):
    return lambda size, **more: movielens(size, cache=tmp_path, base_url=server.url, **more)


def test_movielens_100k(load):
    dataset = load("100k", checksum=None)
    assert sizes(dataset) == (2, 4, 4) and dataset.name == "movielens-100k"
    assert events(dataset) == {"196": [("30", 100), ("242", 881250949), ("7", 881250949)], "22": [("242", 878887116)]}
    assert column(dataset, "text") == {
        "242": "Kolya (1996); Comedy",
        "7": "Mis\u00e9rables, Les (1995); Drama Musical",
        "30": "unknown; unknown",
        "31": "Unseen (1995)",
    }
    assert column(dataset, "title")["7"] == "Mis\u00e9rables, Les (1995)"
    assert column(dataset, "genres") == {"242": ["Comedy"], "7": ["Drama", "Musical"], "30": ["unknown"], "31": []}


def test_movielens_1m(load):
    dataset = load("1M", checksum=None)
    assert sizes(dataset) == (2, 3, 4)
    ordered = [("1193", 978300760), ("914", 978300760), ("661", 978302109)]
    assert events(dataset) == {"1": ordered, "2": [("661", 978298413)]}
    assert column(dataset, "text")["914"] == "My Fair Lady: A Musical (1964); Musical Romance"
    assert column(dataset, "text")["1193"] == "Cit\u00e9 des enfants perdus, La (1995); Adventure Sci-Fi"
    assert column(dataset, "genres")["661"] == ["Animation", "Children's", "Musical"]


def test_movielens_10m(load):
    dataset = load("10m")
    assert sizes(dataset) == (2, 2, 3) and dataset.name == "movielens-10m"
    assert events(dataset) == {"1": [("185", 838983525), ("122", 838985046)], "2": [("122", 868244562)]}
    assert column(dataset, "text") == {"122": "Boomerang (1992); Comedy Romance", "185": "Cit\u00e9 (1995)"}
    assert column(dataset, "genres") == {"122": ["Comedy", "Romance"], "185": []}


@pytest.mark.parametrize("size", ["20m", "25m", "32m"])
def test_movielens_as_csv(load, size):
    dataset = load(size)
    assert sizes(dataset) == (2, 3, 3) and dataset.name == f"movielens-{size}"
    assert events(dataset) == {"1": [("29", 1112484676), ("2", 1112486027)], "2": [("29", 5)]}
    lost = 'City of Lost Children, The (Cit\u00e9 des "enfants" perdus, La) (1995)'
    assert column(dataset, "title") == {"2": "Jumanji (1995)", "29": lost, "7": "Sabrina (1995)"}
    assert column(dataset, "text")["29"] == f"{lost}; Adventure Sci-Fi" and column(dataset, "text")["7"] == "Sabrina (1995)"
    assert column(dataset, "genres") == {"2": ["Adventure", "Children", "Fantasy"], "29": ["Adventure", "Sci-Fi"], "7": []}


@pytest.mark.parametrize("size", ["100k", "1m", "10m", "20m"])
def test_ratings_choose_events_or_weigh_them(load, size):
    wanted = {
        "100k": {"196": [("30", 5.0), ("242", 3.0), ("7", 3.0)], "22": [("242", 1.0)]},
        "1m": {"1": [("1193", 5.0), ("914", 3.0), ("661", 3.0)], "2": [("661", 4.0)]},
        "10m": {"1": [("185", 4.5), ("122", 5.0)], "2": [("122", 0.5)]},
        "20m": {"1": [("29", 3.5), ("2", 3.5)], "2": [("29", 4.0)]},
    }[size]
    weighed = load(size, checksum=None, events=EventSettings(weight="rating"))
    assert {user: [(item, weight) for item, weight, _ in rows] for user, rows in by_user(weighed).items()} == wanted
    liked = load(size, checksum=None, events=EventSettings(rating="rating", min_rating=4))
    high = {user: [item for item, rating in rows if rating >= 4] for user, rows in wanted.items()}
    assert {user: [row[0] for row in rows] for user, rows in by_user(liked).items()} == {u: i for u, i in high.items() if i}
    assert liked.n_items == weighed.n_items and "below 4.0 (events.min_rating)" in str(liked.report)


def test_what_is_told_of_users_is_a_table_of_its_own(server, tmp_path):
    table = movielens_users("100K", cache=tmp_path, base_url=server.url, checksum=None)
    assert table.columns == ["user_id", "gender", "age_group", "age", "occupation", "zip"]
    assert table.rows() == [
        ("196", "M", "under 18", "17", "writer", "55105"),
        ("22", "F", "25-34", "25", "none", "T8H1N"),
        ("7", "M", "56 and over", "56", "doctor", "05201"),
    ]
    table = movielens_users("1m", cache=tmp_path, base_url=server.url, checksum=None)
    assert table.columns == ["user_id", "gender", "age_group", "occupation", "zip"]
    assert table.rows() == [
        ("1", "F", "under 18", "10", "48067"),
        ("2", "M", "56 and over", "16", "70072"),
        ("3", "M", "45-49", "15", "55117"),
    ]
    with pytest.raises(DataError, match="MovieLens 20m tells nothing of users; 100k, 1m do"):
        movielens_users("20m", cache=tmp_path, base_url=server.url)
    server.files["ml-1m.zip"] = zipped({"ml-1m/users.dat": "1::F\n"})
    with pytest.raises(DownloadError, match="is damaged, or not the MovieLens archive"):
        movielens_users("1m", cache=tmp_path / "other", base_url=server.url, checksum=None)


@pytest.mark.parametrize("size", ["100k", "1m"])
def test_networks_can_be_told_of_users(load, size):
    told = EventSettings(user_columns={"gender": ["F", "M"], "age_group": ["under 18", "25-34"]})
    dataset = load(size, checksum=None, events=told)
    numbers = dict(zip(dataset.users.series, dataset.events.facts.columns.tolist(), strict=True))
    assert numbers == {"100k": {"196": [2, 1], "22": [1, 2]}, "1m": {"1": [1, 1], "2": [2, 0]}}[size]
    with pytest.raises(DataError, match="(?s)the table of users has columns .*expected column 'sex'"):
        load(size, checksum=None, events=EventSettings(user_columns={"sex": ["F"]}))


def test_sizes_without_users_say_so_before_anything_is_fetched(server, load):
    with pytest.raises(DataError, match="names 'gender', but movielens-20m has no table of users; leave it out, or give"):
        load("20m", events=EventSettings(user_columns={"gender": ["F"]}))
    assert not server.requests


def by_user(dataset):
    found = {}
    for user, *rest in dataset.event_table().iter_rows():
        found.setdefault(user, []).append(tuple(rest))
    return found


def test_a_table_that_an_older_version_cached_without_ratings_is_made_anew_from_the_file_at_hand(server, load, tmp_path):
    plain = load("20m")
    path = next(tmp_path.rglob("*interactions.parquet"))
    pl.read_parquet(path).drop("rating").write_parquet(path)
    server.close()
    assert load("20m", events=EventSettings(rating="rating", min_rating=4)).event_table()["item_id"].to_list() == ["29"]
    assert load("20m").event_table().equals(plain.event_table())


def test_a_core_leaves_out_thin_users_and_films_and_those_that_nobody_rated(load):
    assert sizes(load("20m", core=1)) == (2, 2, 3)
    with pytest.raises(DataError, match="no user and item of movielens-20m have 2 events each"):
        load("20m", core=2)


def test_a_right_checksum_is_accepted_and_the_second_load_needs_no_server(server, load):
    checksum = "md5:" + hashlib.md5(server.files["ml-100k.zip"]).hexdigest()
    first = load("100k", checksum=checksum)
    server.close()
    second = load("100k", checksum=checksum)
    assert second.event_table().equals(first.event_table())


def test_the_checksum_beside_the_file_is_asked_for_once(server, load):
    load("32m")
    assert [request.path for request in server.requests] == ["/ml-32m.zip.md5", "/ml-32m.zip"]
    server.close()
    assert sizes(load("32m", core=1)) == (2, 2, 3)  # made anew from the file at hand, without asking


@pytest.mark.parametrize("checksum", ["", "md5:" + "0" * 32, "sha256:" + "0" * 64])
@pytest.mark.parametrize("size", ["100k", "32m"])
def test_a_wrong_checksum_is_an_error_and_the_file_is_discarded(server, load, tmp_path, size, checksum):
    server.files["ml-32m.zip.md5"] = b"0" * 32 + b"  ml-32m.zip\n"
    with pytest.raises(DownloadError, match=r"checksum is .* the download was discarded"):
        load(size, checksum=checksum)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_where_the_checksum_is_not_there_the_first_download_is_trusted_with_a_warning(server, load, tmp_path, caplog):
    del server.files["ml-20m.zip.md5"]
    assert sizes(load("20m")) == (2, 3, 3)
    assert "ml-20m.zip.md5 is not there: the file cannot be compared with its publisher's checksum" in caplog.text
    next(tmp_path.rglob("ml-20m.zip")).write_bytes(zipped(csv_files("ml-20m") | {"more": "x"}))
    with pytest.raises(DownloadError, match=r"ml-20m\.zip has changed since it was downloaded"):
        load("20m", core=1)


def test_a_checksum_file_that_holds_none_is_an_error(server, load):
    server.files["ml-20m.zip.md5"] = b"<html>Moved</html>"
    with pytest.raises(DownloadError, match=r"ml-20m\.zip\.md5 holds 0 MD5 checksums; expected one: '<html>Moved</html>'"):
        load("20m")


@pytest.mark.parametrize("size", ["100k", "1m", "10m", "20m"])
def test_an_archive_that_is_none_is_a_download_error(server, load, size):
    server.files[f"ml-{size}.zip"] = server.files[f"ml-{size}.zip"][:-30]
    with pytest.raises(
        DownloadError, match=r"ml-\w+\.zip is damaged, or not the MovieLens archive .* delete it and try again"
    ):
        load(size, checksum=None)


@pytest.mark.parametrize(
    ("size", "files"),
    [
        ("1m", {"ratings.dat": "1::2\n", "movies.dat": ""}),
        ("1m", {"ratings.dat": "1::2::3::soon\n", "movies.dat": ""}),
        ("1m", {"ratings.dat": "1::2::3::4\n", "movies.dat": "2::Film\n"}),
        ("20m", {"ratings.csv": "user,film\n1,2\n", "movies.csv": ""}),
        ("20m", {"ratings.csv": "userId,movieId,rating,timestamp\n1,2,3,4\n", "movies.csv": "movieId,title\n2,Film\n"}),
    ],
)
def test_tables_of_another_form_are_a_download_error(server, load, size, files):
    server.files[f"ml-{size}.zip"] = zipped(files)
    with pytest.raises(DownloadError, match="is damaged, or not the MovieLens archive"):
        load(size, checksum=None)


def test_an_archive_without_a_file_names_it(server, load):
    server.files["ml-1m.zip"] = zipped({"ml-1m/ratings.dat": "1::661::3::978302109\n"})
    with pytest.raises(DownloadError, match=r"there is no file movies\.dat in the archive"):
        load("1m", checksum=None)


def test_an_unknown_size_gets_a_hint():
    with pytest.raises(DataError, match="MovieLens size '33m' is not offered; did you mean '32m'"):
        movielens("33m")
