from __future__ import annotations

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
