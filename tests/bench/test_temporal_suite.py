"""Suites that cut in time, on a storefront whose real times stand in a column of their own."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import yaml

from diffgrm import InteractionDataset, evaluate, temporal, toy_world
from diffgrm.apps.bench.runner import Runner
from diffgrm.apps.bench.suite import Suite
from diffgrm.apps.bench.tables import write_tables
from diffgrm.apps.reporting.page import write_report
from diffgrm.data.clock import with_clock
from diffgrm.foundation.schema import DataError
from diffgrm.recommenders.base import load
from diffgrm.semantic_ids.embeddings.lsa import word_vectors

RUNS = {"popularity": {"recommender": "popularity"}, "neighbours": {"recommender": "item_knn"}}


@pytest.fixture(scope="module")
def tables():
    """Events whose ``timestamp`` is their number, with days beside it that some rows lack."""
    world = toy_world(users=60, seed=4).dataset
    events = world.event_table()
    order = pl.int_range(pl.len()).over("user_id")
    start = pl.Series(np.random.default_rng(0).integers(0, 30, events.height)).first()
    days = (pl.col("user_id").hash(seed=1) % 40).cast(pl.Int64) + order * 2 + start
    day = pl.when(pl.int_range(pl.len()) % 50 != 7).then(86_400 * days)
    return events.with_columns(order.alias("timestamp"), day.alias("day")), world.item_table


def run(folder, tables, **changes):
    home = folder / "data" / "shop"
    home.mkdir(parents=True)
    tables[0].write_parquet(home / "interactions.parquet")
    tables[1].write_parquet(home / "items.parquet")
    raw = {"datasets": ["shop"], "folders": ["data"], "seeds": [0], "reference": "popularity", "runs": RUNS, **changes}
    (folder / "suite.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    suite, lines = Suite.from_yaml(folder / "suite.yaml"), []
    runner = Runner(suite, folder / "out", lines.append, progress=False)
    assert runner.run() == {}
    return suite, write_tables(runner, {}), lines


@pytest.mark.parametrize("target", ["all", "last", "successive"])
def test_a_suite_in_time_fits_and_asks_by_its_cut(tmp_path, tables, target):
    data = {"split": "temporal", "test_share": 0.2, "target": target}
    _, rows, lines = run(tmp_path, tables, data=data, clock={"shop": "day"})
    timed, untimed = with_clock(tables[0], "day")
    assert untimed == -(-(tables[0].height - 7) // 50)
    dataset = InteractionDataset.from_tables(timed, tables[1], name="shop")
    split = temporal(dataset, test_share=0.2, target=target)
    row = next(row for row in rows if row["run"] == "neighbours")
    assert row["users"] == split.test.n_users and row["lists"] == len(split.test)
    assert row["protocol"] == {"split": "temporal", **split.facts, "events_without_time": untimed}
    model = load(next(path for path in (tmp_path / "out" / "models").iterdir() if (path / "recipe.yaml").is_file()))
    assert model.facts["training_events"] == len(split.train.values)
    assert (model.item_counts == split.item_counts).all()
    result = json.loads((tmp_path / "out" / "runs" / "shop" / "popularity" / "seed-0" / "result.json").read_text())
    popularity = load(tmp_path / "out" / "models" / result["model"])
    texts = word_vectors(dataset.item_table)
    wanted = evaluate(popularity, split.test, dataset.items, split.item_counts, texts=texts)
    assert result["metrics"] == pytest.approx(wanted.metrics)
    assert row["difference"]["ndcg@10"]["p_holm"] == row["difference"]["ndcg@10"]["p"]  # one comparison
    told = f"{untimed} events without a time were left out."
    assert told in "\n".join(lines) and told in (tmp_path / "out" / "results.md").read_text()
    page = write_report(tmp_path / "out").read_text()
    assert told in page and "Split in time: training before" in page and "Leave-one-out" not in page


def test_a_successive_list_is_asked_with_its_own_history(tables):
    """A recommender of the items that stand after the newest one in the catalogue, against each list by itself."""
    timed, _ = with_clock(tables[0], "day")
    dataset = InteractionDataset.from_tables(timed, tables[1])
    split, n_items = temporal(dataset, target="successive"), dataset.n_items

    class Next:
        def recommend(self, histories, k, *, exclude_seen):
            newest = histories.group_by("user_id", maintain_order=True).last()
            places = [dataset.items.positions([item])[0] for item in newest["item_id"]]
            ranks = np.tile(np.arange(k), len(places))
            items = dataset.items.gather((np.repeat(places, k) + 1 + ranks) % n_items)
            keys = newest["user_id"].gather(np.repeat(np.arange(len(places)), k))
            return pl.DataFrame({"user_id": keys, "item_id": items, "score": 0.0, "rank": ranks + 1})

    found = evaluate(Next(), split.test, dataset.items, split.item_counts, ks=(100,), users_at_once=7)
    steps = [(split.test.targets[i][0] - split.test.histories[i][-1] - 1) % n_items + 1 for i in range(len(split.test))]
    wanted = [int(step) if step <= 100 else 0 for step in steps]
    assert found.per_user["rank"].to_list() == wanted and any(wanted)
    assert found.per_user["list"].to_list() == list(range(len(split.test))) and found.n_lists == len(split.test)
    assert found.n_users == split.test.n_users < found.n_lists
    assert found.metrics["recall@100"] == pytest.approx(np.mean([rank > 0 for rank in wanted]))


def test_a_clock_that_is_not_there_is_refused(tmp_path, tables):
    with pytest.raises(DataError, match="has no column 'dya' for times; did you mean 'day'"):
        with_clock(tables[0], "dya")
    with pytest.raises(DataError, match="no event of the interaction table has a time in 'day'"):
        with_clock(tables[0].with_columns(day=pl.lit(None, pl.Int64)), "day")
    raw = {"datasets": ["movielens-100k"], "clock": {"movielens-100k": "day"}, "reference": "popularity", "runs": RUNS}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(raw))
    failed = Runner(Suite.from_yaml(tmp_path / "suite.yaml"), tmp_path / "out", str, progress=False).run()
    assert "the suite names no folders with such a table; say where it lies" in failed["movielens-100k"]
