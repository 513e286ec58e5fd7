"""What stands before the routes: hosts, methods, policies; and who holds no token."""

from __future__ import annotations

import logging

import pytest

from diffgrm.foundation.schema import DataError
from helpers.serving import BEARER, HISTORY, TOKEN, client_of, errors_of

app_module = pytest.importorskip("diffgrm.apps.serving.app")
live = pytest.importorskip("diffgrm.apps.serving.live")
quiet = pytest.importorskip("diffgrm.apps.serving.quiet")

PATHS = ["/", "/docs", "/items", "/items/item 3", "/model", "/health", "/metrics", "/explorer/api.js", "/openapi.json"]


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("localhost.:80", True),
        ("127.0.0.1:1", True),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("shop.example:443", True),
        ("rebound.example:8000", False),
        ("localhost.rebound.example", False),
        ("localhost@rebound.example", False),
        ("rebound.example#localhost", False),
        ("127.0.0.1.rebound.example", False),
        ("localhost:8000:8000", False),
        ("localhost,rebound.example", False),
        ("", False),
        ("*", False),
    ],
)
def test_a_server_answers_to_its_own_names_only(saved, host, answered):
    app = app_module.create_app(live.LiveModel(saved), token=TOKEN, hosts=["localhost", "127.0.0.1", "::1", "Shop.example"])
    client = client_of(app)
    headers = {"host": host}
    for path in (*PATHS, "/explorer", "/nowhere"):
        answer = client.get(path, headers=headers, follow_redirects=False)
        if answered:
            assert answer.status_code == (404 if path in ("/explorer", "/nowhere") else 200)
        else:
            assert errors_of(answer, 421) == set() and "location" not in answer.headers
    asked = client.post("/recommend", json={"histories": [HISTORY], "k": 1}, headers=headers)
    assert asked.status_code == (200 if answered else 421)
    if not answered:
        assert errors_of(client.post("/items/remove", json={"item_ids": ["x"]}, headers=headers | BEARER), 421) == set()


def test_any_name_is_answered_where_the_server_was_told_so_and_nobody_is_sent_to_it(saved):
    client = client_of(app_module.create_app(live.LiveModel(saved), hosts=["*"]))
    assert client.get("/health", headers={"host": "any.example"}).status_code == 200
    for path in ("/explorer", "/docs/", "/recommend/", "/items/", "//any.example/"):
        answer = client.request("GET", f"http://localhost{path}", headers={"host": "any.example"}, follow_redirects=False)
        assert "location" not in answer.headers and "any.example" not in answer.text.replace(path, "")


@pytest.mark.parametrize("path", PATHS)
def test_what_can_be_got_can_be_asked_about(reader, path):
    got, head = reader.get(path), reader.head(path)
    assert head.status_code == 200 and head.content == b"" and head.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == str(len(got.content))
    options = reader.options(path)
    assert options.status_code == 204 and options.content == b""
    assert {"GET", "HEAD", "OPTIONS"} <= set(options.headers["allow"].split(", "))
    assert "access-control-allow-origin" not in options.headers


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/items", "GET, HEAD, POST, PUT, OPTIONS"),
        ("/recommend", "POST, OPTIONS"),
        ("/items/remove", "GET, HEAD, POST, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/explorer/api.js", "GET, HEAD, OPTIONS"),
    ],
)
def test_other_methods_are_told_those_that_there_are(reader, path, allowed):
    assert reader.options(path).headers["allow"] == allowed
    for method in ("DELETE", "PATCH", "TRACE", "NONSENSE"):
        answer = reader.request(method, path)
        assert errors_of(answer, 405) == set() and answer.headers["allow"] == allowed
    assert errors_of(reader.options("/nowhere"), 404) == set() and reader.head("/nowhere").status_code == 404


def test_every_answer_has_a_policy_and_only_pages_may_load_anything(reader):
    for path in (*PATHS, "/nowhere"):
        policy = reader.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'self'" if path in ("/", "/docs") else "default-src 'none'")
        assert "unsafe" not in policy and "http" not in policy
    assert reader.get("/nowhere", headers={"host": "x"}).headers["content-security-policy"].startswith("default-src 'none'")


def test_wrong_tokens_are_logged_with_the_address_seldom_and_without_the_token(writer, caplog, monkeypatch):
    for logger in map(logging.getLogger, ("diffgrm.apps.serving.items",)):
        for found in [f for f in logger.filters if isinstance(f, quiet.Seldom)]:
            monkeypatch.setattr(found, "_last", {})
            monkeypatch.setattr(found, "_left_out", {})
    change = {"item_ids": ["item 3"]}
    assert writer.post("/items/remove", json=change).status_code == 401  # none is no wrong one
    for number in range(50):
        wrong = {"Authorization": f"Bearer wrong secret {number}"}
        assert writer.post("/items/remove", json=change, headers=wrong).status_code == 401
    assert writer.post("/items/remove", json=change, headers={"Authorization": b"Bearer \xe4"}).status_code == 401
    assert writer.post("/items/remove", json=change, headers=BEARER).status_code == 200
    told = [record.getMessage() for record in caplog.records if "token" in record.getMessage()]
    assert told == ["A wrong token came from testclient"]


def test_a_kind_of_warning_is_logged_once_in_a_while_with_the_number_left_out(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(quiet.time, "monotonic", lambda: now[0])
    seldom = quiet.Seldom(seconds=10)

    def log(text, *values, level=logging.WARNING):
        record = logging.LogRecord("x", level, "", 0, text, values, None)
        return record.getMessage() if seldom.filter(record) else None

    assert log("from %s", "a") == "from a" and log("from %s", "b") is None and log("from %s", "c") is None
    assert log("other\nlines") == "other\nlines" and log("from %s", "d", level=logging.INFO) == "from d"
    now[0] += 11
    assert log("from %s", "e") == "from e (and 2 more of this kind since the last one that was logged)"
    now[0] += 11
    assert log("from %s", "f") == "from f"


@pytest.mark.parametrize("token", ["short", "pässwort pässwort pässwort", ""])
def test_no_server_is_made_with_a_token_that_nobody_could_send(saved, token):
    with pytest.raises(DataError, match="token"):
        app_module.create_app(live.LiveModel(saved), token=token)
