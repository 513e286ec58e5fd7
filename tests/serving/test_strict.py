"""What a request says beside the point, twice, or not as JSON: each is told by name."""

from __future__ import annotations

import json

import pytest

from helpers.serving import BEARER, HISTORY, TOKEN, client_of, errors_of

pytest.importorskip("fastapi")

import diffgrm
from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel
from diffgrm.foundation.registry import resolve

JSON = {"content-type": "application/json"}
ASKED = {"histories": [HISTORY], "k": 2}


@pytest.fixture(scope="module")
def server(toy, tmp_path_factory, limits):
    dataset = diffgrm.InteractionDataset.from_tables(toy.event_table(), toy.item_table)
    model = resolve("recommender", "popularity")().fit(dataset, progress=False).save(tmp_path_factory.mktemp("plain") / "m")
    with client_of(create_app(LiveModel(model), limits, token=TOKEN)) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/recommend?kk=2", ASKED),
        ("POST", "/similar?kk=2", {"item_id": "item 3"}),
        ("POST", "/explain?kk=2", {"history": HISTORY}),
        ("GET", "/items/item%203?kk=2", None),
        ("GET", "/items?kk=2", None),
        ("GET", "/model?kk=2", None),
        ("POST", "/items?kk=2", {"items": [{"item_id": "new", "text": "t"}]}),
        ("PUT", "/items?kk=2", {"items": [{"item_id": "item 3", "text": "t"}], "semantic_ids": "keep"}),
        ("POST", "/items/remove?kk=2", {"item_ids": ["item 3"]}),
    ],
)
def test_a_parameter_that_a_route_does_not_have_is_refused(server, method, path, body):
    before = server.get("/model").json()
    answer = server.request(method, path, json=body, headers=BEARER)
    assert errors_of(answer) == {"kk"} and "there is no such parameter" in answer.text
    assert server.get("/model").json() == before


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_may_send_parameters_of_their_own(server, path):
    assert server.get(f"{path}?ts=1&ts=2").json()["status"] == "ok"


def test_parameters_are_told_by_name_and_given_once(server):
    assert "did you mean 'limit'?" in server.get("/items?limt=5").json()["detail"]
    assert server.get("/items?limit=1&limit=2&lim=3").json()["errors"][0] == {
        "pointer": "limit",
        "detail": "stands more than once; give it once",
    }
    assert "this route has none" in server.post("/recommend?k=5", json=ASKED).json()["detail"]
    assert len(server.get("/items?query=item&limit=1").json()["items"]) <= 1


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/recommend", '{"k": 3, "histories": [["item 3"]], "k": 1}', "k"),
        ("/recommend", '{"histories": [["item 3"]], "rules": {"caps": {"brand": 1, "brand": 2}}}', "brand"),
        ("/recommend", '{"histories": [[{"item_id": "item 3", "item_id": "item 77"}]]}', "item_id"),
        ("/items", '{"items": [{"item_id": "new", "text": "first", "text": "second"}]}', "text"),
    ],
)
def test_a_key_that_an_object_says_twice_is_refused(server, path, body, key):
    answer = server.post(path, content=body, headers=JSON | BEARER)
    assert errors_of(answer, 400) == set()
    assert answer.json()["detail"] == f"the body is not JSON: an object says the key '{key}' twice; say it once"


@pytest.mark.parametrize(
    ("kind", "found"), [(None, "nothing"), ("text/plain", "'text/plain'"), ("application/xml", "'application/xml'")]
)
def test_a_body_that_does_not_say_that_it_is_json_is_told_what_to_send(server, kind, found):
    answer = server.post("/recommend", content=json.dumps(ASKED), headers={} if kind is None else {"content-type": kind})
    assert errors_of(answer) == {"Content-Type"}
    assert answer.json()["detail"] == f"is {found}; send the body with Content-Type: application/json (curl: --json)"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.shop+json"])
def test_other_names_of_json_are_taken(server, kind):
    assert server.post("/recommend", content=json.dumps(ASKED), headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "it is empty; send an object"),
        (b" \n", "it is empty; send an object"),
        (b'{"k": ', "Expecting value at character 6"),
        (b'{"histories": [["\xff"]]}', "it is not UTF-8 at byte 17"),
        (b"[" * 9000 + b"]" * 9000, "lists and objects lie too deep within one another"),
    ],
)
def test_what_is_wrong_with_a_body_is_told(server, body, told):
    answer = server.post("/recommend", content=body, headers=JSON)
    assert errors_of(answer, 400) == set() and answer.json()["detail"] == f"the body is not JSON: {told}"


@pytest.mark.parametrize(
    ("rules", "pointer"),
    [
        ('{"boosts": [{"by": NaN, "items": ["item 3"]}]}', "#/rules/boosts/0/by"),
        ('{"diversity": NaN}', "#/rules/diversity"),
        ('{"where": {"stock": {"min": Infinity}}}', "#/rules/where/stock/min"),
    ],
)
def test_a_number_of_rules_that_is_not_finite_is_called_so(server, rules, pointer):
    answer = server.post("/recommend", content=f'{{"histories": [["item 3"]], "rules": {rules}}}', headers=JSON)
    assert errors_of(answer) == {pointer} and "should be a finite number" in answer.json()["detail"]


def test_rows_that_no_table_has_are_named(server):
    rows = [{"item_id": "a", "text": "x"}, {"item_id": "a", "text": " <b></b> "}, {"item_id": "  ", "text": "x"}]
    assert errors_of(server.post("/items", json={"items": rows}, headers=BEARER)) == {
        "#/items/1/item_id",
        "#/items/1/text",
        "#/items/2/item_id",
    }


def test_what_the_model_is_not_told_of_is_named(server):
    given = {"histories": [[{"item_id": "item 3", "type": "view"}]]}
    assert errors_of(server.post("/recommend", json=given)) == {"#/histories"}
    assert errors_of(server.post("/recommend", json=ASKED | {"profiles": [{"plan": "free"}]})) == {"#/profiles"}
