from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import urlencode, urlparse

import pytest

from helpers.serving import TOKEN, client_of


@pytest.fixture(scope="session")
def limits():
    """Small bounds, and a server that looks for newer models all the time."""
    settings = pytest.importorskip("diffgrm.apps.serving.settings")
    asked = {"k": 50, "beam": 64, "candidates": 96, "histories": 8, "history": 20, "filter": 30, "changes": 5}
    return settings.Limits(reload_seconds=0.05, body_bytes=20_000, **asked)


@pytest.fixture(scope="session")
def reader(saved, toy, limits):
    """A client of a server that is only asked."""
    app = pytest.importorskip("diffgrm.apps.serving.app")
    live = pytest.importorskip("diffgrm.apps.serving.live")
    users = live.UserHistories(toy.event_table())
    with client_of(app.create_app(live.LiveModel(saved), limits, users=users)) as client:
        yield client


@pytest.fixture
def writer(folder, limits):
    """A client of a server that may be changed."""
    app = pytest.importorskip("diffgrm.apps.serving.app")
    live = pytest.importorskip("diffgrm.apps.serving.live")
    with client_of(app.create_app(live.LiveModel(folder), limits, token=TOKEN)) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    """A browser for one file of tests: while it is open, an event loop counts as running in this thread."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        if program is None and not Path(p.chromium.executable_path).exists():
            pytest.skip("there is no Chromium")
        opened = p.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Opens pages, which may ask no other host and complain of nothing but refused requests."""
    contexts, wrong = [], []

    def open_(address, view=(), width=1400, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        host = urlparse(address).netloc
        page.on("request", lambda request: urlparse(request.url).netloc == host or wrong.append(request.url))
        page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append("dialog"), dialog.dismiss()))
        page.goto(address + ("#" + urlencode(view) if view else ""))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [what for what in wrong if "status of 4" not in what and "ERR_FAILED" not in what] == []
