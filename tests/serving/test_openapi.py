"""Hostile and odd requests, drawn from the app's own OpenAPI description."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, given, settings

import diffgrm
from helpers.documents import library, small_documents

schemathesis = pytest.importorskip("schemathesis")
app_module = pytest.importorskip("diffgrm.apps.serving.app")
live_module = pytest.importorskip("diffgrm.apps.serving.live")
search_app = pytest.importorskip("diffgrm.apps.serving.search_app")
searching = pytest.importorskip("diffgrm.apps.serving.searching")

# Ids that fit the description need not be in the catalogue, and the server of the test has one token for all.
NOT_CHECKED = ("positive_data_acceptance", "ignored_auth")
TOKEN = "a token for tests only"
OPERATIONS = {
    "GET": ["/items", "/items/{item_id}", "/health", "/ready", "/model"],
    "POST": ["/recommend", "/similar", "/explain", "/items", "/items/remove", "/items/restore"],
    "PUT": ["/items"],
}
OF_DOCUMENTS = {"GET": ["/health", "/ready", "/model"], "POST": ["/search", "/explain"]}


@pytest.fixture(scope="module")
def api(saved, tmp_path_factory):
    folder = shutil.copytree(saved, tmp_path_factory.mktemp("hostile") / "model")
    app = app_module.create_app(live_module.LiveModel(folder), token=TOKEN, hosts=["*"])
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module")
def api_of_documents(tmp_path_factory):
    retriever = diffgrm.DocumentRetriever(small_documents()).fit(*library(), progress=False)
    live = searching.LiveRetriever(retriever.save(tmp_path_factory.mktemp("hostile") / "retriever"))
    return schemathesis.openapi.from_asgi("/openapi.json", search_app.create_search_app(live, hosts=["*"]))


def test_every_operation_is_tried(api, api_of_documents):
    for described, operations in ((api, OPERATIONS), (api_of_documents, OF_DOCUMENTS)):
        found = {(operation.ok().method.upper(), operation.ok().path) for operation in described.get_all_operations()}
        assert found == {(method, path) for method, paths in operations.items() for path in paths}


def test_the_description_tells_the_version_of_the_package(api):
    assert api.raw_schema["info"]["version"] == diffgrm.__version__


ALL = [("api", method, path) for method, paths in OPERATIONS.items() for path in paths]
ALL += [("api_of_documents", "POST", path) for path in OF_DOCUMENTS["POST"]]
CASES = [("POSITIVE", *operation) for operation in ALL]
CASES += [("NEGATIVE", *operation) for operation in ALL if operation[1] != "GET" or operation[2] == "/items"]


@pytest.mark.parametrize(("mode", "name", "method", "path"), CASES)
def test_every_answer_is_as_described_and_none_is_a_server_error(request, mode, name, method, path):
    operation = request.getfixturevalue(name)[path][method]
    not_checked = [schemathesis.checks.CHECKS.get_one(name) for name in NOT_CHECKED]

    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    def check(case):
        if method != "GET":
            case.headers["Authorization"] = f"Bearer {TOKEN}"
        response = case.call_and_validate(excluded_checks=not_checked)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.headers["content-type"][0] == "application/problem+json"

    check()
