"""What waits for the model."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")
from diffgrm.apps.serving.batching import Engine
from diffgrm.apps.serving.problems import Problem
from diffgrm.apps.serving.settings import Limits


def test_the_queue_has_room_for_so_many_histories_and_always_for_one_request():
    engine = Engine(Limits(queue=4), sizes=SimpleNamespace(observe=lambda size: None), asked="histories")
    engine.check_room(64)

    async def similar():
        return await engine.run(lambda: engine.waiting)

    with engine._place(3):
        assert engine.waiting == 3 and asyncio.run(similar()) == 4
        with pytest.raises(Problem, match="too many histories are waiting") as refused:
            engine.check_room(2)
        assert refused.value.status == 503
    assert engine.waiting == 0
    assert "histories that wait for the model" in Limits.model_fields["queue"].description
