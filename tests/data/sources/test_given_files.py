"""Datasets whose files only the user can get: Yelp, Retailrocket, MIND."""

from __future__ import annotations

import pytest

from diffgrm import load_source, mind_small, retailrocket, yelp
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, DownloadError
from helpers.published import column, events, json_lines, sizes, tarred, zipped


@pytest.fixture
def given(tmp_path):
    """Writes a file as the user has downloaded it."""

    def write(name, content):
        (tmp_path / "Downloads").mkdir(exist_ok=True)
        path = tmp_path / "Downloads" / name
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


# ---- Yelp -------------------------------------------------------------------------------------------------------------


def yelp_files():
    reviews = [
        ("u1", "b1", "2018-07-07 22:09:11"),
        ("u1", "b2", "2012-01-03 15:28:18"),
        ("u2", "b1", "2014-02-05 20:30:30"),
    ]
    review = {"review_id": "r", "stars": 3.0, "useful": 0, "funny": 0, "cool": 0, "text": "If you\nlove \u201cit\u201d"}
    business = {"address": "1 Main", "postal_code": "19107", "latitude": 39.9, "is_open": 1, "attributes": None}
    businesses = [
        {
            "business_id": "b1",
            "name": "St Honore & Co",
            "city": "Philadelphia",
            "state": "PA",
            "categories": "Food, Bakeries",
        },
        {"business_id": "b2", "name": "Target", "city": "Tucson", "state": "AZ", "categories": None},
        {"business_id": "b3", "name": "Unseen", "city": "", "state": "", "categories": "Food"},
    ]
    return {
        "Dataset_User_Agreement.pdf": b"%PDF",
        "yelp_academic_dataset_business.json": json_lines({**business, **found} for found in businesses),
        "yelp_academic_dataset_review.json": json_lines(
            {**review, "user_id": user, "business_id": item, "date": date} for user, item, date in reviews
        ),
    }


@pytest.mark.parametrize(("name", "mode"), [("yelp_dataset.tar", "w"), ("yelp_dataset.tgz", "w:gz")])
def test_yelp(given, cache, name, mode):
    path = given(name, tarred(yelp_files(), mode))
    dataset = yelp(path, cache=cache, core=0)
    assert sizes(dataset) == (2, 3, 3) and dataset.name == "yelp"
    assert events(dataset) == {"u1": [("b2", 1_325_604_498), ("b1", 1_531_001_351)], "u2": [("b1", 1_391_632_230)]}
    assert column(dataset, "title") == {"b1": "St Honore & Co", "b2": "Target", "b3": "Unseen"}
    assert column(dataset, "text") == {
        "b1": "St Honore & Co. Food, Bakeries. Philadelphia, PA",
        "b2": "Target. Tucson, AZ",
        "b3": "Unseen. Food",
    }
    assert column(dataset, "categories") == {"b1": ["Food", "Bakeries"], "b2": [], "b3": ["Food"]}
    assert sizes(yelp(path, cache=cache, core=1)) == (2, 2, 3)


def test_stars_of_yelp_choose_reviews(given, cache):
    path = given("yelp_dataset.tar", tarred(yelp_files()))
    weighed = yelp(path, cache=cache, core=0, events=EventSettings(weight="rating"))
    assert weighed.event_table()["rating"].to_list() == [3.0] * 3


def test_a_file_that_is_replaced_is_read_anew(given, cache):
    files = yelp_files()
    assert sizes(yelp(given("y.tar", tarred(files)), cache=cache, core=0)) == (2, 3, 3)
    files["yelp_academic_dataset_review.json"] = b"".join(files["yelp_academic_dataset_review.json"].splitlines(True)[:2])
    assert sizes(yelp(given("y.tar", tarred(files)), cache=cache, core=0)) == (1, 3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:2000], "is damaged, or not Yelp's yelp_dataset.tar"),
        (lambda content: b"%PDF", "is damaged, or not Yelp's yelp_dataset.tar"),
        (lambda content: tarred({"a": b""}), "there is no file yelp_academic_dataset_review.json in the archive"),
        (lambda content: content.replace(b'"user_id"', b'"user_no"'), "KeyError"),
        (lambda content: content.replace(b'"cool": 0', b'"cool"; 0'), "JSONDecodeError"),
    ],
    ids=["truncated", "no archive", "other files", "no users", "no json"],
)
def test_damaged_files_of_yelp(given, cache, change, message):
    path = given("yelp_dataset.tar", change(tarred(yelp_files())))
    with pytest.raises(DownloadError, match=message) as error:
        yelp(path, cache=cache, core=0)
    assert str(path) in str(error.value) and "get it anew from https://www.yelp.com/dataset" in str(error.value)
    assert not list(cache.rglob("*.parquet"))


