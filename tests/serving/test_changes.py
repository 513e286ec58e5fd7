"""Changes of the catalogue: what they are made of, who waits for whom, and what happens at the end."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

import diffgrm
from diffgrm.foundation import model_folder
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.recommenders.popularity import PopularityRecommender
from helpers.serving import BEARER, HISTORY, TOKEN, client_of, errors_of, eventually

pytest.importorskip("fastapi")
import httpx

from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel
from diffgrm.apps.serving.run import in_background

NEW = {"items": [{"item_id": "new", "text": "a red scarf"}]}
OVERRIDES = ["decoding.beam=12"]  # which fit the model of `folder`


def add(recommender):
    return recommender.add_items(pl.DataFrame({"item_id": ["new"], "text": ["a red scarf"]}))


def other_model(folder, toy):
    """A good model that does not fit a server's overrides."""
    PopularityRecommender().fit(toy).save(folder)


def truncated(folder, toy):
    (folder / "model.safetensors").write_bytes(b"PK")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")


def gone(folder, toy):
    shutil.rmtree(folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else None


@pytest.mark.parametrize("happen", [other_model, truncated, gone])
@pytest.mark.parametrize("linked", [False, True])
def test_what_the_server_cannot_use_is_not_overwritten(folder, toy, tmp_path, limits, happen, linked, caplog):
    place = folder
    if linked:
        place, other = tmp_path / "current", tmp_path / "v3"
        place.symlink_to(folder)
        shutil.copytree(folder, other)
    with client_of(create_app(LiveModel(place, OVERRIDES), limits, token=TOKEN)) as client:
        before, served = client.get("/model").json(), contents(folder)
        if linked:
            happen(other, toy)
            place.unlink()
            place.symlink_to(other)
        else:
            happen(folder, toy)
        held = contents(place)
        for _ in range(2):  # the second try falls into the pause after the first
            answer = client.post("/items", json=NEW, headers=BEARER)
            assert errors_of(answer, 503) == set() and answer.headers["retry-after"]
        assert contents(place) == held and client.get("/model").json() == before
        assert not linked or (place.is_symlink() and contents(folder) == served)
        assert (
            "holds no model any more" in caplog.text if happen is gone else "which this server cannot use: " in caplog.text
        )


def test_no_model_is_made_where_the_link_to_it_was_deleted(folder, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(folder)
    live = LiveModel(link)
    link.unlink()
    with pytest.raises(ModelFolderError, match="holds no model any more"):
        live.change(add)
    assert not link.exists() and not link.is_symlink()


@pytest.mark.parametrize("noticed", [False, True])
def test_a_link_that_is_turned_during_a_change_loses_neither_model(folder, tmp_path, noticed):
    link, second = tmp_path / "current", tmp_path / "v3"
    diffgrm.load(folder).remove_items(["item 3"]).save(second)
    link.symlink_to(folder)
    live, held = LiveModel(link), [contents(folder), contents(second)]

    def turn(recommender):
        link.unlink()
        link.symlink_to(second)
        assert not noticed or live.refresh()
        return add(recommender)

    with pytest.raises(ModelFolderError, match="turned to another model during the change; send it again"):
        live.change(turn)
    assert [contents(folder), contents(second)] == held
    assert live.change(add).saved.facts["catalogue_version"] == 2 and contents(folder) == held[0]
    assert model_folder.version(link) == model_folder.version(second)


# ---- waiting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def held(folder, limits, monkeypatch):
    """A function that starts a server of some limits whose first change goes on only when its event is set."""
    begun, go_on, change = threading.Event(), threading.Event(), LiveModel.change

    def slowly(self, asked):
        begun.set()
        assert go_on.wait(20)
        return change(self, asked)

    monkeypatch.setattr(LiveModel, "change", slowly)

    def start(**more):
        return create_app(LiveModel(folder), limits.model_copy(update=more), token=TOKEN), begun, go_on

    yield start
    go_on.set()


def remove(client, item):
    return client.post("/items/remove", json={"item_ids": [item]}, headers=BEARER)


def test_changes_that_wait_are_bounded_in_number_and_time_and_one_that_has_begun_is_finished(held, folder):
    app, begun, go_on = held(queue=2, seconds=0.3)
    with client_of(app) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(remove, client, "item 3")
        assert begun.wait(20)
        changes = app.state.server.changes
        refused = remove(client, "item 4")
        assert errors_of(refused, 504) == set() and "nothing has changed" in refused.text and not first.done()
        changes.waiting = 2
        full = remove(client, "item 5")
        assert errors_of(full, 503) == set() and full.headers["retry-after"] == "1"
        changes.waiting = 0
        go_on.set()
        assert first.result(timeout=20).json()["recommendable"] == 479
        assert remove(client, "item 4").json()["recommendable"] == 478
    assert diffgrm.load(folder).facts["catalogue_version"] == 2


def test_at_the_end_the_change_under_way_is_answered_and_those_that_wait_are_refused(held, folder, caplog):
    app, begun, go_on = held()
    answers = []
    with ThreadPoolExecutor(4) as pool, in_background(app) as url:

        def ask(item):
            return httpx.post(f"{url}items/remove", json={"item_ids": [item]}, headers=BEARER, timeout=20)

        first = pool.submit(ask, "item 3")
        assert begun.wait(20)
        others = [pool.submit(ask, f"item {number}") for number in (4, 5, 6)]
        eventually(lambda: app.state.server.changes.waiting == 4)
        ended = pool.submit(lambda: [answers.append(other.result(timeout=20)) for other in others] and go_on.set())
    ended.result(timeout=20)
    assert first.result(timeout=20).json()["recommendable"] == 479
    for answer in answers:
        assert errors_of(answer, 503) == set() and answer.headers["retry-after"] and "the server ends" in answer.text
    assert len(answers) == 3 and "Traceback" not in caplog.text
    assert diffgrm.load(folder).facts["catalogue_version"] == 1


def test_servers_of_one_folder_take_over_what_others_save_while_they_read(folder, monkeypatch):
    """The other server saves while this one makes the tables of the model that it has just read."""
    one, other = LiveModel(folder, OVERRIDES, device="cpu"), LiveModel(folder, OVERRIDES, device="cpu")
    other.change(lambda recommender: recommender.remove_items(["item 1"]))  # which this one is about to read
    made, snapshot = [], LiveModel._snapshot

    def slow(live, *more):
        if live is one and not made:
            made.append("tables")
            other.change(lambda recommender: recommender.remove_items(["item 2"]))
        return snapshot(live, *more)

    monkeypatch.setattr(LiveModel, "_snapshot", slow)
    one.change(lambda recommender: recommender.remove_items(["item 3"]))
    left_out = diffgrm.load(folder).recommendable
    assert made and [int(n) for n in (~left_out).nonzero()[0]] == sorted(
        diffgrm.load(folder).items.positions(pl.Series(["item 1", "item 2", "item 3"])).tolist()
    )


def test_an_app_that_is_started_again_answers_and_takes_changes_again(folder, limits):
    app = create_app(LiveModel(folder, OVERRIDES), limits, token=TOKEN)
    for item in ("one", "two"):
        with client_of(app) as client:
            assert client.get("/ready").status_code == 200
            assert client.post("/recommend", json={"histories": [HISTORY], "k": 3}).status_code == 200
            assert client.post("/similar", json={"item_id": HISTORY[0], "k": 3}).status_code == 200
            new = {"items": [{"item_id": item, "text": "a red scarf"}]}
            assert client.post("/items", json=new, headers=BEARER).status_code == 201
