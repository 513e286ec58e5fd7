"""Rules over HTTP: a request's own, and those of the server."""

from __future__ import annotations

import logging

import pytest

import diffgrm
from diffgrm.foundation.schema import DataError
from helpers.serving import BEARER, HISTORY, client_of, errors_of, eventually

app = pytest.importorskip("diffgrm.apps.serving.app")
live = pytest.importorskip("diffgrm.apps.serving.live")

RULES = {
    "where": {"department": {"in": ["Coffee", "Guitar", "Baking"]}},
    "caps": {"brand": 1},
    "pins": {"2": "item 27"},
    "boosts": [{"by": 0.5, "items": ["item 20"]}],
}
OTHERS = {"caps": {"department": 1}}


def ids(answer, row=0):
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["lists"][row]["items"]]


def offline(recommender, rules, k=5):
    return recommender.recommend([HISTORY], k, rules=rules)["item_id"].to_list()


@pytest.fixture(scope="module")
def ruled(saved, limits):
    """A client of a server with rules of its own."""
    with client_of(app.create_app(live.LiveModel(saved, rules=diffgrm.read_rules(OTHERS)), limits)) as client:
        yield client


def test_a_request_brings_its_rules(reader, fitted):
    answer = reader.post("/recommend", json={"histories": [HISTORY, ["item 9"]], "k": 5, "rules": RULES})
    assert ids(answer) == offline(fitted, RULES) and ids(answer, 1)[1] == "item 27"
    plain = ids(reader.post("/recommend", json={"histories": [HISTORY], "k": 5}))
    assert plain == offline(fitted, None) != ids(answer)


def test_an_item_that_only_a_rule_brought_has_no_score(reader, fitted):
    worst = fitted.recommend([HISTORY], 480)["item_id"][-1]
    answer = reader.post("/recommend", json={"histories": [HISTORY], "k": 3, "rules": {"pins": {"1": worst}}}).json()
    scores = [item["score"] for item in answer["lists"][0]["items"]]
    assert scores[0] is None and None not in scores[1:]


def test_the_rules_of_the_server_are_those_of_requests_that_say_none(ruled, fitted):
    assert ids(ruled.post("/recommend", json={"histories": [HISTORY], "k": 5})) == offline(fitted, OTHERS)
    assert ids(ruled.post("/recommend", json={"histories": [HISTORY], "k": 5, "rules": RULES})) == offline(fitted, RULES)
    assert ids(ruled.post("/recommend", json={"histories": [HISTORY], "k": 5, "rules": {}})) == offline(fitted, None)


def test_an_explanation_says_that_it_knows_nothing_of_the_rules(ruled, reader, fitted):
    answers = [client.post("/explain", json={"history": HISTORY, "k": 1}).json() for client in (ruled, reader)]
    assert [answer["rules_aside"] for answer in answers] == [True, False]
    assert {answer["note"] for answer in answers} == {fitted.explanation_note()}


@pytest.mark.parametrize(
    ("rules", "pointer", "told"),
    [
        ({"cap": {"brand": 1}}, "#/rules/cap", "there is no such field; did you mean 'caps'?"),
        ({"where": {"brand": {"inn": ["x"]}}}, "#/rules/where/brand/inn", "no such field; did you mean 'in'?"),
        ({"boosts": [{"by": 1, "item": ["item 1"]}]}, "#/rules/boosts/0/item", "no such field; did you mean 'items'?"),
        ({"boosts": [{"by": 0, "items": ["item 1"]}]}, "#/rules/boosts/0", "by is 0, which changes no score"),
        ({"caps": {"brand": "2"}}, "#/rules/caps/brand", "valid integer"),
        ({"caps": {"brnd": 2}}, "#/rules", "the item table has no column 'brnd'; did you mean 'brand'?"),
        ({"where": {"brand": {"min": 2}}}, "#/rules", "min and max are for a number a row"),
        ({"boosts": [{"by": 1, "items": ["item 1"] * 31}]}, "#/rules", "is 31; this server allows at most 30"),
        ({"diversity": 0.5, "depth": 5000}, "#/rules/depth", "depth is 5,000; this server allows at most 1,000"),
        ({"caps": {"brand": 1}, "deepest": 1001}, "#/rules/deepest", "this server allows at most 1,000"),
        ({"pins": {"0": "item 1"}}, "#/rules/pins/0/[key]", "valid integer"),
    ],
)
def test_rules_that_cannot_be_used_are_named(reader, rules, pointer, told):
    answer = reader.post("/recommend", json={"histories": [HISTORY], "rules": rules})
    assert pointer in errors_of(answer) and told in answer.text


