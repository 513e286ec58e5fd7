"""Values that a request may not hold: each is refused with its place named, and changes nothing."""

from __future__ import annotations

import json

import pytest

from helpers.serving import BEARER, HISTORY, errors_of

pytest.importorskip("fastapi")

NO_INTEGERS = ["5", 5.0, True, None, float("nan"), float("inf"), [5]]
NO_IDS = ["\ud800", "a\udfff", 2**70, -(2**63) - 1, 1.0, True, None, float("nan"), "x" * 257, ["item 3"], {}]


def post(client, path, body, method="POST"):
    """Send what Python calls JSON, which has NaN, infinities and halves of surrogate pairs."""
    return client.request(method, path, content=json.dumps(body), headers=BEARER | {"content-type": "application/json"})


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_numbers_are_whole_numbers_and_nothing_that_resembles_them(reader, value):
    recommend, explain = {"histories": [HISTORY]}, {"history": HISTORY}
    for path, body, fields in (
        ("/recommend", recommend, ["k"]),
        ("/similar", {"item_id": "item 3"}, ["k"]),
        ("/explain", explain, ["k", "show"]),
    ):
        for field in fields:
            found = errors_of(post(reader, path, body | {field: value}))
            assert found and all(pointer.startswith(f"#/{field}") for pointer in found)
    if value is not None:  # the model's own
        assert errors_of(post(reader, "/recommend", recommend | {"beam": value})) == {"#/beam"}
        assert errors_of(post(reader, "/explain", explain | {"candidates": value})) == {"#/candidates"}


@pytest.mark.parametrize("value", ["yes", "true", 1, 0.0, None])
def test_truth_values_are_true_or_false(reader, value):
    for path, body, field in (
        ("/recommend", {"histories": [HISTORY]}, "exclude_seen"),
        ("/recommend", {"histories": [HISTORY]}, "titles"),
        ("/similar", {"item_id": "item 3"}, "titles"),
        ("/explain", {"history": HISTORY}, "exclude_seen"),
    ):
        assert errors_of(post(reader, path, body | {field: value})) == {f"#/{field}"}


@pytest.mark.parametrize("value", NO_IDS)
def test_an_id_is_a_text_or_a_whole_number_of_64_bits_wherever_it_stands(reader, writer, value):
    before = writer.get("/model").json()
    histories = {"histories": [HISTORY]}
    for client, method, path, body, pointer in (
        (reader, "POST", "/recommend", {"histories": [HISTORY, ["item 3", value]]}, "#/histories/1/1"),
        (reader, "POST", "/recommend", {"users": [value]}, "#/users/0"),
        (reader, "POST", "/recommend", histories | {"only": ["item 3", value]}, "#/only/1"),
        (reader, "POST", "/recommend", histories | {"without": [value]}, "#/without/0"),
        (reader, "POST", "/similar", {"item_id": value}, "#/item_id"),
        (reader, "POST", "/explain", {"history": [value]}, "#/history/0"),
        (writer, "POST", "/items", {"items": [{"item_id": value, "text": "t"}]}, "#/items/0/item_id"),
        (
            writer,
            "PUT",
            "/items",
            {"items": [{"item_id": value, "text": "t"}], "semantic_ids": "keep"},
            "#/items/0/item_id",
        ),
        (writer, "POST", "/items/remove", {"item_ids": [value]}, "#/item_ids/0"),
        (writer, "POST", "/items/restore", {"item_ids": [value]}, "#/item_ids/0"),
    ):
        answer = post(client, path, body, method)
        assert errors_of(answer) == {pointer} and ("an id is" in answer.text or "surrogate" in answer.text)
    assert writer.get("/model").json() == before


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"text": "\ud800"}, "text"),
        ({"text": ""}, "text"),
        ({"text": 2**70}, "text"),
        ({"text": True}, "text"),
        ({"text": None}, "text"),
        ({"item_id": ""}, "item_id"),
        ({"title": "a\udc00"}, "title"),
        ({"brand": {"name": ["\ud800"]}}, "brand"),
        ({"brand": {"\ud800": 1}}, "brand"),
        ({"price": float("nan")}, "price"),
        ({"price": [1.0, float("-inf")]}, "price"),
        ({"price": 2**70}, "price"),
        ({"price": json.loads("[" * 40 + "]" * 40)}, "price"),
    ],
)
def test_an_item_row_holds_what_a_table_holds(writer, row, column):
    before = writer.get("/model").json()
    for method, name, more in (("POST", "new", {}), ("PUT", "item 3", {"semantic_ids": "keep"})):
        answer = post(writer, "/items", {"items": [{"item_id": name, "text": "t"} | row], **more}, method)
        assert errors_of(answer) == {f"#/items/0/{column}"}
    assert writer.get("/model").json() == before


def test_odd_values_that_a_table_holds_are_kept_as_they_are(writer):
    longest, least = "x" * 256, -(2**63)
    rows = [
        {"item_id": longest, "text": "\U0001f9e6 socks", "title": "\U0001f9e6 \u0000"},
        {"item_id": least, "text": 7},
    ]
    assert post(writer, "/items", {"items": rows}).status_code == 201
    assert writer.get(f"/items/{longest}").json()["title"] == rows[0]["title"]
    assert writer.get(f"/items/{least}").json()["row"]["text"] == "7"
    for name in (longest, least):  # what can be added can be asked for and removed
        assert post(writer, "/similar", {"item_id": name, "k": 1}).status_code == 200
        assert post(writer, "/items/remove", {"item_ids": [name]}).status_code == 200


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 5000, b'{"k": ' + b"9" * 5000 + b"}", b'{"histories": [[1]}'])
def test_what_is_not_json_is_400_whatever_is_wrong_with_it(reader, content):
    answer = reader.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert errors_of(answer, 400) == set() and "body" in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["limit=5.0", "limit=+5", "limit=1_0", "limit= 5", "limit=%D9%A5", "limit=", "limit=0", "limt=5"]
)
def test_parameters_of_a_search_are_checked_as_bodies_are(reader, query):
    assert errors_of(reader.get(f"/items?{query}")) == {query.split("=")[0]}
    assert len(reader.get("/items?limit=5").json()["items"]) == 5
