"""Ids at every door of a recommender: histories, filters, users, similar items, and changes of the catalogue."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import diffgrm
from diffgrm import InteractionDataset, PopularityRecommender
from diffgrm.foundation.schema import DataError, DiffGRMError
from diffgrm.semantic_ids.embeddings.precomputed import Precomputed

TIMES = [datetime.datetime(1970, 1, 1), pd.Timestamp(7), pd.NaT]
NEARLY_SEVEN = [7.9, 7.0, True, "007", "+7", " 7", "7.0", *TIMES, None, float("nan"), [7], {"7": 7}]


def world(kind=int, items=12):
    """Users who go through items 1, 2, 3..."""
    ids = [kind(item) for item in range(1, items + 1)]
    events = pl.DataFrame([(u, i, t) for u in range(5) for t, i in enumerate(ids[u:])], ["user_id", "item_id", "timestamp"],
                          orient="row")  # fmt: skip
    table = pl.DataFrame({"item_id": ids, "text": [f"thing {item} of wood" for item in ids], "price": [1.5] * items})
    return InteractionDataset.from_tables(events, table)


@pytest.fixture(scope="module")
def numbers():
    return PopularityRecommender().fit(world(int))


@pytest.fixture(scope="module")
def texts():
    return PopularityRecommender().fit(world(str))


@pytest.mark.parametrize("value", NEARLY_SEVEN, ids=repr)
def test_what_is_nearly_item_7_is_it_nowhere(numbers, value):
    with pytest.raises(DataError, match="1 of 1 histories hold no known item"):
        numbers.recommend({"u": [value]}, k=2)
    for ask in (
        lambda: numbers.recommend([[1]], k=2, without=[value]),
        lambda: numbers.recommend([[1]], k=2, only=[value]),
        lambda: numbers.remove_items([value]),
        lambda: numbers.restore_items([value]),
        lambda: numbers.similar_items(value),
        lambda: numbers.recommend(users=[value]),
    ):
        with pytest.raises((DataError, DiffGRMError), match="in the catalogue|not ids|unknown users|no similar"):
            ask()


@pytest.mark.parametrize("value", [7, "7", np.int64(7), np.str_("7")], ids=repr)
def test_item_7_is_found_by_number_and_by_text_everywhere(numbers, texts, value):
    for recommender in (numbers, texts):
        known = recommender.items.ids([6])[0]
        assert recommender.recommend([[1]], k=1, only=value)["item_id"].to_list() == [known]
        assert known not in recommender.recommend([[value]], k=11)["item_id"]
        assert known not in recommender.recommend([[1]], k=10, without=value)["item_id"]
        assert not recommender.remove_items(value).recommendable[6]
        assert recommender.remove_items([value]).restore_items({value}).recommendable.all()


def test_unknown_history_items_are_named(numbers, caplog):
    numbers.recommend({"u": [7, "007", 7.9]}, k=2)
    assert "2 history items are not in the catalogue and are passed over: '007', 7.9" in caplog.text


def test_histories_may_be_arrays_and_series(numbers):
    wanted = numbers.recommend([[7, 8]], k=3)
    for form in ([7, 8], (7, 8), np.array([7, 8]), np.array([[7, 8]]), pl.Series([7, 8]), pd.Series([7, 8]),
                 pl.Series([[7, 8]]), [pd.Series([7.0, 8.0])], [("7", 8)]):  # fmt: skip
        assert numbers.recommend(form, k=3).equals(wanted)
    with pytest.raises(DataError, match="found something else for: u"):
        numbers.recommend({"u": "78"}, k=3)
    with pytest.raises(DataError, match="cannot read histories from set"):
        numbers.recommend({7, 8}, k=3)


FORMS = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "array": np.array,
    "polars series": pl.Series,
    "pandas series": pd.Series,
    "frame": lambda ids: pl.DataFrame({"item_id": ids, "price": 1}),
    "pandas frame": lambda ids: pd.DataFrame({"item_id": ids}),
    "iterator": iter,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_filters_take_every_form(texts, numbers, form, tmp_path):
    for recommender, ids in ((texts, ["4", "5"]), (numbers, [4, 5])):
        assert sorted(recommender.recommend([[1]], k=2, only=form(ids))["item_id"]) == ids
        assert not set(recommender.recommend([[1]], k=9, without=form(ids))["item_id"]) & set(ids)
        assert np.flatnonzero(~recommender.remove_items(form(ids)).recommendable).tolist() == [3, 4]


def test_filters_may_be_paths_and_a_text_is_one_id(texts, numbers, tmp_path):
    path = tmp_path / "in[stock].csv"
    path.write_text("item_id\n4\n5\n")
    for recommender in (texts, numbers):
        assert sorted(map(str, recommender.recommend([[1]], k=2, only=path)["item_id"])) == ["4", "5"]
    with pytest.raises(DataError, match="the filter forbids nothing: 'without' names 1 items, none of which is"):
        texts.recommend([[1]], k=2, without=str(path))
    with pytest.raises(DataError, match="'without' names 1 items, none of which is in the catalogue: item 17"):
        texts.recommend([[1]], k=2, without="item 17")


def test_filters_partly_unknown_are_warned_of_and_wholly_unknown_refused(texts, caplog):
    assert "4" not in texts.recommend([[1]], k=9, without=["4", "nothing", "007"])["item_id"]
    assert "'without' names 2 items that are not in the catalogue: nothing, 007" in caplog.text
    for name in ("only", "without"):
        with pytest.raises(DataError, match=f"'{name}' names 2 items, none of which is in the catalogue: x, y"):
            texts.recommend([[1]], k=2, **{name: ["x", "y"]})
    assert texts.recommend([[1]], k=2, without=[]).height == 2


@pytest.mark.parametrize("wrong", [{"4": 1}, 4.0, True, b"4", [["4"], ["5"]], object(), pl.DataFrame({"item": ["4"]})])
def test_filters_of_other_kinds_are_refused_with_the_remedy(texts, wrong):
    for ask in (
        lambda: texts.recommend([[1]], k=2, only=wrong),
        lambda: texts.recommend([[1]], k=2, without=wrong),
        lambda: texts.remove_items(wrong),
        lambda: texts.restore_items(wrong),
    ):
        with pytest.raises(DataError, match="expected one id, a list|in one flat list|give the column itself"):
            ask()


def test_users_take_the_same_forms(texts):
    wanted = texts.recommend(users=[3, 4], k=2)
    for form in ((3, 4), np.array([3, 4]), pl.DataFrame({"user_id": [3, 4]}), ["3", "4"]):
        assert texts.recommend(users=form, k=2).equals(wanted)
    assert texts.recommend(users=3, k=2)["user_id"].unique().to_list() == [3]
    with pytest.raises(DataError, match="unknown users: nobody"):
        texts.recommend(users="nobody", k=2)
    with pytest.raises(DataError, match="'users' is .*; expected one id"):
        texts.recommend(users={"3": 1}, k=2)
    with pytest.raises(DataError, match="no users were given"):
        texts.recommend(users=[], k=2)


def test_precomputed_vectors_match_by_spelling_and_by_their_own_path(tmp_path):
    path = tmp_path / "v[1]?.parquet"
    items = pl.DataFrame({"item_id": [7, 8], "text": ["x", "y"]})
    pl.DataFrame({"item_id": ["8", "7"], "embedding": [[0.0, 2.0], [3.0, 0.0]]}).write_parquet(path)
    assert Precomputed(str(path)).encode(items).tolist() == [[1, 0], [0, 1]]
    for nearly in (["8", "007"], ["8", "+7"], [8.0, 7.9], [True, False]):
        pl.DataFrame({"item_id": nearly, "embedding": [[0.0, 2.0], [3.0, 0.0]]}).write_parquet(path)
        with pytest.raises(DataError, match="items have no vector: .*7"):
            Precomputed(str(path)).encode(items)


def test_a_csv_adds_items_to_a_catalogue_of_whole_numbers(numbers, tmp_path):
    path = tmp_path / "new[1].csv"
    path.write_text("item_id,text,price\n600,new thing,2.5\n601,other thing,\n")
    grown = numbers.add_items(path)
    assert grown.items.ids([12, 13]) == [600, 601] and grown.item_table["price"].to_list()[12:] == [2.5, None]
    assert grown.recommend([["600"]], k=1, only=[601])["item_id"].to_list() == [601]
    again = diffgrm.load(grown.save(tmp_path / "model"))
    path.write_text("item_id,text\n600,changed\n")
    assert again.update_items(path, "keep").item_table["text"][12] == "changed"
    path.write_text("item_id,text\n600,again\n")
    with pytest.raises(DataError, match="in the catalogue already: 600; use update_items"):
        again.add_items(path)


def test_new_items_that_do_not_fit_are_all_told(numbers):
    with pytest.raises(DataError) as error:
        numbers.add_items(pl.DataFrame({"item_id": ["007", "a"], "text": ["x", "y"], "price": ["1.5", "cheap"]}))
    assert "whole numbers, 2 of the new ones are not: '007', 'a'" in str(error.value)
    assert "price is 'cheap' in row 1; expected values of type Float64, or leave the column out" in str(error.value)


def test_what_new_items_hold_is_not_cut_off(tmp_path):
    table = world().item_table.with_columns(
        stock=pl.lit(5), brand=pl.lit("oak", pl.Categorical), nothing=pl.lit(None), tags=pl.lit([["a"]]).first()
    )
    whole = PopularityRecommender().fit(InteractionDataset.from_tables(world().event_table(), table))
    new = {"item_id": [600, 601], "text": ["x", "y"]}
    grown = whole.add_items(pl.DataFrame({**new, "stock": [7.0, None], "brand": ["elm", None], "nothing": ["now", None]}))
    assert grown.item_table["stock"].to_list()[12:] == [7, None] and grown.item_table["brand"][12] == "elm"
    assert diffgrm.load(grown.save(tmp_path / "model")).item_table["nothing"][12] == "now"
    with pytest.raises(DataError, match="stock is 2.5 in row 1; expected values of type Int32, or leave the column out"):
        whole.add_items(pl.DataFrame({**new, "stock": [7.0, 2.5]}))


id_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
ids_of_items = st.lists(id_texts, unique=True, min_size=3, max_size=8) | st.lists(
    st.integers(-(2**63), 2**63 - 1), unique=True, min_size=3, max_size=8
)


@given(ids_of_items, st.data())
def test_any_ids_are_recommended_and_filtered_as_they_are(items, data):
    events = pl.DataFrame({"user_id": ["u"] * len(items), "item_id": items})
    dataset = InteractionDataset.from_tables(events, pl.DataFrame({"item_id": items, "text": ["x"] * len(items)}))
    recommender = PopularityRecommender(diffgrm.Recipe(recommender="popularity", data={"split": "validation_only"}))
    recommender.fit(dataset)
    history, wanted = data.draw(st.sampled_from(items)), data.draw(st.sets(st.sampled_from(items), min_size=1))
    found = recommender.recommend([[history]], k=len(items), exclude_seen=False, only=wanted)
    assert set(found["item_id"]) == wanted
    assert set(recommender.recommend([[history]], k=len(items))["item_id"]) == set(items) - {history}


@example([0, -1.0], "x")
@given(
    st.lists(st.one_of(id_texts, st.integers(), st.floats(), st.booleans(), st.none(), st.dates()), max_size=5), st.text()
)
def test_any_rows_are_added_as_they_are_or_refused(texts, new, text):
    frame = pd.DataFrame({"item_id": pd.Series(new, dtype=object), "text": [text] * len(new)})
    try:
        grown = texts.add_items(frame)
    except DataError as error:
        assert "item" in str(error)
    else:
        if all(type(item) in (int, float) and float(item).is_integer() for item in new):  # as pandas makes of whole numbers
            new = [int(item) for item in new]
        assert grown.items.ids(range(12, 12 + len(new))) == sorted(map(str, new), key=lambda item: (len(item), item))
