"""A retriever of documents over HTTP."""

from __future__ import annotations

import logging
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from typer.testing import CliRunner

from diffgrm import DocumentRetriever
from diffgrm.apps.cli.main import app as commands
from diffgrm.foundation.schema import DataError, ModelFolderError, RecipeError
from helpers.documents import library, small_documents, with_vectors
from helpers.serving import client_of, errors_of, eventually, serving

pytest.importorskip("fastapi")
from diffgrm.apps.serving.live import LiveModel
from diffgrm.apps.serving.search_app import create_search_app
from diffgrm.apps.serving.searching import LiveRetriever
from diffgrm.apps.serving.settings import SearchLimits

QUERIES = ["origin of the violin", "where is the sound of a comet", "bread"]
LIMITS = SearchLimits(reload_seconds=0.05, k=30, beam=64, queries=4, body_bytes=2_000)


@pytest.fixture(scope="module")
def retriever():
    return DocumentRetriever(small_documents()).fit(*library(), progress=False)


@pytest.fixture(scope="module")
def saved_retriever(retriever, tmp_path_factory):
    return retriever.save(tmp_path_factory.mktemp("retrievers") / "small")


@pytest.fixture(scope="module")
def client(saved_retriever):
    with client_of(create_search_app(LiveRetriever(saved_retriever), LIMITS)) as client:
        yield client


def lists_of(answer):
    assert answer.status_code == 200, answer.text
    return [[(found["doc_id"], found["score"]) for found in row["documents"]] for row in answer.json()["lists"]]


def offline(retriever, queries, k):
    found = retriever.search(queries, k)
    return [
        [(document, pytest.approx(score, abs=1e-5)) for document, score in rows.select("doc_id", "score").iter_rows()]
        for _, rows in found.group_by("query_id", maintain_order=True)
    ]


def test_answers_are_those_of_the_retriever(client, retriever):
    answer = client.post("/search", json={"queries": QUERIES, "k": 5, "titles": True})
    assert offline(retriever, QUERIES, 5) == lists_of(answer)
    assert [row["query"] for row in answer.json()["lists"]] == [0, 1, 2]
    assert answer.json()["lists"][0]["documents"][0] | {"score": 0} == {
        "doc_id": "violin-origin",
        "score": 0,
        "title": "Violin",
    }
    answer = client.post("/search", json={"queries": QUERIES[:1], "k": 3, "beam": 4})
    assert offline(retriever.variant(["decoding.beam=4"]), QUERIES[:1], 3) == lists_of(answer)


def test_requests_that_are_answered_together_get_their_own_lists(client, retriever):
    asked = [(QUERIES[number % 3 :], 2 + number % 2) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: client.post("/search", json={"queries": one[0], "k": one[1]}), asked))
    for (queries, k), answer in zip(asked, answers, strict=True):
        assert offline(retriever, queries, k) == lists_of(answer)


def test_explanations_are_those_of_the_retriever(client, retriever):
    answer = client.post("/explain", json={"query": QUERIES[0], "k": 2, "show": 3, "beam": 8}).json()
    variant = retriever.variant(["decoding.beam=8"])
    table, beams = variant.explain(QUERIES[0], 2), variant.beams(QUERIES[0], 2, show=3)
    for rank, document in enumerate(answer["documents"], start=1):
        rows = table.filter(rank=rank)
        assert document["doc_id"] == rows["doc_id"][0] and document["title"]
        assert document["digits"] == rows.drop("rank", "doc_id").to_dicts()
    assert [len(step) for step in answer["beams"]] == beams.group_by("step", maintain_order=True).len()["len"].to_list()
    assert (answer["n_digits"], answer["codebook_size"], answer["note"]) == (3, 8, "")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"#/queries"}),
        ({"queries": []}, {"#/queries"}),
        ({"queries": "violin"}, {"#/queries"}),
        ({"queries": ["violin"] * 5}, {"#/queries"}),
        ({"queries": ["violin", ""]}, {"#/queries/1"}),
        ({"queries": [" <b></b> "]}, {"#/queries/0"}),
        ({"queries": [7, None]}, {"#/queries/0", "#/queries/1"}),
        ({"queries": ["violin"], "k": 0}, {"#/k"}),
        ({"queries": ["violin"], "k": 31}, {"#/k"}),
        ({"queries": ["violin"], "k": "3"}, {"#/k"}),
        ({"queries": ["violin"], "beam": 65}, {"#/beam"}),
        ({"queries": ["violin"], "candidates": 9}, {"#/candidates"}),
        ({"queries": ["violin"], "title": True}, {"#/title"}),
    ],
)
def test_what_is_wrong_is_named(client, body, pointers):
    assert errors_of(client.post("/search", json=body)) == pointers


def test_other_errors_are_problems_too(client, saved_retriever):
    json = {"content-type": "application/json"}
    broken = client.post("/search", content='{"queries": ["\\ud800"]}', headers=json)
    assert errors_of(broken) == {"#/queries/0"} and "surrogate" in broken.text
    assert errors_of(client.post("/search", content="{", headers=json), 400) == set()
    assert errors_of(client.post("/search", json={"queries": ["x" * 3_000]}), 413) == set()
    assert errors_of(client.get("/model?verbose=1")) == {"verbose"}
    assert errors_of(client.post("/explain", json={"query": "violin", "k": 21, "shows": 2})) == {"#/k", "#/shows"}
    assert errors_of(client.post("/recommend", json={"histories": [["violin"]]}), 404) == set()
    assert errors_of(client.get("/health", headers={"host": "elsewhere.example"}), 421) == set()
    with client_of(create_search_app(LiveRetriever(saved_retriever))) as roomy:
        assert "the catalogue's size" in roomy.post("/search", json={"queries": ["violin"], "k": 41}).text


