"""Results that stand in the folder of a suite: taken over where a run has another name, and measured anew where damaged."""

from __future__ import annotations

import json

import pytest
import yaml

from diffgrm import toy_world
from diffgrm.apps.bench.runner import Runner
from diffgrm.apps.bench.suite import Suite
from diffgrm.apps.bench.tables import write_tables
from diffgrm.apps.reporting.page import write_report
from diffgrm.foundation.schema import DataError

KNN = {"recommender": "item_knn", "choose": {"model.decay": [0.2, 0.9]}}


@pytest.fixture(scope="module")
def world():
    return toy_world(users=60, seed=2).dataset


def run(folder, world, runs):
    """What a suite of one seed says while it runs, and its tables."""
    home = folder / "data" / "small"
    home.mkdir(parents=True, exist_ok=True)
    world.event_table().write_parquet(home / "interactions.parquet")
    world.item_table.write_parquet(home / "items.parquet")
    raw = {"datasets": ["small"], "folders": ["data"], "reference": next(iter(runs)), "runs": runs}
    (folder / "suite.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    lines = []
    runner = Runner(Suite.from_yaml(folder / "suite.yaml"), folder / "out", lines.append, progress=False)
    assert runner.run() == {}
    return lines, write_tables(runner, {})


def test_a_run_that_is_renamed_within_its_folder_keeps_its_result_under_the_new_name(tmp_path, world):
    (tmp_path / "out").mkdir()
    run(tmp_path, world, {"Knn": KNN, "popularity": {"recommender": "popularity"}})
    lines, (knn, popularity) = run(tmp_path, world, {"knn": KNN, "popularity": {"recommender": "popularity"}})
    assert sum("done before" in line for line in lines) == 2
    assert knn["run"] == "knn" and "ndcg@10" in popularity["difference"]
    page = write_report(tmp_path / "out").read_text()
    assert "<td>knn</td>" in page and "Knn" not in page


def test_what_is_damaged_is_measured_anew(tmp_path, world):
    (tmp_path / "out").mkdir()
    runs = {"knn": KNN, "popularity": {"recommender": "popularity"}}
    _, rows = run(tmp_path, world, runs)
    cell = tmp_path / "out" / "runs" / "small" / "knn" / "seed-0"
    whole = json.loads((cell / "result.json").read_text())
    short = json.dumps({"identity": whole["identity"]}).encode()
    for name, content in [
        *[("result.json", content) for content in (b"[]", b"null", b"{", b"\xff\xfe", short)],
        ("ranks.parquet", None),
        ("ranks.parquet", b"PAR1"),
    ]:
        (cell / name).unlink() if content is None else (cell / name).write_bytes(content)
        with pytest.raises(DataError, match="run the suite again, which measures it anew"):
            write_report(tmp_path / "out")
        lines, again = run(tmp_path, world, runs)
        assert sum("done before" in line for line in lines) == 1, name
        assert [row["metrics"] for row in again] == [row["metrics"] for row in rows]
    for kept in (tmp_path / "out" / "models").glob("*.json"):
        kept.write_bytes(b"\xff[")
    assert len(run(tmp_path, world, runs)[0]) == len(lines)
    assert all(json.loads(kept.read_text()) for kept in (tmp_path / "out" / "models").glob("*.json"))
    write_report(tmp_path / "out")


def test_tables_that_are_older_than_the_results_are_told(tmp_path, world):
    (tmp_path / "out").mkdir()
    run(tmp_path, world, {"knn": {"recommender": "item_knn"}, "popularity": {"recommender": "popularity"}})
    place = tmp_path / "out" / "runs" / "small" / "knn" / "seed-0" / "result.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"identity": "another"}))
    with pytest.raises(DataError, match="are of 1 results of knn on small, of which it holds 0.*run the suite again"):
        write_report(tmp_path / "out")


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b"\xff\xfe", b'{"suite": 1, "reference": 1, "machine": {}, "rows": [{}]}']
)
def test_tables_that_are_damaged_are_told_with_what_writes_them_anew(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(
        DataError, match="results.json .*run the suite again, which writes it anew: diffgrm bench SUITE.yaml"
    ):
        write_report(tmp_path)
