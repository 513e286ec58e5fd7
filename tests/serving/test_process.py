"""The server as a process of its own: kills, slow clients, a full queue, models that change under load."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time

import pytest

import diffgrm
from diffgrm.foundation.storage import file_digest
from helpers.serving import HISTORY, TOKEN, eventually, serving

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")


def items_of(answer):
    return [item["item_id"] for item in answer.json()["lists"][0]["items"]]


def test_a_kill_loses_nothing_and_the_restart_answers_as_before(folder):
    expected = diffgrm.load(folder).recommend([HISTORY], 3)["item_id"].to_list()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with serving(folder) as served:
        assert items_of(served.ask()) == expected
        added = httpx.post(
            f"{served.url}/items", json={"items": [{"item_id": "new", "text": "a red scarf"}]}, headers=headers, timeout=20
        )
        assert added.status_code == 201
        for number in range(20):  # killed while it changes the catalogue, most likely
            threading.Thread(
                target=lambda n=number: _quietly(
                    httpx.post,
                    f"{served.url}/items",
                    json={"items": [{"item_id": f"late {n}", "text": "a scarf"}]},
                    headers=headers,
                )
            ).start()
        time.sleep(0.3)
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
    with serving(folder) as again:
        assert again.ask().status_code == 200
        assert httpx.get(f"{again.url}/items/new", timeout=20).status_code == 200
    assert "new" in diffgrm.load(folder).items.series  # the folder is whole


def _quietly(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except httpx.HTTPError:
        return None


def test_it_ends_when_told_and_answers_what_is_under_way(folder):
    with serving(folder) as served:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(_quietly(served.ask, beam=200))) for _ in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: "diffgrm_waiting_histories 0.0" not in httpx.get(f"{served.url}/metrics").text or answers)
        time.sleep(0.1)
        served.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert served.process.wait(timeout=15) in (0, -signal.SIGTERM)
        assert len(answers) == 8 and all(answer is not None and answer.status_code == 200 for answer in answers)
        assert "Traceback" not in "".join(served.log)


def test_slow_and_broken_clients_harm_nobody(folder):
    with serving(folder, "--limit", "body_seconds=1") as served:
        slow = []
        for number in range(50):
            connection = socket.create_connection(("127.0.0.1", served.port))
            if number % 2:
                connection.sendall(b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            else:
                connection.sendall(b"POST /recommend HT")
            slow.append(connection)
        started = time.monotonic()
        assert served.ask().status_code == 200 and time.monotonic() - started < 5
        answer = slow[1].recv(1000)
        assert b" 408 " in answer.split(b"\r\n")[0]
        for connection in slow:
            connection.close()
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(b"\x00\xff not http at all\r\n\r\n")
            assert b" 400 " in connection.recv(1000).split(b"\r\n")[0]
        assert served.ask().status_code == 200


def test_a_full_queue_says_so_and_goes_on(folder):
    limits = ("--limit", "queue=4", "--limit", "beam=512", "--limit", "batch=2")
    with serving(folder, *limits) as served:

        async def flood():
            async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None)) as client:
                body = {"histories": [HISTORY], "k": 3, "beam": 512}
                return await asyncio.gather(*(client.post(f"{served.url}/recommend", json=body) for _ in range(60)))

        answers = asyncio.run(flood())
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 503}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["retry-after"] and refused.headers["content-type"] == "application/problem+json"
        assert len({tuple(items_of(answer)) for answer in answers if answer.status_code == 200}) == 1
        assert served.ask().status_code == 200
        assert "Traceback" not in "".join(served.log)


def test_what_takes_too_long_is_given_up(folder):
    with serving(folder, "--limit", "seconds=0.05", "--limit", "beam=4096", "--limit", "histories=64") as served:
        answer = served.ask(beam=4000, histories=[HISTORY] * 64)
        assert answer.status_code == 504 and answer.json()["status"] == 504
        eventually(lambda: served.ask(beam=4).status_code == 200, seconds=30)  # the thread was not left with it


def test_models_change_under_load_and_every_answer_is_of_the_version_it_names(folder):
    first = diffgrm.load(folder)
    best = first.recommend([HISTORY], 1)["item_id"][0]
    second = first.remove_items([best])
    expected = {}
    for model in (second, first):
        model.save(folder)
        expected[file_digest(folder / "manifest.json")[:12]] = model.recommend([HISTORY], 3)["item_id"].to_list()
    seen, ended = [], threading.Event()
    with serving(folder, "--limit", "reload_seconds=0.05") as served:

        def client():
            with httpx.Client(timeout=20) as session:
                while not ended.is_set():
                    answer = session.post(f"{served.url}/recommend", json={"histories": [HISTORY], "k": 3})
                    seen.append((answer.status_code, answer.json().get("model"), items_of(answer)))

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(6):
            (second, first)[number % 2].save(folder)
            count = len(seen)
            eventually(lambda n=count: len(seen) > n + 15, seconds=20)
        ended.set()
        for thread in threads:
            thread.join()
    assert {status for status, _, _ in seen} == {200} and {model for _, model, _ in seen} == set(expected)
    assert all(items == expected[model] for _, model, items in seen)


def test_the_command_answers_to_the_names_that_it_is_given(folder):
    with serving(folder, "--host", "0.0.0.0", "--allow-host", "shop.example") as served:
        url = f"http://127.0.0.1:{served.port}/health"
        for host, status in (("shop.example", 200), ("localhost:1", 200), ("0.0.0.0", 421), ("rebound.example", 421)):
            assert httpx.get(url, headers={"Host": host}, timeout=20).status_code == status
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")  # names no host at all
            assert b" 421 " in connection.recv(1000).split(b"\r\n")[0]
        wrong = {"Authorization": "Bearer not the token at all"}
        for _ in range(3):
            refused = httpx.post(f"http://127.0.0.1:{served.port}/items/remove", json={"item_ids": ["x"]}, headers=wrong)
            assert refused.status_code == 401
        log = eventually(lambda: "".join(served.log), lambda log: "wrong token" in log)
        assert log.count("wrong token") == 1 and "127.0.0.1" in log and "not the token" not in log