def test_nothing_changes_so_that_no_token_is_asked_for(client):
    described = client.get("/openapi.json").json()
    methods = {(way, path) for path, ways in described["paths"].items() for way in ways}
    told = {("get", f"/{name}") for name in ("health", "ready", "model")}
    assert methods == {("post", "/search"), ("post", "/explain")} | told
    assert "securitySchemes" not in described["components"]
    with_token = client.post("/search", json={"queries": QUERIES}, headers={"Authorization": "Bearer nobody knows it"})
    assert lists_of(with_token) == lists_of(client.post("/search", json={"queries": QUERIES}))


def test_the_retriever_tells_what_it_is(client, retriever):
    told = client.get("/model").json()
    assert (told["documents"], told["explains"], told["beam"], told["candidates"]) == (40, True, 40, None)
    assert told["limits"] == LIMITS.model_dump() and "asked_in_fit" not in told["facts"]
    assert set(told["facts"]) == set(retriever.facts) - {"asked_in_fit"}
    assert client.get("/health").json() == {"status": "ok"} and client.get("/ready").json()["model"] == told["model"]
    metrics = client.get("/metrics").text
    assert "diffgrm_documents 40.0" in metrics and "diffgrm_waiting_queries 0.0" in metrics
    for path in ("/docs", "/explorer/docs.js", "/explorer/icon.svg", "/static-offline-docs/swagger-ui.css"):
        assert client.get(path).status_code == 200
    assert client.get("/explorer/index.html").status_code == 404


def test_a_decoding_that_cannot_be_explained_says_so(client, monkeypatch):
    monkeypatch.setattr(DocumentRetriever, "explains", False)
    assert "goes from left to right" in client.post("/explain", json={"query": "violin"}).text
    assert client.get("/model").json()["explains"] is False


def test_clients_cannot_flood_the_log(client, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert client.post("/search", json={"queries": ["zzzz"], "k": 2}).status_code == 200
    assert caplog.text.count("say nothing that the embedding knows") <= 1


def test_a_newer_retriever_is_taken_over_and_a_recommender_is_not(retriever, saved, tmp_path):
    folder = retriever.save(tmp_path / "model")
    with client_of(create_search_app(LiveRetriever(folder, ["decoding.name=one_pass"]), LIMITS)) as client:
        first = client.get("/ready").json()["model"]
        fewer = small_documents("tokenizer.iterations=4")
        DocumentRetriever(fewer).fit(*library(), progress=False).save(folder)
        second = eventually(lambda: client.get("/ready").json()["model"], lambda found: found != first)
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)
        eventually(lambda: "diffgrm_failed_reloads 1.0" in client.get("/metrics").text)
        assert client.get("/ready").json()["model"] == second
        assert len(lists_of(client.post("/search", json={"queries": QUERIES}))) == 3


def test_a_server_takes_the_kind_of_folder_that_it_is_for(saved, saved_retriever):
    with pytest.raises(ModelFolderError, match="is a diffgrm model, not a document retriever"):
        LiveRetriever(saved)
    with pytest.raises(ModelFolderError, match="a document retriever"):
        LiveModel(saved_retriever)


def test_vectors_made_elsewhere_cannot_be_asked_with_over_http(tmp_path):
    recipe, queries = with_vectors(tmp_path)
    documents, _, qrels = library()
    folder = DocumentRetriever(recipe).fit(documents, queries, qrels, progress=False).save(tmp_path / "model")
    with pytest.raises(RecipeError, match="precomputed has no vectors of queries that are asked over HTTP"):
        LiveRetriever(folder)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--limit", "histories=3"], DataError, "'histories' is not a bound; known: batch"),
        (["decoding.beem=3"], RecipeError, "beem"),
        (["--allow-host", "http://shop.example"], DataError, "without scheme and port"),
    ],
)
def test_the_command_refuses_what_cannot_be_served(saved_retriever, options, error, message):
    answer = CliRunner().invoke(commands, ["documents", "serve", str(saved_retriever), *options])
    assert isinstance(answer.exception, error) and message in str(answer.exception)


def test_the_command_serves(saved_retriever, retriever):
    httpx = pytest.importorskip("httpx")
    with serving(saved_retriever, "--limit", "queries=2", command=("documents", "serve")) as served:
        answer = httpx.post(f"{served.url}/search", json={"queries": QUERIES[:2], "k": 3}, timeout=20)
        assert offline(retriever, QUERIES[:2], 3) == lists_of(answer)
        assert errors_of(httpx.post(f"{served.url}/search", json={"queries": QUERIES}, timeout=20)) == {"#/queries"}
        assert any("40 documents" in line for line in served.log)
        served.process.terminate()
        assert served.process.wait(20) == -signal.SIGTERM


def test_a_first_document_of_a_text_that_asks_for_nothing_is_served(tmp_path):
    documents, queries, qrels = library()
    documents = documents.with_columns(text=pl.when(pl.arange(pl.len()) == 0).then(pl.lit("&lt;p&gt;")).otherwise("text"))
    saved = DocumentRetriever(small_documents("training.epochs=1")).fit(documents, queries, qrels, progress=False)
    with client_of(create_search_app(LiveRetriever(saved.save(tmp_path / "model")), LIMITS)) as client:
        assert len(lists_of(client.post("/search", json={"queries": QUERIES[:1], "k": 5}))[0]) == 5
