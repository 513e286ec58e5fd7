"""Suites whose runs differ in what networks are told."""

from __future__ import annotations

import json

import pytest
import yaml

from diffgrm.apps.bench.runner import Runner
from diffgrm.apps.bench.suite import Suite
from helpers.worlds import ITEMS, world

SMALL = {
    "recommender": "sasrec",
    "model": {"width": 16, "max_len": 6, "layers": 1},
    "training": {"batch_size": 64, "epochs": 8, "learning_rate": 0.02, "warmup_steps": 5},
}
RUNS = {
    "without": SMALL,
    "hours": {"like": "without", "events": {"time_inputs": ["hour"]}},
    "users": {"like": "without", "events": {"user_columns": {"plan": ["free", "paid"]}}},
}


@pytest.fixture
def suite(tmp_path):
    home = tmp_path / "data" / "small"
    home.mkdir(parents=True)
    table, people = world("hour", users=90)
    table.write_parquet(home / "interactions.parquet")
    people.write_parquet(home / "users.parquet")
    ITEMS.write_parquet(home / "items.parquet")
    raw = {"datasets": ["small"], "folders": ["data"], "reference": "without", "runs": RUNS}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(raw))
    return Suite.from_yaml(tmp_path / "suite.yaml")


def test_runs_are_told_apart_and_measured_by_the_same_events(suite, tmp_path):
    assert Runner(suite, tmp_path / "out", lambda _: None, progress=False).run() == {}
    found = {}
    for run in ("without", "hours", "users"):
        result = json.loads((tmp_path / "out" / "runs" / "small" / run / "seed-0" / "result.json").read_text())
        found[run] = result["metrics"]["ndcg@5_unfiltered"]
        assert result["lists"] == 90
    assert found["hours"] > found["without"] + 0.05 and len(list((tmp_path / "out" / "models").glob("*.run"))) == 3
