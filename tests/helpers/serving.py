"""Servers of a model: in this process, and as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

TOKEN = "a token for tests only"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HISTORY = ["item 3", "item 77", "item 410"]


def client_of(app):
    """A client in this process; what the app raises is answered as a server answers it."""
    from fastapi.testclient import TestClient

    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def errors_of(answer, status=422):
    """The pointers of a problem document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["title"] and problem["detail"]
    return {error["pointer"] for error in problem["errors"]}


def eventually(look, good=bool, seconds=10):
    """What ``look`` finds once it is good."""
    until = time.monotonic() + seconds
    while not good(found := look()):
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


class Served:
    """A running ``diffgrm serve``, or another command that serves, and its log."""

    def __init__(self, folder, *options, port=0, preexec_fn=None, command=("serve",)):
        command = [sys.executable, "-m", "diffgrm", *command, str(folder), "--port", str(port), *options]
        environment = os.environ | {"DIFFGRM_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=preexec_fn)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if "running on" in line:
                self.url = line.split("running on ")[1].split()[0]
                break
        else:
            raise AssertionError("".join(self.log))
        self.port = int(self.url.rsplit(":", 1)[1])
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def ask(self, **options):
        import httpx

        return httpx.post(f"{self.url}/recommend", json={"histories": [HISTORY], "k": 3, **options}, timeout=20)

    def get(self, path):
        import httpx

        return httpx.get(self.url + path, timeout=20)


@contextmanager
def serving(folder, *options, **more):
    """A server while the block lasts."""
    served = Served(folder, *options, **more)
    try:
        yield served
    finally:
        served.process.kill()
        served.process.wait()
