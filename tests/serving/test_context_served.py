"""Requests that tell times, categories and profiles: what is answered is what Python says, and what is wrong is told."""

from __future__ import annotations

import datetime

import polars as pl
import pytest

from diffgrm.apps.cli.shared import events_of
from diffgrm.apps.serving.given import entry
from diffgrm.data.histories import HistoryEvent
from helpers.commands import caller
from helpers.serving import client_of, errors_of
from helpers.worlds import EVERYTHING, ITEMS, fitted, history_of, world


@pytest.fixture(scope="module")
def told():
    return fitted(EVERYTHING)


@pytest.fixture(scope="module")
def folder(told, tmp_path_factory):
    return told[0].save(tmp_path_factory.mktemp("context") / "model")


@pytest.fixture(scope="module")
def tables(told, tmp_path_factory):
    home, (table, people) = tmp_path_factory.mktemp("tables"), world("hour")
    table.write_csv(home / "events.csv")
    people.write_csv(home / "users.csv")
    ITEMS.write_csv(home / "items.csv")
    return home


@pytest.fixture(scope="module")
def client(told, folder, tables):
    app = pytest.importorskip("diffgrm.apps.serving.app")
    live = pytest.importorskip("diffgrm.apps.serving.live")
    users = live.UserHistories(events_of(tables / "events.csv", None, None, told[0].recipe.events))
    with client_of(app.create_app(live.LiveModel(folder), users=users)) as client:
        yield client


def listed(answer):
    assert answer.status_code == 200, answer.text
    return [[(item["item_id"], round(item["score"], 4)) for item in one["items"]] for one in answer.json()["lists"]]


def said(table):
    return [(item, round(score, 4)) for item, score in table.select("item_id", "score").iter_rows()]


def test_what_is_answered_is_what_python_says(told, client):
    recommender, dataset = told
    _, history = history_of(dataset, "u3")
    sent = [{"item_id": one.item, "time": one.time, "values": dict(one.values)} for one in history]
    at, moment = "2001-02-03T21:00:00", datetime.datetime(2001, 2, 3, 21)
    for plan in ("free", "paid"):
        body = {"histories": [sent, sent], "k": 8, "at": at, "profiles": [{"plan": plan}, {}]}
        wanted = [recommender.recommend(history, k=8, at=moment, profiles={0: row}) for row in body["profiles"]]
        assert listed(client.post("/recommend", json=body)) == list(map(said, wanted))
    wanted = said(recommender.recommend(history, k=8))
    assert listed(client.post("/recommend", json={"histories": [sent], "k": 8})) == [wanted]  # at the newest event
    stored = said(recommender.recommend({"u3": history}, k=8, at=moment))
    assert listed(client.post("/recommend", json={"users": ["u3"], "k": 8, "at": at})) == [stored]
    assert client.post("/recommend", json={"users": ["u3"], "k": 8, "at": "now"}).status_code == 200


@pytest.mark.parametrize(
    ("change", "pointer", "says"),
    [
        ({"at": "soon"}, "#/at", "expected a date-time"),
        ({"at": [1]}, "#/at", "a time is a text in ISO"),
        ({"profiles": []}, "#/profiles", "holds 0 profiles for 1 histories"),
        ({"histories": [[{"item_id": "i1", "when": 3}]]}, "#/histories/0/0", "when: there is no such key; known: item_id,"),
        ({"histories": [[{"item_id": "i1", "tme": 3}]]}, "#/histories/0/0", "no such key; did you mean 'time'?"),
        ({"profile": [{}]}, "#/profile", "there is no such field; did you mean 'profiles'?"),
        ({"histories": [[{"time": 3}]]}, "#/histories/0/0", "item_id"),
        ({"histories": [["i1"]]}, None, "1 of 1 events of the histories have none: i1; give a table with"),
        ({"at": "1969-01-01"}, None, "lies before the newest event"),
        ({"profiles": [{"plam": "free"}]}, None, "profiles name the column 'plam'"),
        ({"histories": [[{"item_id": "i1", "time": 3, "values": {"devise": "tv"}}]]}, None, "a value of 'devise'"),
    ],
)
def test_what_is_wrong_with_a_request_is_told(client, change, pointer, says):
    body = {"histories": [[{"item_id": "i1", "time": 3}]], "k": 2} | change
    answer = client.post("/recommend", json=body)
    pointers = errors_of(answer)
    assert says in answer.text and (pointer is None or pointer in pointers)


