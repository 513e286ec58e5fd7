"""Explanations, and ensembles, of models that are told times and columns: they are asked as lists are."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import InteractionDataset, Recipe, load
from diffgrm.apps.cli.told import history_of as history_of_texts
from diffgrm.data.histories import HistoryEvent
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, RecipeError
from helpers.commands import caller
from helpers.recipes import small_generation, small_recipe
from helpers.serving import client_of, errors_of
from helpers.worlds import EVERYTHING, ITEMS, NETWORK, SWITCHES, TRAINING, history_of, world

FEW_CODES = ["training.epochs=1", "training.batch_size=256", "embedding.min_items=1", "tokenizer.codebook_size=4"]
PAIRS = ["embedding.measure=vectors", "tokenizer.codebook_size=4", "training.epochs=1", "model.pairwise_rank=2"]
RECIPES = {
    "diffgrm": lambda: small_recipe("diffgrm").override(FEW_CODES),
    "hybrid": lambda: small_recipe("hybrid").override(FEW_CODES),
    "generation": lambda: small_generation(*PAIRS[:-1]),
    "pairs": lambda: small_generation(*PAIRS),
}
AT, LATER = "2001-02-03T21:00:00", "2001-02-07T09:00:00"
ASKED = {"at": AT, "profiles": {0: {"plan": "paid"}}}


def told_all(recipe, events=EVERYTHING):
    recipe = Recipe.from_dict(recipe.to_dict() | {"events": events})
    table, people = world("hour", users=60)
    profiles = people if recipe.events.user_columns else None
    dataset = InteractionDataset.from_tables(table, ITEMS, events=recipe.events, profiles=profiles)
    return resolve("recommender", recipe.recommender)(recipe).fit(dataset, progress=False), dataset


@pytest.fixture(scope="module", params=RECIPES)
def told(request):
    """A model whose tables of the context say much, and its dataset."""
    model, dataset = told_all(RECIPES[request.param]())
    torch.manual_seed(0)
    torch.nn.init.normal_(model.network.context, std=0.5)
    model._forget()
    return model, dataset


def test_the_digits_are_of_the_list_that_is_asked_for_then_and_so(told):
    model, dataset = told
    _, history = history_of(dataset, "u3")
    tables = []
    for asked in (ASKED, ASKED | {"at": LATER}, ASKED | {"profiles": {0: {"plan": "free"}}}, {"at": AT}, {}):
        table, listed = (found(history, 4, exclude_seen=False, **asked) for found in (model.explain, model.recommend))
        assert table["item_id"].unique(maintain_order=True).to_list() == listed["item_id"].to_list() and listed.height == 4
        if model.recipe.recommender == "diffgrm" and not model.explanation_note():  # digits alone make the score
            logs = [np.log(rows["confidence"].to_numpy()).sum() for _, rows in table.group_by("rank", maintain_order=True)]
            assert logs == pytest.approx(listed["score"].to_list(), abs=1e-3)
        tables.append(table["confidence"].to_list())
    assert all(tables[0] != other for other in tables[1:])


def test_the_beams_of_a_search_end_in_that_list(told):
    model, dataset = told
    if model.recipe.model.options["pairwise_rank"]:
        pytest.skip("no search takes scores of pairs")
    _, history = history_of(dataset, "u3")
    searching = model.variant(["decoding.name=any_order_beam", "decoding.beam=16"])
    last = {}
    for at in (AT, LATER):
        beams = searching.beams(history, 3, show=100, **(ASKED | {"at": at}))
        listed = searching.recommend(history, 3, **(ASKED | {"at": at}))
        codes = [tuple(code) for code in model.semantic_ids.codes[model.items.positions(listed["item_id"])].tolist()]
        last[at] = beams.filter(step=beams["step"].max())
        ends = [tuple(digits) for digits in last[at]["digits"].to_list()]
        assert [code for code in ends if code in codes] == codes
    assert not last[AT]["score"].equals(last[LATER]["score"])


def test_explanations_are_served_as_python_gives_them(told, tmp_path):
    app, live = (pytest.importorskip(f"diffgrm.apps.serving.{name}") for name in ("app", "live"))
    model, dataset = told
    _, history = history_of(dataset, "u3")
    sent = [{"item_id": one.item, "time": one.time, "values": dict(one.values)} for one in history]
    body = {"history": sent, "k": 3, "at": AT, "profile": {"plan": "paid"}}
    with client_of(app.create_app(live.LiveModel(model.save(tmp_path / "model")))) as client:
        answer = client.post("/explain", json=body)
        assert answer.status_code == 200, answer.text
        items, table = answer.json()["items"], model.explain(history, 3, **ASKED)
        assert [item["item_id"] for item in items] == model.recommend(history, 3, **ASKED)["item_id"].to_list()
        found = [digit["confidence"] for item in items for digit in item["digits"]]
        assert found == pytest.approx(table["confidence"].to_list(), abs=1e-5)
        assert client.post("/explain", json=body | {"at": "now", "profile": None}).status_code == 200
        for change, pointer, says in (
            ({"at": "soon"}, "#/at", "expected a date-time"),
            ({"at": "1969-01-01"}, None, "lies before the newest event"),
            ({"profile": {"plam": "free"}}, None, "profiles name the column 'plam'"),
            ({"history": ["i1"]}, None, "1 of 1 events of the histories have none: i1"),
        ):
            answer = client.post("/explain", json=body | change)
            assert says in answer.text and errors_of(answer) == ({pointer} if pointer else set())


# ---- ensembles ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble():
    """Two networks that are told everything, summed."""
    first = {"recommender": "sasrec", "model": NETWORK, "training": TRAINING | {"epochs": 1}}
    second = small_recipe("hybrid").override(FEW_CODES).to_dict()
    members = [first, {key: value for key, value in second.items() if key not in ("events", "data", "seed")}]
    return told_all(Recipe(recommender="ensemble", model={"members": members, "weights": [0.5, 0.5]}))


def test_an_ensemble_asks_its_members_at_the_moment_and_of_the_user(ensemble, tmp_path):
    model, dataset = ensemble
    for member in model.members:
        torch.nn.init.normal_(member.network.context, std=0.5)
        member._forget()
    _, history = history_of(dataset, "u3")
    again = load(model.save(tmp_path / "model"))
    lists = []
    for asked in (ASKED, ASKED | {"at": LATER}, ASKED | {"profiles": {0: {"plan": "free"}}}):
        found, kept = (one.recommend(history, 8, exclude_seen=False, **asked) for one in (model, again))
        assert found["item_id"].equals(kept["item_id"])
        alone = [member.recommend(history, 8, exclude_seen=False, **asked) for member in model.members]
        best = {one["item_id"][0] for one in alone}
        if len(best) == 1:
            assert set(found["item_id"][:1]) == best
        lists.append(found["score"].to_list())
    assert lists[0] not in lists[1:]
    by_id = model.recommend({"u3": history}, 8, at=AT)  # what is kept of u3
    assert by_id["score"].equals(again.recommend({"u3": history}, 8, at=AT)["score"])


def test_an_ensemble_fills_no_digits_and_says_so_also_over_http(ensemble, tmp_path):
    app, live = (pytest.importorskip(f"diffgrm.apps.serving.{name}") for name in ("app", "live"))
    with client_of(app.create_app(live.LiveModel(ensemble[0].save(tmp_path / "model")))) as client:
        told = client.get("/model").json()
        assert told["explains"] is False and told["told"]["at"] is True
        body = {"history": [{"item_id": "i1", "time": AT}], "k": 2, "at": AT}
        assert "'ensemble' fills no digits" in client.post("/explain", json=body).text
        lists = client.post("/recommend", json={"histories": [body["history"]], "k": 2, "at": AT})
        wanted = ensemble[0].recommend([HistoryEvent("i1", time=AT)], 2, at=AT)["item_id"].to_list()
        assert [item["item_id"] for item in lists.json()["lists"][0]["items"]] == wanted


def test_a_member_that_would_not_be_told_is_refused():
    members = [
        {"recommender": "sasrec", "model": NETWORK, "training": TRAINING | {"epochs": 1}},
        {"recommender": "item_knn"},
    ]
    recipe = Recipe(recommender="ensemble", model={"members": members, "weights": [0.5, 0.5]})
    with pytest.raises(RecipeError, match="'item_knn' knows of no times"):
        told_all(recipe, SWITCHES["hour"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model, dataset = told_all(RECIPES["diffgrm"]())
    torch.manual_seed(0)
    torch.nn.init.normal_(model.network.context, std=0.5)
    return model.save(tmp_path_factory.mktemp("told") / "model"), dataset


def test_commands_tell_of_one_history_what_python_does(saved, tmp_path, monkeypatch, capsys):
    run, (folder, dataset), out = caller(monkeypatch, capsys), saved, tmp_path / "lists.parquet"
    _, history = history_of(dataset, "u3")
    events = [{"item_id": one.item, "time": one.time, "values": dict(one.values)} for one in history]
    told = [word for event in events for word in ("--history", json.dumps(event))]
    model, lists = load(folder), []
    for plan, at in (("paid", AT), ("free", AT), ("paid", LATER)):
        code, _, err = run("recommend", folder, *told, "--at", at, "--profile", f"plan={plan}", "--k", 4, "--out", out)
        assert code == 0, err
        wanted = model.recommend({"history": history}, 4, at=at, profiles={"history": {"plan": plan}})
        assert pl.read_parquet(out).equals(wanted)
        lists.append(wanted["score"].to_list())
    assert lists[0] != lists[1] and lists[0] != lists[2]
    code, shown, err = run("explain", folder, *told, "--at", AT, "--profile", "plan=paid", "--k", 2, "--show", 3)
    assert code == 0, err
    explained = model.explain(history, 2, **ASKED)
    assert all(f"{confidence:.1%}" in shown for confidence in explained["confidence"])
    searched = model.beams(history, 2, show=3, **ASKED)
    assert all(f"{score:.3f}" in shown for score in searched["score"])


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("explain", ["--history", "i1"], "1 of 1 events of the histories have none: i1"),
        ("explain", ["--history", '{"item_id": "i1", "time": "soon"}'], "expected a date-time"),
        ("explain", ["--history", '{"item_id": "i1", "when": 3}'], "is no event of a history: when"),
        ("recommend", ["--history", "{i1}"], "what begins with a brace is an event in JSON, and this is none"),
        (
            "recommend",
            ["--history", '{"item_id": "a", "item_id": "b"}'],
            "an object says the key 'item_id' twice",
        ),
        ("recommend", ["--history", '{"a":' * 9999], "lists and objects lie too deep within one another"),
        ("recommend", ["--history", "i1", "--profile", "plan"], "--profile is written COLUMN=VALUE, found 'plan'"),
        ("recommend", ["--history", "i1", *["--profile", "plan=free"] * 2], "--profile tells 'plan' twice"),
        ("recommend", ["--history", "i1", "--profiles", "users.csv"], "with --history, give --profile COLUMN=VALUE"),
        ("recommend", ["--interactions", "e.csv", "--profile", "plan=free"], "with --interactions, give --profiles FILE"),
    ],
)
def test_what_is_wrong_with_one_history_is_told(saved, command, arguments, says, monkeypatch, capsys):
    code, _, err = caller(monkeypatch, capsys)(command, saved[0], *arguments)
    assert code == 2 and says in err


def test_an_item_whose_id_begins_with_a_brace_is_told_as_an_event():
    assert [one if isinstance(one, str) else one.item for one in history_of_texts(["a", '{"item_id": "{b}"}'])] == [
        "a",
        "{b}",
    ]


def test_models_that_are_told_nothing_explain_nothing_of_a_moment(fitted):
    with pytest.raises(DataError, match="of which the model is told nothing"):
        fitted.explain(["item 3"], 2, at=AT)
    with pytest.raises(DataError, match="is told of no columns of users"):
        fitted.beams(["item 3"], 2, profiles={0: {"plan": "free"}})
