"""Servers on 127.0.0.1 that stand in for dataset publishers and for the Hugging Face hub."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml


@dataclass
class Request:
    """One request that a server was asked: enough to check what a client sent."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case


class LocalServer:
    """A threaded HTTP server; a subclass says in ``answer`` what is sent back. Use it in a ``with`` block."""

    def __init__(self):
        server = self
        self.requests = []

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self):
                request = Request(
                    self.command, unquote(urlsplit(self.path).path), {k.lower(): v for k, v in self.headers.items()}
                )
                server.requests.append(request)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, content, sent = server.answer(request, body)
                self.send_response(status)
                for name, value in {"Content-Length": len(content), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[:sent])

            do_GET = do_HEAD = do_POST = handle_any

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, request, body):
        """Status, headers, content, and how many bytes of it are sent before the line breaks (None is all)."""
        raise NotImplementedError

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self._running = True
        return self

    def close(self):
        """Switch off; later requests are refused."""
        if self._running:
            self._running = False
            self._http.shutdown()
            self._http.server_close()

    def __exit__(self, *error):
        self.close()


class FileServer(LocalServer):
    """Serves ``files`` (path without the first slash -> bytes), with ranges.

    Attributes:
        break_after: path -> a list, for one answer after the other, of the number of bytes after which it breaks off.
        ranges: whether Range requests are honoured.
        headers: path -> more headers of its answers.
    """

    def __init__(self, files=None):
        super().__init__()
        self.files, self.break_after, self.headers, self.ranges = dict(files or {}), {}, {}, True

    def asked(self, path):
        """The Range headers of the requests for a file, in order; None where there was none."""
        return [request.headers.get("range") for request in self.requests if request.path == f"/{path}"]

    def answer(self, request, body):
        path = request.path[1:]
        if path not in self.files:
            return 404, {}, b"no such file", None
        breaks = self.break_after.get(path)
        sent = breaks.pop(0) if breaks else None
        return ranged(request, self.files[path], sent, self.headers.get(path, {}), self.ranges)


def ranged(request, content, sent=None, headers=None, ranges=True):
    """The answer to a request for a whole file or for all of it from some byte on."""
    headers, size = dict(headers or {}), len(content)
    if request.headers.get("if-range") not in (None, headers.get("ETag"), headers.get("Last-Modified")):
        ranges = False  # of another version
    wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "")) if ranges else None
    if not wanted:
        return 200, headers, content, sent
    start = int(wanted[1])
    if start >= size:
        return 416, {"Content-Range": f"bytes */{size}"}, b"", None
    return 206, {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}, content[start:], sent


@dataclass
class Repository:
    """A model repository: its commits, each with all of its files."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]]
    messages: list[str] = field(default_factory=list)

    def commit(self, files, message):
        content = repr((len(self.commits), sorted((path, blob_id(data)) for path, data in files.items())))
        self.commits.append((hashlib.sha1(content.encode()).hexdigest(), files))
        self.messages.append(message)
        return self.commits[-1][0]

    def at(self, revision):
        """(commit id, files) of ``main`` or of a commit id; None where there is none."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class HubServer(LocalServer):
    """As much of the hub's HTTP interface as making, filling and fetching model repositories takes.

    Every file is a regular one (the hub keeps large ones elsewhere), sent inside the commit. A token that does not
    begin with ``hf_`` is refused.
    """

    def __init__(self):
        super().__init__()
        self.repositories = {}

    def use(self, monkeypatch, folder):
        """Point huggingface_hub at this server, its caches into ``folder``, and let it reach no other server."""
        from huggingface_hub import HfApi, constants

        look_up, endpoint = socket.getaddrinfo, constants.ENDPOINT

        def look_up_here(host, *more, **options):
            assert host in ("127.0.0.1", b"127.0.0.1"), f"a test must not reach {host}"
            return look_up(host, *more, **options)

        # Libraries keep an HfApi for good: each asks this server now, and after the test the one it asked before.
        everyone = property(lambda api: self.url, lambda api, value: vars(api).update(endpoint=endpoint))
        monkeypatch.setattr(HfApi, "endpoint", everyone, raising=False)
        monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_XET_CACHE", str(folder / "xet"))
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))

    def answer(self, request, body):
        path = request.path
        if request.headers.get("authorization", "Bearer hf_").removeprefix("Bearer ")[:3] != "hf_":
            return failure(401, "", "Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return validate_card(json.loads(body)["content"])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/]+))?", path):
            name, action, revision = found[1], found[2] or "revision", found[3] or "main"
            if name not in self.repositories:
                return failure(404, "RepoNotFound", "Repository not found")
            if (commit := self.repositories[name].at(revision)) is None:
                return failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            if request.method == "POST":
                return self._preupload(commit, body) if action == "preupload" else self._commit(name, commit, body)
            return listing(name, self.repositories[name], commit, action)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(request, *found.groups())
        return failure(404, "", f"this stand-in of the hub has no {path}")

    def _create(self, wanted):
        name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
        answer = {"url": f"{self.url}/{name}", "name": name}
        if name in self.repositories:
            return as_json({**answer, "error": "You already created this model repo"}, 409)
        private = wanted.get("private", False) or wanted.get("visibility") == "private"
        self.repositories[name] = Repository(private, [])
        self.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return as_json(answer)

    def _preupload(self, commit, body):
        oids = {path: blob_id(content) for path, content in commit[1].items()}
        paths = [file["path"] for file in json.loads(body)["files"]]
        return as_json(
            {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False, "oid": oids.get(p)} for p in paths]}
        )

    def _commit(self, name, commit, body):
        files, message = dict(commit[1]), ""
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                message = line["value"]["summary"]
            elif line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            else:
                return failure(400, "", f"this stand-in of the hub cannot do {line['key']}")
        oid = self.repositories[name].commit(files, message)
        return as_json({"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid})

    def _file(self, request, name, revision, path):
        repository = self.repositories.get(name)
        commit = repository.at(revision) if repository else None
        if commit is None:
            return failure(404, "RevisionNotFound" if repository else "RepoNotFound", "not found")
        if path not in commit[1]:
            return failure(404, "EntryNotFound", "Entry not found")
        content = commit[1][path]
        return ranged(request, content, headers={"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": commit[0]})


def listing(name, repository, commit, action):
    """What the hub says of a repository, or the files that it lists."""
    oid, files = commit
    if action == "tree":
        return as_json([{"type": "file", "path": p, "size": len(c), "oid": blob_id(c)} for p, c in files.items()])
    siblings = [{"rfilename": path} for path in files]
    return as_json({"id": name, "sha": oid, "private": repository.private, "tags": [], "siblings": siblings})


def validate_card(content):
    """The hub refuses a model card whose YAML header is none."""
    header = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    try:
        facts = yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": str(error)}]}, 400)
    return as_json({"warnings": [] if isinstance(facts, dict) else [{"message": "empty or missing yaml metadata"}]})


def as_json(content, status=200):
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode(), None


def failure(status, code, message):
    return status, {"X-Error-Code": code, "X-Error-Message": message}, json.dumps({"error": message}).encode(), None


def blob_id(content):
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