def test_rules_that_the_catalogue_does_not_know_or_k_has_no_room_for_are_told(reader):
    answer = reader.post("/recommend", json={"histories": [HISTORY], "rules": {"pins": {"1": "nowhere"}}})
    assert answer.status_code == 422 and "pins: 1 items are not in the catalogue: nowhere" in answer.json()["detail"]
    wanted = {"minimum": {"count": 6, "items": ["item 1"]}}
    answer = reader.post("/recommend", json={"histories": [HISTORY], "k": 5, "rules": wanted})
    assert answer.status_code == 422 and "minimum.count is 6, but the list has 5 places" in answer.json()["detail"]


def test_rules_look_no_deeper_than_the_server_lets_them(saved, limits, fitted):
    bounds = limits.model_copy(update={"deepest": 12})
    deep = {"caps": {"department": 1}}
    with client_of(app.create_app(live.LiveModel(saved), bounds)) as client:
        found = ids(client.post("/recommend", json={"histories": [HISTORY], "k": 8, "rules": deep}))
    assert found == offline(fitted, {**deep, "deepest": 12}, 8) and len(found) < len(offline(fitted, deep, 8))


def test_a_server_whose_rules_do_not_fit_its_model_does_not_start(saved):
    with pytest.raises(DataError, match="caps.shelf: the item table has no column 'shelf'"):
        live.LiveModel(saved, rules=diffgrm.read_rules({"caps": {"shelf": 1}}))


def test_a_newer_model_that_the_rules_do_not_fit_is_not_taken_over(folder, fitted, limits, caplog):
    model = live.LiveModel(folder, rules=diffgrm.read_rules(OTHERS))
    bare = diffgrm.load(folder)
    catalogue = bare.catalogue
    bare.take(bare.parts, type(catalogue)(catalogue.ids, catalogue.table.drop("department"), catalogue.counts), bare.facts)
    with client_of(app.create_app(model, limits)) as client, caplog.at_level(logging.ERROR):
        bare.save(folder)
        eventually(lambda: model.failed_reloads)
        assert ids(client.post("/recommend", json={"histories": [HISTORY], "k": 5})) == offline(fitted, OTHERS)
    assert "the item table has no column 'department'" in caplog.text


def test_new_items_bring_the_values_of_their_columns(writer):
    row = {"item_id": "new 1", "text": "Crema milk jug, blue. Brand: Crema.", "brand": "Nobody", "department": "Coffee"}
    assert writer.post("/items", json={"items": [row]}, headers=BEARER).status_code == 201
    rules = {"where": {"brand": {"in": ["Nobody"]}}}
    assert ids(writer.post("/recommend", json={"histories": [HISTORY], "rules": rules})) == ["new 1"]


def test_scores_of_null_are_described(reader):
    described = reader.get("/openapi.json").json()["components"]["schemas"]
    assert {"type": "null"} in described["RankedItem"]["properties"]["score"]["anyOf"]
    assert described["RecommendRequest"]["properties"]["rules"]["anyOf"][0]["$ref"].endswith("/Rules")
    assert set(described["Condition"]["properties"]) == {"min", "max", "in"}