# ---- Retailrocket -----------------------------------------------------------------------------------------------------


def retailrocket_files():
    return {
        "events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,257597,view,248676,\n1433221999827,111016,view,355908,\n"
        "1433222276276,111016,addtocart,318965,\n1433222276277,111016,transaction,318965,4000\n",
        "category_tree.csv": "categoryid,parentid\n1016,213\n213,169\n169,\n",
        "item_properties_part1.csv": "timestamp,itemid,property,value\n1435460400000,355908,categoryid,213\n"
        "1441508400000,355908,888,1116713 960601 n277.200\n1439089200000,248676,categoryid,5\n",
        "item_properties_part2.csv": "timestamp,itemid,property,value\n1442113200000,355908,categoryid,1016\n"
        "1431226800000,355908,categoryid,9\n1431226800000,700,categoryid,169\n",
    }


def test_retailrocket(given, cache, caplog):
    path = given("archive.zip", zipped(retailrocket_files()))
    dataset = retailrocket(path, cache=cache, core=0)
    assert sizes(dataset) == (2, 3, 3) and dataset.name == "retailrocket"
    assert events(dataset) == {
        "257597": [("355908", 1433221332117), ("248676", 1433224214164)],
        "111016": [("355908", 1433221999827)],
    }
    texts = {"355908": "category 1016, 213, 169", "248676": "category 5", "700": "category 169"}
    assert column(dataset, "text") == texts and column(dataset, "title")["700"] == "item 700"
    assert column(dataset, "categories")["355908"] == ["1016", "213", "169"]
    bought = retailrocket(path, cache=cache, core=0, kinds=("addtocart", "transaction"))
    assert events(bought) == {"111016": [("318965", 1433222276276), ("318965", 1433222276277)]}
    assert column(bought, "text")["318965"] == "item 318965"
    assert sizes(retailrocket(path, cache=cache, core=1)) == (2, 2, 3)


def test_kinds_are_types_of_events_for_those_who_name_them(given, cache):
    path = given("archive.zip", zipped(retailrocket_files()))
    typed = EventSettings(event="event", targets=["view"], context=["addtocart"])
    dataset = retailrocket(path, cache=cache, core=0, events=typed)
    rows = dataset.event_table().filter(user_id="111016").select("item_id", "event").rows()
    assert rows == [("355908", "view"), ("318965", "addtocart")]


def test_kinds_of_events_that_are_none_get_a_hint(given, cache):
    with pytest.raises(DataError, match="Retailrocket has no events of the kind 'views'; did you mean 'view'"):
        retailrocket("archive.zip", kinds=["views"])
    with pytest.raises(DataError, match="Retailrocket has no events of the kind ''"):
        retailrocket("archive.zip", kinds=[])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("events.csv", "time,user\n1,2\n", "is damaged, or not Retailrocket's archive.zip"),
        (
            "events.csv",
            "timestamp,visitorid,event,itemid\nsoon,1,view,2\n",
            "is damaged, or not Retailrocket's archive.zip",
        ),
        ("category_tree.csv", None, "there is no file category_tree.csv in the archive"),
    ],
)
def test_damaged_files_of_retailrocket(given, cache, name, content, message):
    files = {key: text for key, text in {**retailrocket_files(), name: content}.items() if text is not None}
    with pytest.raises(DownloadError, match=message):
        retailrocket(given("archive.zip", zipped(files)), cache=cache, core=0)
    assert not list(cache.rglob("*.parquet"))


# ---- MIND -------------------------------------------------------------------------------------------------------------


