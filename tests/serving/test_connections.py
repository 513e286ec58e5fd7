"""Connections that keep a server waiting, more of them than it has places or descriptors for; real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import httpx
import pytest

from helpers.serving import HISTORY, Served, eventually, serving

settings = pytest.importorskip("diffgrm.apps.serving.settings")
connections = pytest.importorskip("diffgrm.apps.serving.connections")
app_module = pytest.importorskip("diffgrm.apps.serving.app")
live = pytest.importorskip("diffgrm.apps.serving.live")
run = pytest.importorskip("diffgrm.apps.serving.run")

HALF = b"GET /health HTTP/1.1\r\nHost: local"
WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENT = {"head_seconds": 60, "idle_seconds": 60, "body_seconds": 60}


@contextlib.contextmanager
def serve(folder, **bounds):
    """A server in a thread; its port."""
    limits = settings.Limits(**bounds)
    with run.in_background(app_module.create_app(live.LiveModel(folder), limits), limits) as url:
        yield int(url.rstrip("/").rsplit(":", 1)[1])


@contextlib.contextmanager
def connected(port, number=1, sent=b""):
    """Open connections on which something was sent."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(number):
            found.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)))
            found[-1].sendall(sent)
        yield found


def closed_after(connection):
    """Seconds until the server ends a connection, and what it sent before."""
    started, received = time.monotonic(), b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            received += more
    return time.monotonic() - started, received


def healthy(port):
    return httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code


@pytest.mark.parametrize("sent", [b"", b"G", HALF, WHOLE + HALF], ids=["nothing", "a byte", "half a head", "half a second"])
def test_a_head_has_its_time(saved, sent):
    with serve(saved, head_seconds=0.3, idle_seconds=0.3) as port, connected(port, sent=sent) as (connection,):
        seconds, received = closed_after(connection)
        assert 0.2 < seconds < 5 and received.count(b"200 OK") == sent.count(WHOLE)


def test_a_head_that_comes_byte_by_byte_has_no_more_time(saved):
    with serve(saved, head_seconds=0.5, idle_seconds=60) as port, connected(port, sent=WHOLE) as (connection,):
        started = time.monotonic()
        with pytest.raises(OSError):
            for byte in HALF * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - started < 5


def test_an_idle_connection_has_its_time_and_a_busy_one_stays(saved):
    with serve(saved, head_seconds=0.8, idle_seconds=0.8) as port, connected(port, 2, WHOLE) as (idle, busy):
        for _ in range(12):
            received = b""
            while not received.endswith(b'{"status":"ok"}'):
                more = busy.recv(4096)
                assert more
                received += more
            time.sleep(0.1)
            busy.sendall(WHOLE)
        seconds, received = closed_after(idle)
        assert seconds < 5 and received.count(b"200 OK") == 1


def test_who_does_not_take_an_answer_loses_it(saved):
    with serve(saved, idle_seconds=0.3) as port, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        with contextlib.suppress(OSError):  # so many answers that the system cannot hold them
            connection.settimeout(2)
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)
        time.sleep(1)
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall(WHOLE)
                time.sleep(0.02)
        assert healthy(port) == 200


@pytest.mark.parametrize(
    "sent", [b"", HALF, WHOLE, b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"]
)
def test_connections_that_wait_for_their_clients_lock_nobody_out(saved, sent):
    with serve(saved, connections=10, **PATIENT) as port, connected(port, 30, sent) as waiting:
        for _ in range(3):
            assert healthy(port) == 200
        assert closed_after(waiting[0])[0] < 5  # the oldest went first
        waiting[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            while waiting[-1].recv(4096):
                pass


def test_where_all_connections_are_at_work_one_more_is_told_so(saved, monkeypatch):
    model, ended = live.LiveModel(saved), threading.Event()
    monkeypatch.setattr(type(model.current.model), "similar_items", lambda *_: ended.wait(20) and 1 / 0)
    limits = settings.Limits(connections=3, **PATIENT)
    with run.in_background(app_module.create_app(model, limits), limits) as url:
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        body = b'{"item_id": "item 3"}'
        work = (
            b"POST /similar HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        )
        with connected(port, 3, work % (len(body), body)):
            try:
                refused = eventually(lambda: httpx.get(f"{url}health"), lambda answer: answer.status_code == 503)
                assert refused.headers["retry-after"] == "1" and refused.headers["connection"] == "close"
                assert refused.headers["content-type"] == "application/problem+json"
            finally:
                ended.set()
        assert eventually(lambda: healthy(port), lambda status: status == 200)


def test_more_connections_than_descriptors_harm_nobody_and_fill_no_log(saved):
    resource = pytest.importorskip("resource")

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    with serving(saved, "--limit", "head_seconds=0.5", preexec_fn=few) as served:
        assert any("ulimit" in line for line in served.log)
        bound = served.get("/model").json()["limits"]["connections"]
        assert bound == 128
        with connected(served.port, 600, HALF):
            assert eventually(lambda: _status(served), lambda status: status == 200, seconds=20)
        eventually(lambda: _status(served), lambda status: status == 200, seconds=20)
        assert sum(map(len, served.log)) < 20_000


def _status(served: Served):
    try:
        return served.ask().status_code
    except httpx.HTTPError:
        return None


def test_bounds_follow_the_descriptors_that_a_process_may_have(monkeypatch):
    resource = pytest.importorskip("resource")
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: asked.append(pair))
    for few, most, connections_, pair in (
        (1024, 1_000_000, 1024, (1024 + connections.RESERVED,)),
        (1024, 1024, 1024 - connections.RESERVED, (1024,)),
        (100, 100, 50, (100,)),
        (1_000_000, 1_000_000, 1024, ()),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1024, ()),
    ):
        asked.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda _, few=few, most=most: (few, most))
        assert connections.within_descriptors(settings.Limits()).connections == connections_
        assert tuple(soft for soft, _ in asked) == pair


def test_connections_lost_in_the_middle_are_nobodys_error(saved, caplog):
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    with serve(saved) as port:
        with connected(port, 5, head):
            time.sleep(0.1)

        def counted():
            lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
            return [line for line in lines if line.startswith("http_requests_total{")]

        assert eventually(counted, lambda lines: lines and lines[0].endswith(" 5.0"))
        assert [('handler="/recommend"' in line, 'status="4xx"' in line) for line in counted()] == [(True, True)]
    assert not [record for record in caplog.records if record.exc_info]


def test_the_metrics_grow_by_no_method_or_path_that_is_invented(saved):
    with serve(saved) as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for number in range(15):
                assert client.request(f"METHOD{number}", "/recommend").status_code == 405
                assert client.request(f"METHOD{number}", f"/nowhere/{number}").status_code == 404
                assert client.get(f"/explorer/{number}").status_code == 404
                assert client.get(f"/static-offline-docs/{number}").status_code == 404
            text = client.get("/metrics").text
        counted = [line for line in text.splitlines() if line.startswith("http_requests_total")]
        assert len(counted) == 4 and sum(float(line.split()[-1]) for line in counted) == 60
        assert sum('method="OTHER"' in line for line in counted) == 2 and "METHOD" not in text
        assert HISTORY[0] not in text
