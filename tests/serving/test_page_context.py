"""What the explorer asks a model that is told times and columns: what GET /model says of it, and what the page sends."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import diffgrm
from diffgrm.data.histories import HistoryEvent
from helpers.serving import client_of
from helpers.worlds import EVERYTHING, SWITCHES, TRAINING, fitted

pytest.importorskip("fastapi")
from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel

PAGE = Path(diffgrm.__file__).parent / "apps" / "serving" / "explorer"
NOW = "2030-01-05T21:00"
ASK = """
import { readAddress, addressOf } from "./address.js";
import { explain, recommend } from "./api.js";
const [hash, model] = JSON.parse(process.argv[2]);
const sent = [];
globalThis.location = { pathname: "/", search: "" };
globalThis.fetch = async (path, { body }) => {
  sent.push([path, JSON.parse(body)]);
  return { ok: true, text: async () => '{"lists": [{}]}' };
};
const view = readAddress(hash);
await recommend(view, model.told, NOW, null);
await explain(view, model, NOW, 5, null);
console.log(JSON.stringify({ bodies: Object.fromEntries(sent), address: addressOf(view) }));
""".replace("NOW", json.dumps(NOW))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What the page sends for an address, as its own code makes it; and the address that it writes for the view."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node.js")
    folder = tmp_path_factory.mktemp("page")
    for name in ("address.js", "api.js", "told.js"):
        shutil.copy(PAGE / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "ask.js").write_text(ASK)

    def ask(address, model):
        command = [node, str(folder / "ask.js"), json.dumps([address, model])]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(found.stdout)

    return ask


@pytest.fixture(scope="module", params=["everything", "user", "event", "gap", "nothing"])
def served(request, tmp_path_factory):
    """A model that is told something, and a client of its server."""
    events = {**SWITCHES, "everything": EVERYTHING, "nothing": {}}[request.param]
    model = fitted(events, training=TRAINING | {"epochs": 1})[0]
    folder = model.save(tmp_path_factory.mktemp("models") / "model")
    with client_of(create_app(LiveModel(folder))) as client:
        yield model, client


def listed(answer):
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["lists"][0]["items"]]


def test_the_description_says_what_the_model_is_told(served):
    model, client = served
    told, events = client.get("/model").json()["told"], model.recipe.events
    assert told == {
        "types": list(events.types),
        "times": list(events.time_inputs),
        "at": events.asks_when,
        "event_columns": {name: list(values) for name, values in events.event_columns.items()},
        "user_columns": {name: list(values) for name, values in events.user_columns.items()},
    }


FULL = (
    "#history=i1&history=i2&history=i3&time=&time=2030-01-02T08%3A05&time="
    "&event.device=phone&event.device=&event.device=toaster&at=2030-01-04T09%3A00&user.plan=paid&k=8"
)


def test_what_the_page_sends_is_answered_as_python_says(served, asked):
    model, client = served
    events, description = model.recipe.events, client.get("/model").json()
    found = asked(FULL, description)
    body = found["bodies"]["recommend"]
    times = ["2030-01-01T08:05", "2030-01-02T08:05", "2030-01-04T09:00"]  # said, or a day before the next, or the moment
    given = [{"device": "phone"}, {}, {}]
    history = [HistoryEvent(f"i{n + 1}", time=times[n], values=given[n] if events.event_columns else {}) for n in range(3)]
    besides = {"at": "2030-01-04T09:00"} if events.asks_when else {}
    besides |= {"profiles": {0: {"plan": "paid"}}} if events.user_columns else {}
    wanted = model.recommend(history, 8, **besides)
    assert listed(client.post("/recommend", json=body)) == wanted["item_id"].to_list()
    assert ("at" in body, "profiles" in body) == (events.asks_when, bool(events.user_columns))
    assert (body["histories"] == [["i1", "i2", "i3"]]) == (not events.time_inputs and not events.event_columns)
    assert found["address"].startswith("/#history=i1") and asked(found["address"][1:], description) == found


def test_by_itself_the_page_asks_now_with_a_day_between_events(served, asked):
    model, client = served
    body = asked("#history=i1&history=i2&history=i1", client.get("/model").json())["bodies"]["recommend"]
    assert body.get("at", NOW) == NOW
    if model.recipe.events.time_inputs:
        days = [event["time"] for event in body["histories"][0]]
        assert days == ["2030-01-03T21:00", "2030-01-04T21:00", NOW]
    else:
        assert "time" not in json.dumps(body["histories"])
    assert len(listed(client.post("/recommend", json={**body, "k": 4}))) == 4


def test_explanations_are_asked_for_with_the_same(asked):
    told = {"times": ["hour"], "at": True, "event_columns": {}, "user_columns": {"plan": ["free", "paid"]}}
    bodies = asked(FULL, {"told": told, "beam": None, "candidates": 64})["bodies"]
    explained, listed = bodies["explain"], bodies["recommend"]
    assert explained["history"] == listed["histories"][0] and [explained["profile"]] == listed["profiles"]
    assert explained["at"] == listed["at"] and "values" not in explained["history"][0]