def mind_files():
    shown = "N4-0 N5-1 N6-1"
    return {
        "MINDsmall_train/behaviors.tsv": f"1\tU1\t11/11/2019 9:05:58 AM\tN3 N1 N2\t{shown}\n"
        "2\tU2\t11/9/2019 12:30:00 PM\t\tN4-1 N5-0\n3\tU1\t11/9/2019 1:00:00 PM\tN3 N1 N2\tN2-0 N4-1\n",
        "MINDsmall_train/news.tsv": "".join(
            f'N{n}\tsports\tsoccer\tTitle "{n}\t{"An abstract." * (n != 4)}\thttps://x/{n}.html\t[]\t[{{"Label": "x"}}]\n'
            for n in range(1, 8)
        ),
        "MINDsmall_train/entity_embedding.vec": "Q1\t0.1\n",
    }


def test_mind(given, cache):
    path = given("MINDsmall_train.zip", zipped(mind_files()))
    dataset = mind_small(path, cache=cache, core=0)
    first = 1_573_302_600  # 2019-11-09 12:30:00
    assert sizes(dataset) == (2, 7, 7) and dataset.name == "mind-small"
    assert events(dataset) == {
        "U1": [
            *((news, first - 1) for news in ("N3", "N1", "N2")),  # the history, once and before all clicks
            ("N4", first + 1800),
            *((news, 1_573_463_158) for news in ("N5", "N6")),
        ],
        "U2": [("N4", first)],
    }
    assert column(dataset, "title")["N1"] == 'Title "1'
    assert column(dataset, "text")["N1"] == 'Title "1. sports, soccer. An abstract.'
    assert column(dataset, "text")["N4"] == 'Title "4. sports, soccer' and column(dataset, "category")["N7"] == [
        "sports",
        "soccer",
    ]
    assert sizes(mind_small(path, cache=cache, core=1)) == (2, 6, 7)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("MINDsmall_train/behaviors.tsv", "1\tU1\tyesterday\tN1\tN2-1\n"),
        ("MINDsmall_train/behaviors.tsv", "1\tU1\n"),
        ("MINDsmall_train/news.tsv", None),
    ],
)
def test_damaged_files_of_mind(given, cache, name, content):
    files = {key: text for key, text in {**mind_files(), name: content}.items() if text is not None}
    with pytest.raises(DownloadError, match="is damaged, or not MIND's MINDsmall_train.zip"):
        mind_small(given("MINDsmall_train.zip", zipped(files)), cache=cache, core=0)
    assert not list(cache.rglob("*.parquet"))


# ---- all of them ------------------------------------------------------------------------------------------------------

PAGES = {
    "yelp": (yelp, "yelp_dataset.tar", "https://www.yelp.com/dataset"),
    "retailrocket": (retailrocket, "archive.zip", "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset"),
    "mind-small": (mind_small, "MINDsmall_train.zip", "https://msnews.github.io"),
}


@pytest.mark.parametrize("name", PAGES)
def test_without_the_file_the_message_names_the_page(name, tmp_path):
    load, file, page = PAGES[name]
    way = f"get {file} on {page} (its terms have to be accepted there), and name the file: {name}:FILE"
    for ask in (load, lambda: load_source(name), lambda: load_source(f"{name}:5-core")):
        with pytest.raises(DataError) as error:
            ask()
        assert str(error.value) == f"{name} cannot be downloaded without its publisher's consent; {way}"
    with pytest.raises(DataError) as error:
        load(tmp_path / "nowhere.zip")
    assert str(error.value) == f"there is no file {tmp_path / 'nowhere.zip'}; {way}"
    with pytest.raises(DataError, match="there is no file ~nobody-of-this-name/x; "):
        load("~nobody-of-this-name/x")


def test_a_file_may_have_colons_in_its_name_and_a_filter_behind(given, monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "mine"))
    path = given("yelp: new.tar", tarred(yelp_files()))
    assert sizes(load_source(f"yelp:{path}:0-core")) == (2, 3, 3)
    with pytest.raises(DataError, match="no user and item of yelp have 5 events each"):
        load_source(f"yelp:{path}")
    assert next((tmp_path / "mine" / "datasets").rglob("*.parquet")).is_file()