def test_models_that_are_told_of_nothing_refuse_what_would_do_nothing(reader):
    body = {"histories": [["item 3"]], "k": 2}
    plain = reader.post("/recommend", json=body).json()

    def asked(*events):
        return reader.post("/recommend", json={**body, "histories": [list(events)]})

    first, second = ({"item_id": "item 3", "time": f"2001-01-0{day}"} for day in (1, 2))
    assert asked(first).json() == plain  # times tell the order that histories are in
    assert "give histories oldest first" in asked(second, first).text
    errors_of(asked(first, {**second, "type": "view"}))
    assert "tell a type, such as 'view', and the model knows no types" in asked({**second, "type": "view"}).text
    assert "leave values out" in asked({**second, "values": {"device": "tv"}}).text
    assert reader.get("/model").json()["told"]["types"] == []
    assert "of which the model is told nothing" in reader.post("/recommend", json=body | {"at": "now"}).text
    assert "is told of no columns of users" in reader.post("/recommend", json=body | {"profiles": [{"plan": "free"}]}).text


def test_commands_fit_evaluate_and_recommend_with_profiles(told, folder, tables, monkeypatch, capsys, tmp_path):
    run = caller(monkeypatch, capsys)
    given = ["--interactions", tables / "events.csv", "--items", tables / "items.csv"]
    small = ["recommender=sasrec", "model.width=8", "model.max_len=4", "training.epochs=1", "training.batch_size=64"]
    switches = ["events.time_inputs=[recency]", "events.user_columns={plan: [free, paid]}"]
    code, _, err = run("fit", *given, "--out", tmp_path / "m", "--quiet", *small, *switches)
    assert code == 2 and "events.user_columns names 'plan': give the table of users too" in err
    profiles = ["--profiles", tables / "users.csv"]
    code, _, err = run("fit", *given, *profiles, "--out", tmp_path / "m", "--quiet", *small, *switches)
    assert code == 0, err
    code, out, err = run("evaluate", tmp_path / "m", *given, *profiles, "--quiet")
    assert code == 0 and "ndcg@10" in out, err
    asked = ["recommend", folder, *given[:2], "--k", "8", "--at", "2005-01-01", "--quiet"]
    code, _, err = run(*asked, "--out", tmp_path / "lists.parquet")
    assert code == 0, err
    found = pl.read_parquet(tmp_path / "lists.parquet").filter(pl.col("user_id") == "u3")
    table, _ = history_of(told[1], "u3")
    wanted = told[0].recommend(table, k=8, at=datetime.datetime(2005, 1, 1))
    assert found["item_id"].to_list() == wanted["item_id"].to_list()
    for number in ("1104537600", "1104537600.0"):
        code, _, err = run(*asked[:-2], number, "--quiet", "--out", tmp_path / "numbered.parquet")
        assert code == 0, err
        assert pl.read_parquet(tmp_path / "numbered.parquet").equals(pl.read_parquet(tmp_path / "lists.parquet"))
    code, _, err = run(*asked[:-2], "nan", "--quiet")
    assert code == 2 and "at is nan; expected a date-time" in err
    code, _, err = run(*asked[:-1], "--at", "soon", "--quiet")
    assert code == 2 and "at is 'soon'; expected a date-time" in err
    code, _, err = run("recommend", folder, "--history", "i1", "--k", "2", "--quiet")
    assert code == 2 and "the model is told of the times of events" in err and 'behind --history: {"item_id": ...' in err
    code, _, err = run(
        "update", tmp_path / "m", *given[:2], *profiles, "--out", tmp_path / "more", "--quiet", "training.epochs=1"
    )
    assert code == 0, err


def test_categories_may_be_numbers_and_truth_values():
    given = entry({"item_id": "a", "type": 2, "values": {"stars": 5.0, "half": 4.5, "gift": True, "note": None}})
    assert given == HistoryEvent("a", "2", None, {"stars": "5", "half": "4.5", "gift": "true", "note": None})
    with pytest.raises(ValueError, match="values: an id is a text of at most"):
        entry({"item_id": "a", "values": {"stars": [5]}})
