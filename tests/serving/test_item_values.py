"""Values of item rows over HTTP: of the item table's types, or refused with their place; whatever stands beside them."""

from __future__ import annotations

import json

import polars as pl
import pytest

import diffgrm
from diffgrm.foundation.registry import resolve
from helpers.serving import BEARER, TOKEN, client_of, errors_of

pytest.importorskip("fastapi")

from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel
from diffgrm.apps.serving.live_folder import titles_of

UNFIT = [
    {"title": {"x": {}}},
    {"brand": {"a": 1}},
    {"brand": True},
    {"brand": ["A"]},
    {"stock": True},
    {"stock": "3"},
    {"stock": 3.0},
    {"stock": 3.7},
    {"sponsored": 0.0},
    {"sponsored": 1},
    {"sponsored": "true"},
    {"price": True},
    {"price": "1.5"},
    {"price": 9007199254740993},
    {"price": "inf"},
    {"price": "nan"},
    {"price": "1e400"},
    {"tags": [1]},
    {"tags": "a"},
    {"tags": ["a", {}]},
]


@pytest.fixture(scope="module")
def shop(toy, tmp_path_factory, limits):
    values = {"stock": 5, "price": 1.5, "sponsored": False, "tags": ["a"], "brand": "oak"}
    table = toy.item_table.with_columns(pl.Series(name, [value] * toy.item_table.height) for name, value in values.items())
    dataset = diffgrm.InteractionDataset.from_tables(toy.event_table(), table)
    model = resolve("recommender", "popularity")().fit(dataset, progress=False).save(tmp_path_factory.mktemp("shop") / "m")
    with client_of(create_app(LiveModel(model), limits, token=TOKEN)) as client:
        yield client


def row(**values):
    return {"item_id": "new", "text": "red coffee", **values}


def send(client, *rows, method="POST", **more):
    return client.request(method, "/items", json={"items": list(rows), **more}, headers=BEARER)


@pytest.mark.parametrize("values", UNFIT, ids=json.dumps)
def test_a_value_of_another_kind_is_refused_with_its_place(shop, values):
    (column,) = values
    before = shop.get("/model").json()
    good = {"stock": 1, "price": 0.5, "sponsored": True, "tags": ["b"], "brand": "elm", "title": "Red"}
    for rows in ([row(**values)], [row(**values), row(item_id="other", **good)]):
        assert errors_of(send(shop, *rows)) == {f"#/items/0/{column}"}
    known = row(item_id="item 3", **values)
    answer = send(shop, known, method="PUT", semantic_ids="keep")
    assert errors_of(answer) == {f"#/items/0/{column}"} and "expected" in answer.json()["errors"][0]["detail"]
    assert shop.get("/model").json() == before


def test_every_unfit_value_is_named(shop):
    answer = send(shop, row(stock="3", tags=[1]), row(item_id="other", price=True))
    assert answer.json()["errors"] == [
        {"pointer": "#/items/0/stock", "detail": "is a text; expected a whole number that Int64 holds"},
        {"pointer": "#/items/0/tags", "detail": "holds a whole number; expected a list of texts"},
        {"pointer": "#/items/1/price", "detail": "is a truth value; expected a number that Float64 holds"},
    ]


def test_values_of_the_columns_types_are_kept_as_they_are(shop):
    full = {"stock": 2**63 - 1, "price": 3, "sponsored": True, "tags": [], "brand": "", "title": "Red"}
    none = dict.fromkeys(full)
    rows = [row(item_id="full", **full), row(item_id="none", **none), row(item_id="bare")]
    assert send(shop, *rows).status_code == 201
    for name, values in (("full", full), ("none", none), ("bare", none)):
        found = shop.get(f"/items/{name}").json()["row"]
        assert {column: found[column] for column in full} == values


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([["red", "scarf"], None], "['red', 'scarf']"),
        ([{"a": 1}, None], "{'a': 1}"),
        ([b"\xff", None], "b'\\xff'"),
        ([7, None], "7"),
    ],
)
def test_titles_of_any_type_are_served_as_text(values, shown):
    assert titles_of(pl.DataFrame({"title": values, "text": ["one", "two"]})).to_list() == [shown, "two"]
    assert titles_of(pl.DataFrame({"text": ["one", "two"]})).to_list() == ["one", "two"]
