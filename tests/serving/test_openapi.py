"""Hostile and odd requests, drawn from the app's own OpenAPI description."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, given, settings

import diffgrm

schemathesis = pytest.importorskip("schemathesis")
app_module = pytest.importorskip("diffgrm.apps.serving.app")
live_module = pytest.importorskip("diffgrm.apps.serving.live")

# Ids that fit the description need not be in the catalogue, and the server of the test has one token for all.
NOT_CHECKED = ("positive_data_acceptance", "ignored_auth")
TOKEN = "a token for tests only"
OPERATIONS = {
    "GET": ["/items", "/items/{item_id}", "/health", "/ready", "/model"],
    "POST": ["/recommend", "/similar", "/explain", "/items", "/items/remove", "/items/restore"],
    "PUT": ["/items"],
}


@pytest.fixture(scope="module")
def api(saved, tmp_path_factory):
    folder = shutil.copytree(saved, tmp_path_factory.mktemp("hostile") / "model")
    app = app_module.create_app(live_module.LiveModel(folder), token=TOKEN, hosts=["*"])
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_every_operation_is_tried(api):
    described = {(operation.ok().method.upper(), operation.ok().path) for operation in api.get_all_operations()}
    assert described == {(method, path) for method, paths in OPERATIONS.items() for path in paths}


def test_the_description_tells_the_version_of_the_package(api):
    assert api.raw_schema["info"]["version"] == diffgrm.__version__


ALL = [(method, path) for method, paths in OPERATIONS.items() for path in paths]
CASES = [("POSITIVE", *operation) for operation in ALL]
CASES += [("NEGATIVE", method, path) for method, path in ALL if method != "GET" or path == "/items"]


@pytest.mark.parametrize(("mode", "method", "path"), CASES)
def test_every_answer_is_as_described_and_none_is_a_server_error(api, mode, method, path):
    operation = api[path][method]
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
