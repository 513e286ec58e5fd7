"""The HTTP app, asked in this process."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

import diffgrm
from helpers.folders import full_disk
from helpers.recipes import small_recipe
from helpers.serving import BEARER, HISTORY, TOKEN, client_of, errors_of, eventually

pytest.importorskip("fastapi")
from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel
from diffgrm.foundation.registry import resolve


def listed(answer, row=0):
    return [(item["item_id"], pytest.approx(item["score"], abs=1e-5)) for item in answer.json()["lists"][row]["items"]]


def offline(recommender, histories, k=10, **options):
    table = recommender.recommend(histories, k, **options)
    return [list(rows.select("item_id", "score").iter_rows()) for _, rows in table.group_by("user_id", maintain_order=True)]


@pytest.mark.parametrize(
    "options", [{}, {"exclude_seen": False}, {"only": [f"item {i}" for i in range(30)]}, {"without": ["item 27", "item 5"]}]
)
def test_answers_are_those_of_the_recommender(reader, fitted, options):
    histories = [HISTORY, ["item 9"], ["item 100", "item 101"]]
    answer = reader.post("/recommend", json={"histories": histories, "k": 5, **options})
    assert answer.status_code == 200
    for row, expected in enumerate(offline(fitted, histories, 5, **options)):
        assert expected == listed(answer, row)
    assert [found["user"] for found in answer.json()["lists"]] == [0, 1, 2]


def test_a_request_may_choose_its_beam(reader, fitted):
    answer = reader.post("/recommend", json={"histories": [HISTORY], "k": 5, "beam": 40})
    assert offline(fitted.variant(["decoding.beam=40"]), [HISTORY], 5)[0] == listed(answer)


def test_an_ensemble_is_served_like_any_other(toy, tmp_path, limits):
    found = diffgrm.load(
        resolve("recommender", "ensemble")(small_recipe("ensemble")).fit(toy, progress=False).save(tmp_path / "model")
    )
    with client_of(create_app(LiveModel(tmp_path / "model"), limits)) as client:
        answer = client.post("/recommend", json={"histories": [HISTORY], "k": 5, "without": ["item 27"]})
        assert answer.status_code == 200 and offline(found, [HISTORY], 5, without=["item 27"])[0] == listed(answer)
        assert client.get("/model").json()["recommender"] == "ensemble"


@pytest.fixture(scope="module")
def hybrid(toy):
    return diffgrm.HybridRecommender(small_recipe("hybrid")).fit(toy, progress=False)


@pytest.fixture(scope="module")
def hybrid_reader(hybrid, tmp_path_factory, limits):
    """A client of a server whose model ranks candidates by item scores."""
    app = create_app(LiveModel(hybrid.save(tmp_path_factory.mktemp("models") / "hybrid")), limits)
    with client_of(app) as client:
        yield client


def test_a_request_may_choose_its_candidates_where_the_model_ranks_some(hybrid_reader, hybrid, toy, tmp_path, limits):
    answer = hybrid_reader.post("/recommend", json={"histories": [HISTORY], "k": 5, "candidates": 30})
    assert offline(hybrid, [HISTORY], 5)[0] == listed(answer)
    weighing = hybrid.variant(["decoding.weight=0.5"])
    with client_of(create_app(LiveModel(weighing.save(tmp_path / "weighing")), limits)) as client:
        for candidates in (6, 90):
            answer = client.post("/recommend", json={"histories": [HISTORY], "k": 5, "candidates": candidates})
            assert offline(weighing.variant([f"decoding.candidates={candidates}"]), [HISTORY], 5)[0] == listed(answer)
    answer = hybrid_reader.post("/explain", json={"history": HISTORY, "k": 3, "show": 20, "candidates": 12}).json()
    assert answer["note"].startswith("Item scores alone chose the list")
    beams = hybrid.variant(["decoding.candidates=12"]).beams(HISTORY, 3, show=20)
    assert [len(step) for step in answer["beams"]] == beams.group_by("step", maintain_order=True).len()["len"].to_list()
    assert [item["item_id"] for item in answer["items"]] == hybrid.recommend([HISTORY], 3)["item_id"].to_list()


@pytest.mark.parametrize("path", ["/recommend", "/explain"])
def test_beam_and_candidates_are_refused_where_the_model_has_the_other(reader, hybrid_reader, path):
    body = {"history": HISTORY} if path == "/explain" else {"histories": [HISTORY]}
    for client, field, other in ((reader, "candidates", "beam"), (hybrid_reader, "beam", "candidates")):
        answer = client.post(path, json=body | {field: 20, other: 20})
        assert errors_of(answer) == {f"#/{field}"} and f"has no {field}; send {other} instead" in answer.text
        assert errors_of(client.post(path, json=body | {other: 97})) == {f"#/{other}"}


def test_the_model_tells_its_beam_or_candidates_and_their_bounds(reader, hybrid_reader):
    for client, beam, candidates in ((reader, 16, None), (hybrid_reader, None, 64)):
        found = client.get("/model").json()
        assert (found["beam"], found["candidates"], found["explains"]) == (beam, candidates, True)
        assert (found["limits"]["beam"], found["limits"]["candidates"]) == (64, 96)


def test_users_known_from_events_can_be_named(reader, fitted, toy):
    user = toy.users.ids([7])[0]
    answer = reader.post("/recommend", json={"users": [user], "k": 4, "titles": True})
    assert offline(fitted, [toy.items.ids(toy.events[7])], 4)[0] == listed(answer)
    found = answer.json()["lists"][0]
    assert found["user"] == user
    titles = dict(fitted.item_table.select("item_id", "title").iter_rows())
    assert [item["title"] for item in found["items"]] == [titles[item["item_id"]] for item in found["items"]]
    assert errors_of(reader.post("/recommend", json={"users": [user, "nobody"]})) == {"#/users/1"}


def test_unknown_items_are_passed_over_and_counted(reader, fitted):
    answer = reader.post("/recommend", json={"histories": [["?", *HISTORY], ["?", "!"]], "k": 3, "on_empty": "skip"})
    assert answer.status_code == 200 and offline(fitted, [HISTORY], 3)[0] == listed(answer)
    assert [found["unknown"] for found in answer.json()["lists"]] == [1, 2] and listed(answer, 1) == []


def test_similar_items_and_explanations_are_those_of_the_recommender(reader, fitted):
    answer = reader.post("/similar", json={"item_id": "item 3", "k": 4}).json()
    assert [item["item_id"] for item in answer["items"]] == fitted.similar_items("item 3", 4)["item_id"].to_list()
    answer = reader.post("/explain", json={"history": HISTORY, "k": 3, "show": 5}).json()
    assert answer["note"] == fitted.explanation_note() == ""
    table = fitted.explain(HISTORY, 3)
    for rank, item in enumerate(answer["items"], start=1):
        rows = table.filter(rank=rank)
        assert item["item_id"] == rows["item_id"][0] and item["title"]
        assert [found["code"] for found in item["digits"]] == rows["code"].to_list()
    beams = fitted.beams(HISTORY, 3, show=5)
    assert [len(step) for step in answer["beams"]] == beams.group_by("step", maintain_order=True).len()["len"].to_list()
    assert answer["beams"][0][0]["digits"] == beams["digits"][0].to_list()


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"#"}),
        ({"histories": [HISTORY], "users": ["user 1"]}, {"#"}),
        ({"histories": []}, {"#/histories"}),
        ({"histories": [[]]}, {"#/histories/0"}),
        ({"histories": [HISTORY, ["nowhere"]]}, {"#/histories/1"}),
        ({"histories": [HISTORY] * 9}, {"#/histories"}),
        ({"histories": [["item 3"] * 21]}, {"#/histories/0"}),
        ({"histories": [HISTORY], "k": 0}, {"#/k"}),
        ({"histories": [HISTORY], "k": 51}, {"#/k"}),
        ({"histories": [HISTORY], "k": "many"}, {"#/k"}),
        ({"histories": [HISTORY], "beam": 65}, {"#/beam"}),
        ({"histories": [HISTORY], "only": ["nowhere"]}, {"#/only"}),
        ({"histories": [HISTORY], "only": []}, {"#/only"}),
        ({"histories": [HISTORY], "without": ["nowhere", "item 03"]}, {"#/without"}),
        ({"histories": [HISTORY], "only": ["item 1"], "without": ["item 1"]}, {"#/without"}),
        ({"histories": [HISTORY], "only": ["item 1"] * 31}, {"#/only"}),
        ({"histories": [HISTORY], "exclude_sen": True}, {"#/exclude_sen"}),
        ({"histories": [[None]]}, {"#/histories/0/0"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(reader, body, pointers):
    assert errors_of(reader.post("/recommend", json=body)) == pointers


def test_other_errors_are_problems_too(reader):
    assert errors_of(reader.post("/recommend", content="{", headers={"content-type": "application/json"}), 400) == set()
    assert errors_of(reader.get("/nowhere"), 404) == set() and errors_of(reader.get("/recommend"), 405) == set()
    assert errors_of(reader.get("/items/nowhere"), 404) == set()
    large = json.dumps({"histories": [["x" * 250] * 100]})
    assert errors_of(reader.post("/recommend", content=large, headers={"content-type": "application/json"}), 413) == set()
    assert errors_of(reader.post("/similar", json={"item_id": "nowhere"})) == {"#/item_id"}
    assert errors_of(reader.get("/items", params={"limit": 1000})) == {"limit"}


def test_a_bug_tells_nothing_of_the_inside(saved, monkeypatch, limits):
    live = LiveModel(saved)
    monkeypatch.setattr(type(live.current.model), "similar_items", lambda *_: 1 / 0)
    with client_of(create_app(live, limits)) as client:
        answer = client.post("/similar", json={"item_id": "item 3"})
        assert errors_of(answer, 500) == set() and "division" not in answer.text and "Traceback" not in answer.text


@pytest.mark.parametrize("most", [0, 2_000, 12_000, 100_000])  # the recipe, the table, vectors, weights
def test_a_full_disk_is_503_whatever_file_it_is_full_at(writer, folder, most):
    before = writer.get("/model").json()
    with full_disk(most):
        answer = writer.post("/items/remove", json={"item_ids": ["item 3"]}, headers=BEARER)
    assert errors_of(answer, 503) == set() and answer.headers["retry-after"] and str(folder) not in answer.text
    assert writer.get("/model").json() == before
    assert writer.post("/items/remove", json={"item_ids": ["item 3"]}, headers=BEARER).status_code == 200


def test_a_file_that_cannot_be_read_is_503_and_not_named(writer, monkeypatch):
    def full(*_):
        raise OSError(24, "Too many open files", "/some/place")

    monkeypatch.setattr(LiveModel, "change", full)
    answer = writer.post("/items/remove", json={"item_ids": ["item 3"]}, headers=BEARER)
    assert errors_of(answer, 503) == set() and answer.headers["retry-after"] and "place" not in answer.text


def test_a_folder_that_cannot_be_written_changes_nothing_and_is_not_named(writer, folder, monkeypatch):
    before = writer.get("/model").json()

    def full(path, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffgrm.recommenders.saving.model_card", full)
    answer = writer.post("/items", json={"items": [{"item_id": "x", "text": "t"}]}, headers=BEARER)
    assert errors_of(answer, 503) == set() and str(folder) not in answer.text and "space" not in answer.text
    assert writer.get("/model").json() == before and len(diffgrm.load(folder).items) == before["items"]


def test_items_are_found_by_words_and_ids(reader, fitted):
    answer = reader.get("/items", params={"query": "RED espresso", "limit": 100}).json()
    titles = fitted.item_table["title"].str.to_lowercase()
    assert answer["total"] == (titles.str.contains("red") & titles.str.contains("espresso")).sum() == len(answer["items"])
    everything = reader.get("/items", params={"limit": 5}).json()
    assert everything["total"] == len(fitted.items)
    assert everything["items"][0]["events"] == fitted.item_counts.max()
    assert reader.get("/items", params={"query": "item 3"}).json()["items"][0]["item_id"] == "item 3"
    found = reader.get("/items/item 3").json()
    assert found["semantic_id"] == fitted.semantic_ids.codes[fitted.items.positions(["item 3"])[0]].tolist()
    assert found["row"]["text"] and found["recommendable"] is True


def test_the_catalogue_changes_for_the_token_holder_and_at_once(writer, folder):
    new = {"item_id": "new/1", "text": "Crema espresso machine, teal. Brand: Crema. Department: Coffee.", "title": "New"}
    before = writer.get("/model").json()
    answer = writer.post("/items", json={"items": [new]}, headers=BEARER)
    assert answer.status_code == 201 and answer.json()["items"] == before["items"] + 1
    assert answer.json()["model"] != before["model"] and writer.get("/ready").json()["model"] == answer.json()["model"]
    assert writer.get("/items/new/1").json()["title"] == "New"
    only = {"histories": [["item 3"]], "only": ["new/1"], "k": 1}
    assert listed(writer.post("/recommend", json=only))[0][0] == "new/1"
    assert diffgrm.load(folder).recommend([["item 3"]], 1, only=["new/1"])["item_id"].to_list() == ["new/1"]
    changed = {"items": [new | {"text": "a red scarf", "title": "Scarf"}], "semantic_ids": "keep"}
    assert writer.put("/items", json=changed, headers=BEARER).status_code == 200
    assert writer.get("/items/new/1").json()["title"] == "Scarf"
    removed = writer.post("/items/remove", json={"item_ids": ["new/1"]}, headers=BEARER).json()
    assert removed["recommendable"] == before["items"] and writer.get("/items/new/1").json()["recommendable"] is False
    assert errors_of(writer.post("/recommend", json=only)) == {"#/only"}
    assert (
        writer.post("/items/restore", json={"item_ids": ["new/1"]}, headers=BEARER).json()["recommendable"]
        == answer.json()["recommendable"]
    )
    assert diffgrm.load(folder).facts["catalogue_version"] == 4


TEA = {"item_id": "item 3", "text": "a tin of tea"}


@pytest.mark.parametrize(
    ("method", "path", "body", "pointers"),
    [
        ("POST", "/items", {"items": []}, {"#/items"}),
        ("POST", "/items", {"items": [{"item_id": "x"}]}, {"#/items/0/text"}),
        ("POST", "/items", {"items": [{"item_id": i, "text": "t"} for i in ("x", "item 3")]}, {"#/items/1/item_id"}),
        ("POST", "/items", {"items": [{"item_id": f"x{i}", "text": "t"} for i in range(6)]}, {"#/items"}),
        ("PUT", "/items", {"items": [{"item_id": "x", "text": "t"}], "semantic_ids": "keep"}, {"#/items/0/item_id"}),
        ("PUT", "/items", {"items": [{"item_id": "item 3", "text": "t"}]}, {"#/semantic_ids"}),
        ("POST", "/items", {"items": [{"item_id": "x", "text": "t", "brnd": "Moka"}]}, {"#/items/0/brnd"}),
        (
            "PUT",
            "/items",
            {"items": [TEA, {"item_id": "item 4", "text": "t", "a/b": 1}], "semantic_ids": "keep"},
            {"#/items/1/a~1b"},
        ),
        ("POST", "/items/remove", {"item_ids": ["item 3", "x"]}, {"#/item_ids/1"}),
        ("POST", "/items/restore", {"item_ids": []}, {"#/item_ids"}),
    ],
)  # fmt: skip
def test_changes_that_cannot_be_made_change_nothing(writer, method, path, body, pointers):
    before = writer.get("/model").json()
    assert errors_of(writer.request(method, path, json=body, headers=BEARER)) == pointers
    assert writer.get("/model").json() == before


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/items", {"items": [{"item_id": "x", "text": "t"}]}),
        ("PUT", "/items", {"items": [{"item_id": "item 3", "text": "t"}], "semantic_ids": "move"}),
        ("POST", "/items/remove", {"item_ids": ["item 3"]}),
        ("POST", "/items/restore", {"item_ids": ["item 3"]}),
    ],
)
def test_nobody_else_changes_anything(writer, reader, method, path, body, headers):
    before = writer.get("/model").json()
    errors_of(writer.request(method, path, json=body, headers=headers), 401)
    assert writer.get("/model").json() == before
    errors_of(reader.request(method, path, json=body, headers=BEARER), 403)  # a server without a token


def test_a_newer_model_is_taken_over_and_a_damaged_one_is_not(writer, folder):
    first = writer.get("/ready").json()["model"]
    diffgrm.load(folder).remove_items(["item 3"]).save(folder)
    second = eventually(lambda: writer.get("/ready").json()["model"], lambda model: model != first)
    (folder / "model.safetensors").write_bytes(b"damaged")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    eventually(lambda: writer.get("/metrics").text, lambda text: "diffgrm_failed_reloads 1.0" in text)
    assert writer.get("/ready").json()["model"] == second
    assert writer.post("/recommend", json={"histories": [HISTORY], "k": 2}).status_code == 200


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, AssertionError, OSError])
def test_whatever_is_wrong_with_a_model_it_is_counted_and_told_once_and_tried_seldom(
    saved, folder, error, monkeypatch, caplog
):
    live, tries = LiveModel(folder), []
    first, now = live.current.version, [1000.0]
    monkeypatch.setattr("diffgrm.apps.serving.live_folder.time.monotonic", lambda: now[0])

    def damaged(place, **_):
        tries.append(now[0])
        raise error("odd")

    manifest = folder / "manifest.json"
    with monkeypatch.context() as broken:
        broken.setattr("diffgrm.apps.serving.live.load", damaged)
        manifest.write_text(manifest.read_text() + "\n")
        for _ in range(100):
            assert live.refresh() is False
            now[0] += 2
        assert tries == [1000 + sum(2**n for n in range(1, count + 1)) for count in range(len(tries))] and len(tries) == 7
        assert live.failed_reloads == 1 and len([r for r in caplog.records if "cannot be used" in r.message]) == 1
        manifest.write_text(manifest.read_text() + "\n")  # another one
        assert live.refresh() is False and live.failed_reloads == 2
    assert live.current.version == first
    now[0] += 2
    assert live.refresh() is True and live.current.version != first  # what was wrong was not the model


def test_a_change_disturbs_nobody_and_loses_none_of_others(writer, folder, fitted):
    live, first = writer.app.state.server.live, writer.get("/ready").json()["model"]
    under_way, go_on = threading.Event(), threading.Event()

    def slowly(recommender):
        under_way.set()
        assert go_on.wait(20)
        return recommender.remove_items(["item 3"])

    def add(item):
        return diffgrm.load(folder).add_items(pl.DataFrame({"item_id": [item], "text": ["new"]})).save(folder)

    with ThreadPoolExecutor(2) as pool:
        change = pool.submit(live.change, slowly)
        assert under_way.wait(20)
        assert writer.post("/recommend", json={"histories": [HISTORY], "k": 2}).status_code == 200
        pool.submit(add, "theirs").result(timeout=20)  # the folder is not locked
        second = eventually(lambda: writer.get("/ready").json()["model"], lambda model: model != first)
        go_on.set()
        third = change.result(timeout=20)
    assert second != third.version == writer.get("/ready").json()["model"]
    saved = diffgrm.load(folder)
    assert not saved.recommendable[3] and saved.items.positions(["theirs"])[0] == len(fitted.items)
    assert third.saved.items.positions(["theirs"])[0] == len(fitted.items)


def test_metrics_count_requests_by_route_and_tell_the_version(reader):
    reader.post("/recommend", json={"histories": [HISTORY], "k": 2})
    reader.get("/items/item 3")
    text = reader.get("/metrics").text
    assert 'handler="/recommend"' in text and 'handler="/items/{item_id:path}"' in text and "item 3" not in text
    assert f'diffgrm_model{{version="{reader.get("/ready").json()["model"]}"}} 1.0' in text
    assert "diffgrm_waiting_histories 0.0" in text


def test_nothing_but_the_page_is_served_from_disk(reader):
    for path in ("/explorer/../app.py", "/explorer/%2e%2e/app.py", "/explorer/..%2f..%2fcli.py", "/explorer//etc/passwd"):
        answer = reader.get(path)
        assert answer.status_code == 404 and "import" not in answer.text
    page = reader.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http" not in reader.get("/docs").text  # nothing from other hosts


@pytest.mark.parametrize("name", ["popularity", "sasrec", "item_knn", "autoregressive"])
def test_every_kind_of_recommender_is_served(name, toy, tmp_path, limits):
    recommender = resolve("recommender", name)(small_recipe(name)).fit(toy, progress=False)
    with client_of(create_app(LiveModel(recommender.save(tmp_path / name)), limits)) as client:
        assert offline(recommender, [HISTORY], 5)[0] == listed(
            client.post("/recommend", json={"histories": [HISTORY], "k": 5})
        )
        assert errors_of(client.post("/explain", json={"history": HISTORY})) == set()
        assert client.get("/model").json()["explains"] is False
        for field in ("beam", "candidates"):
            answer = client.post("/recommend", json={"histories": [HISTORY], field: 8})
            if (name, field) == ("autoregressive", "beam"):
                assert answer.status_code == 200
            else:
                assert errors_of(answer) == {f"#/{field}"} and f"has no {field}; " in answer.text
        assert client.get("/items/item 3").status_code == 200


def test_ids_that_are_whole_numbers(toy, tmp_path, tiny_recipe, limits):
    number = pl.col("item_id").str.extract(r"(\d+)").cast(pl.Int64)
    dataset = diffgrm.InteractionDataset.from_tables(
        toy.event_table().with_columns(number), toy.item_table.with_columns(number)
    )
    recommender = resolve("recommender", "popularity")().fit(dataset, progress=False)
    with client_of(create_app(LiveModel(recommender.save(tmp_path / "numbers")), limits, token=TOKEN)) as client:
        expected = offline(recommender, [[3, 77]], 5)[0]
        for history in ([3, 77], ["3", 77]):
            assert expected == listed(client.post("/recommend", json={"histories": [history], "k": 5}))
        assert client.get("/items/3").json()["item_id"] == 3
        for nearly in ("03", "+3", "3.0", " 3"):
            assert errors_of(client.post("/recommend", json={"histories": [[nearly]]})) == {"#/histories/0"}
            assert errors_of(client.post("/recommend", json={"histories": [[3]], "without": [nearly]})) == {"#/without"}
            assert errors_of(client.post("/items/remove", json={"item_ids": [nearly]}, headers=BEARER)) == {"#/item_ids/0"}
        for nearly in (3.0, True, None):
            assert errors_of(client.post("/recommend", json={"histories": [[nearly]]}))
            assert errors_of(client.post("/items", json={"items": [{"item_id": nearly, "text": "x"}]}, headers=BEARER))
        rows = [{"item_id": 600, "text": "new"}, {"item_id": "601", "text": "new"}]
        assert client.post("/items", json={"items": rows}, headers=BEARER).status_code == 201
        assert client.get("/items/600").json()["item_id"] == 600 and client.get("/items/601").json()["item_id"] == 601
        assert client.post("/items/remove", json={"item_ids": ["600", 601]}, headers=BEARER).status_code == 200
        removed = client.post("/items/remove", json={"item_ids": [expected[0][0]]}, headers=BEARER)
        assert removed.json()["recommendable"] == len(recommender.items) - 1  # of those that were there at first


def test_rows_and_facts_that_json_cannot_hold_are_shown_as_it_can(toy, tmp_path, limits):
    columns = {"price": float("nan"), "bytes": b"\xff\x00", "sizes": [1.5, float("inf")], "kind": {"a": float("nan")}}
    table = toy.item_table.with_columns(pl.Series(name, [value] * toy.item_table.height) for name, value in columns.items())
    recommender = resolve("recommender", "popularity")().fit(
        diffgrm.InteractionDataset.from_tables(toy.event_table(), table), progress=False
    )
    recommender.facts["loss"] = float("nan")
    with client_of(create_app(LiveModel(recommender.save(tmp_path / "odd")), limits)) as client:
        row = client.get("/items/item 3").json()["row"]
        assert {name: row[name] for name in columns} == {
            "price": None,
            "bytes": "ff00",
            "sizes": [1.5, None],
            "kind": {"a": None},
        }
        assert client.get("/model").json()["facts"]["loss"] is None
