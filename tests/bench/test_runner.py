from __future__ import annotations

import json
import sys
import textwrap
from collections import Counter

import numpy as np
import polars as pl
import pytest
import yaml
from filelock import FileLock

from diffgrm import InteractionDataset, leave_one_out, toy_world
from diffgrm.apps import choosing
from diffgrm.apps.bench import runner as module
from diffgrm.apps.bench.checks import slug
from diffgrm.apps.bench.runner import Runner
from diffgrm.apps.bench.suite import Suite
from diffgrm.apps.bench.tables import sentences_of, write_tables
from diffgrm.apps.cli.main import main
from diffgrm.apps.reporting.page import write_report
from diffgrm.evaluation.statistics import holm, interval_of_difference, list_gains, list_owners
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, TrainingError
from diffgrm.learning.loop import TrainingTask
from diffgrm.recommenders.base import Recommender, load
from diffgrm.semantic_ids.embeddings.lsa import word_vectors
from helpers.folders import change_recipe
from helpers.recipes import small_generation

TRAINING = {"batch_size": 64, "epochs": 2, "warmup_steps": 5, "learning_rate": 0.01}
SIDS = {"tokenizer": {"n_digits": 3, "codebook_size": 16, "iterations": 3}, "embedding": {"width": 16}}
RUNS = {
    "popularity": {"recommender": "popularity"},
    "neighbours": {"recommender": "item_knn", "choose": {"model.decay": [0.2, 0.9]}},
    "sasrec": {"recommender": "sasrec", "model": {"width": 16, "max_len": 8}, "training": TRAINING},
    "diffgrm": {
        "recommender": "diffgrm",
        **SIDS,
        "model": {"width": 16, "heads": 2, "decoder_layers": 1, "feed_forward": 16, "max_len": 8},
        "training": {**TRAINING, "validation_decoding": {"beam": 8}},
        "decoding": {"name": "any_order_beam", "beam": 10},
    },
    "narrow": {"like": "diffgrm", "decoding": {"beam": 4}},
    "one <pass>": {"like": "diffgrm", "decoding": {"name": "one_pass"}},
}


@pytest.fixture(scope="module")
def world():
    return toy_world(users=90, seed=2).dataset


@pytest.fixture
def suite(tmp_path, world):
    return make_suite(tmp_path, world)


def make_suite(folder, world, runs=RUNS, **changes):
    home = folder / "data" / "small"
    home.mkdir(parents=True, exist_ok=True)
    world.event_table().write_parquet(home / "interactions.parquet")
    world.item_table.write_parquet(home / "items.parquet")
    raw = {"datasets": ["small"], "folders": ["data"], "seeds": [0, 1], "reference": "sasrec", "runs": runs, **changes}
    (folder / "suite.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return Suite.from_yaml(folder / "suite.yaml")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, world):
    """The folder of a suite that has run, and what was asked of ``evaluate`` and ``fit`` meanwhile."""
    folder = tmp_path_factory.mktemp("suite")
    suite, asked, fitted, lines = make_suite(folder, world), Counter(), Counter(), []
    test = leave_one_out(world).test
    evaluate, fit = module.evaluate, Recommender.fit

    def counting_evaluate(recommender, evaluation_set, *args, **kwargs):
        same = (evaluation_set.targets.values == test.targets.values).all()
        asked[recommender.recipe.recommender, "test" if same else "validation"] += 1
        return evaluate(recommender, evaluation_set, *args, **kwargs)

    def counting_fit(self, *args, **kwargs):
        fitted[self.recipe.recommender] += 1
        return fit(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for place in (module, choosing):
            patch.setattr(place, "evaluate", counting_evaluate)
        patch.setattr(Recommender, "fit", counting_fit)
        assert Runner(suite, folder / "out", lines.append, progress=False).run() == {}
    return folder, suite, asked, fitted, lines


def test_test_is_looked_at_once_for_each_cell_and_validation_chooses(ran):
    folder, _, asked, _, lines = ran
    assert asked["item_knn", "test"] == 2 and asked["item_knn", "validation"] == 2  # one choice of two, two seeds
    assert asked["sasrec", "test"] == 2 and asked["diffgrm", "test"] == 6 and asked["sasrec", "validation"] == 0
    scores = {float(line.split("has ")[1].split()[0]): line for line in lines if "on validation" in line}
    result = json.loads((folder / "out" / "runs" / "small" / "neighbours" / "seed-0" / "result.json").read_text())
    assert str(result["choice"]) in scores[max(scores)] and result["recipe"]["model"]["decay"] in (0.2, 0.9)


def test_runs_that_differ_in_decoding_share_a_fit(ran):
    _, _, _, fitted, _ = ran
    assert fitted == {"popularity": 2, "item_knn": 3, "sasrec": 2, "diffgrm": 2}  # knn: both choices, then the second seed


def test_weights_of_item_scorers_are_changed_and_chosen_on_one_fit(tmp_path, world, monkeypatch):
    sizes = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 16, "max_len": 8}
    weight = "item_scoring.co_occurrence.weight"
    runs = {
        "hybrid": {"recommender": "hybrid", **SIDS, "model": sizes, "training": TRAINING},
        "alone": {"like": "hybrid", "item_scoring": {"co_occurrence": None}},
        "much": {"like": "hybrid", "item_scoring": {"co_occurrence": {"weight": 50.0}}},
        "chosen": {"like": "hybrid", "choose": {weight: [0.0, 2.0, 50.0]}},
    }
    suite, fitted, lines, fit = make_suite(tmp_path, world, runs, seeds=[0], reference="hybrid"), [], [], Recommender.fit

    def counting_fit(self, *args, **kwargs):
        fitted.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Recommender, "fit", counting_fit)
    assert Runner(suite, tmp_path / "out", lines.append, progress=False).run() == {} and len(fitted) == 1
    split, model, by_weight = leave_one_out(world), fitted[0], {}
    for run, value in (("hybrid", 2.0), ("alone", 0.0), ("much", 50.0)):
        changed = model.variant([f"{weight}={value}"])
        cell = tmp_path / "out" / "runs" / "small" / run / "seed-0"
        words = word_vectors(world.item_table)
        metrics = module.evaluate(changed, split.test, world.items, split.item_counts, texts=words).metrics
        assert json.loads((cell / "result.json").read_text())["metrics"] == pytest.approx(metrics)
        found = module.evaluate(changed, split.validation, world.items, split.item_counts).metrics
        by_weight[value] = 0.8 * found["ndcg@10"] + 0.2 * found["recall@10"]
    assert len(set(by_weight.values())) == 3
    for value, score in by_weight.items():
        assert any(f"{{'{weight}': {value}}} has {score:.4f} on validation" in line for line in lines), lines
    chosen = json.loads((tmp_path / "out" / "runs" / "small" / "chosen" / "seed-0" / "result.json").read_text())
    assert chosen["choice"] == {weight: max(by_weight, key=by_weight.get)}


def test_an_ensemble_sums_the_fits_of_other_runs(tmp_path, world, monkeypatch):
    """Members are fitted once, with the settings chosen for their own runs; a run like it weighs them otherwise."""
    runs = {
        "both": {"recommender": "ensemble", "members": ["neighbours", "sasrec"]},
        "sure": {"like": "both", "model": {"weighting": "certainty"}},
        "first": {"like": "both", "model": {"weights": [1, 0]}},
        "neighbours": RUNS["neighbours"],
        "sasrec": RUNS["sasrec"],
    }
    suite, fitted, fit = make_suite(tmp_path, world, runs, seeds=[0]), Counter(), Recommender.fit

    def counting_fit(self, *args, **kwargs):
        fitted[self.recipe.recommender] += 1
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Recommender, "fit", counting_fit)
    assert Runner(suite, tmp_path / "out", str, progress=False).run() == {}
    assert fitted == {"item_knn": 2, "sasrec": 1, "ensemble": 3}  # both choices of the neighbours
    cells = {run: tmp_path / "out" / "runs" / "small" / run / "seed-0" for run in runs}
    found = {run: json.loads((cell / "result.json").read_text()) for run, cell in cells.items()}
    assert found["first"]["metrics"] == found["neighbours"]["metrics"] != found["sasrec"]["metrics"]
    assert found["both"]["facts"]["validation"]["val_score"] >= found["sasrec"]["facts"]["validation"]["val_score"] - 1e-6
    assert len(found["sure"]["facts"]["weights"]) == 2
    assert Runner(suite, tmp_path / "out", str, progress=False).run() == {} and fitted.total() == 6


def test_a_run_that_names_other_members_than_the_one_it_is_like_is_fitted_anew(tmp_path, world):
    runs = {
        "one": {"recommender": "ensemble", "members": ["neighbours", "popularity"], "model": {"weights": [1, 0]}},
        "other": {"like": "one", "members": ["popularity", "neighbours"]},
        "neighbours": {"recommender": "item_knn"},
        "popularity": {"recommender": "popularity"},
    }
    suite = make_suite(tmp_path, world, runs, seeds=[0], reference="one")
    assert Runner(suite, tmp_path / "out", str, progress=False).run() == {}
    assert _metrics(tmp_path, "one") == _metrics(tmp_path, "neighbours")
    assert _metrics(tmp_path, "other") == _metrics(tmp_path, "popularity") != _metrics(tmp_path, "one")


def test_a_run_uses_others_with_their_own_late_settings(tmp_path, world):
    """Where two runs share a fit, the folder is of the one that was fitted; the other one is a member as it says itself."""
    sizes = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 16, "max_len": 8}
    hybrid = {"recommender": "hybrid", **SIDS, "model": sizes, "training": TRAINING}
    runs = {
        "little": {**hybrid, "item_scoring": {"co_occurrence": {"weight": 0.1}}},
        "much": {**hybrid, "item_scoring": {"co_occurrence": {"weight": 50.0}}},
        "of much": {"recommender": "ensemble", "members": ["much", "little"], "model": {"weights": [1, 0]}},
    }
    suite = make_suite(tmp_path, world, runs, seeds=[0], reference="little")
    assert Runner(suite, tmp_path / "out", str, progress=False).run() == {}
    found = {run: _metrics(tmp_path, run)["ndcg@10"] for run in runs}
    assert found["of much"] == found["much"] != found["little"]


def test_a_posterior_of_items_steers_the_fit_of_another_run(tmp_path, world, monkeypatch):
    backbone = {**RUNS["diffgrm"], "training": TRAINING}
    model = {"width": 8, "candidates": 16}
    steered = {"recommender": "epic", "backbone": "diffgrm", "model": model, "training": TRAINING, "decoding": {"beam": 10}}
    runs = {
        "steered": steered,
        "unsteered": {"like": "steered", "decoding": {"name": "any_order_beam", "beam": 10}},
        "diffgrm": backbone,
    }
    suite, fitted, fit = make_suite(tmp_path, world, runs, seeds=[0], reference="diffgrm"), Counter(), Recommender.fit

    def counting_fit(self, *args, **kwargs):
        fitted[self.recipe.recommender] += 1
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Recommender, "fit", counting_fit)
    assert Runner(suite, tmp_path / "out", str, progress=False).run() == {}
    assert fitted == {"epic": 1, "diffgrm": 1}
    assert _metrics(tmp_path, "unsteered") == _metrics(tmp_path, "diffgrm")


def _metrics(folder, run):
    return json.loads((folder / "out" / "runs" / "small" / slug(run) / "seed-0" / "result.json").read_text())["metrics"]


RATED = {
    "popularity": {"recommender": "popularity"},
    "neighbours": {"recommender": "item_knn"},
    "liked": {"like": "popularity", "events": {"rating": "stars", "min_rating": 4}},
    "liked neighbours": {"like": "neighbours", "events": {"rating": "stars", "min_rating": 4}},
    "weighed": {"like": "popularity", "events": {"weight": "stars"}},
}


def rate(folder, world):
    """Give the events of a suite's dataset stars; returns the path of their table."""
    path = folder / "data" / "small" / "interactions.parquet"
    stars = 1 + np.arange(len(world.events.values)) % 5
    world.event_table().with_columns(stars=pl.Series(stars)).write_parquet(path)
    return path


def test_runs_read_a_dataset_by_their_own_section_events_once_each(tmp_path, world, monkeypatch):
    suite, read, lines = make_suite(tmp_path, world, RATED, reference="popularity", seeds=[0]), [], []
    path, items = rate(tmp_path, world), tmp_path / "data" / "small" / "items.parquet"
    from_tables = InteractionDataset.from_tables

    def counting(*args, **kwargs):
        read.append(kwargs["events"].said)
        return from_tables(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(InteractionDataset, "from_tables", counting)
        runner = Runner(suite, tmp_path / "out", lines.append, progress=False)
        assert runner.run() == {}
    rated = {"rating": "stars", "min_rating": 4.0}
    assert read == [{}, rated, {"weight": "stars"}]
    assert ["below 4.0 (events.min_rating)" in line for line in lines[:3]] == [False, True, False]
    rows = {row["run"]: row for row in write_tables(runner, {})}
    for run in RATED:
        recipe = suite.recipe(run, "small", {}, 0)
        dataset = InteractionDataset.from_tables(path, items, name="small", events=recipe.events)
        split, model = leave_one_out(dataset), resolve("recommender", recipe.recommender)(recipe)
        found = module.evaluate(model.fit(dataset, progress=False), split.test, dataset.items, split.item_counts)
        assert rows[run]["metrics"]["ndcg@10"] == pytest.approx(found.metrics["ndcg@10"]), run
    assert rows["liked"]["users"] < rows["popularity"]["users"]
    compared = {run for run, row in rows.items() if "difference" in row}
    assert compared == {"neighbours", "weighed"}  # the targets of all events are the same, whatever they count for
    told = f"liked is not compared: by its section events {json.dumps(rated)} it is asked for other targets, of "
    page = write_report(tmp_path / "out").read_text()
    assert told in json.dumps(sentences_of(list(rows.values()))).replace('\\"', '"')
    assert "liked is not compared" in (tmp_path / "out" / "results.md").read_text() and "liked is not compared" in page
    lines.clear()
    assert Runner(suite, tmp_path / "out", lines.append, progress=False).run() == {}
    assert sum("done before" in line for line in lines) == len(RATED)


def test_a_section_events_that_the_table_cannot_be_read_by_stops_the_runs_that_have_it(tmp_path, world):
    suite = make_suite(tmp_path, world, RATED, reference="popularity", seeds=[0])  # without stars
    failed = Runner(suite, tmp_path / "out", lambda line: None, progress=False).run()
    assert len(failed) == 2 and all("'stars'" in why for why in failed.values())
    assert 'small, events {"weight": "stars"}' in failed
    done = {path.parent.parent.name for path in (tmp_path / "out").rglob("result.json")}
    assert done == {"popularity", "neighbours"}


def test_a_suite_that_has_run_does_nothing_more(ran, monkeypatch):
    folder, suite, *_ = ran
    monkeypatch.setattr(module, "evaluate", lambda *args, **kwargs: pytest.fail("evaluated again"))
    monkeypatch.setattr(Recommender, "fit", lambda *args, **kwargs: pytest.fail("fitted again"))
    lines = []
    Runner(suite, folder / "out", lines.append, progress=False).run()
    assert sum("done before" in line for line in lines) == 12


def test_a_killed_suite_goes_on_where_it_stopped(suite, tmp_path, monkeypatch):
    evaluate, done = module.evaluate, []

    def stop_at_the_third(recommender, *args, **kwargs):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(recommender.recipe.recommender)
        return evaluate(recommender, *args, **kwargs)

    monkeypatch.setattr(module, "evaluate", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        Runner(suite, tmp_path / "out", lambda line: None, progress=False).run()
    finished = {path.parent for path in (tmp_path / "out").rglob("result.json")}
    assert finished
    monkeypatch.setattr(module, "evaluate", evaluate)
    lines = []
    assert Runner(suite, tmp_path / "out", lines.append, progress=False).run() == {}
    assert sum("done before" in line for line in lines) == len(finished)
    assert len(list((tmp_path / "out").rglob("result.json"))) == 12


def test_a_changed_run_is_done_again_and_others_are_not(ran, world, tmp_path):
    folder, *_ = ran
    changed = {**RUNS, "sasrec": {**RUNS["sasrec"], "model": {"width": 8, "max_len": 8}}}
    suite, lines = make_suite(folder, world, changed, seeds=[0]), []
    Runner(suite, folder / "out", lines.append, progress=False).run()
    assert sum("done before" in line for line in lines) == 5
    make_suite(folder, world)


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path, world):
    runs = {"sasrec": {**RUNS["sasrec"], "training": {**TRAINING, "learning_rate": 1e30}}, "popularity": RUNS["popularity"]}
    suite = make_suite(tmp_path, world, runs, datasets=["nowhere", "small"], seeds=[0])
    failed = Runner(suite, tmp_path / "out", lambda line: None, progress=False).run()
    assert "nowhere lies in none of the suite's folders" in failed["nowhere"] and "small, sasrec, seed 0" in failed
    assert (tmp_path / "out" / "runs" / "small" / "popularity" / "seed-0" / "result.json").is_file()


def again(suite, folder):
    """The runner of a suite that has run, after it has run again."""
    runner = Runner(suite, folder / "out", str, progress=False)
    assert runner.run() == {}
    return runner


def test_tables_and_pages_show_what_the_suite_says_now(tmp_path, world):
    """Not the figures of a run as it was before it was changed and failed, nor those of seeds that are gone."""
    popularity, knn = {"recommender": "popularity"}, {"recommender": "item_knn"}
    runs = {"popularity": popularity, "item_knn": knn, "text": {"recommender": "text_knn"}}
    write_tables(again(make_suite(tmp_path, world, runs, reference="popularity"), tmp_path), {})
    runs["text"]["embedding"] = {"columns": ["nosuch"]}
    runs["item_knn"] = {**knn, "model": {"decay": 0.2}, "seeds": [0]}
    changed = make_suite(tmp_path, world, runs, reference="popularity", test_users=40, seeds=[0])
    runner = Runner(changed, tmp_path / "out", str, progress=False)
    failed = runner.run()
    assert list(failed) == ["small, text, seed 0"] and "nosuch" in failed["small, text, seed 0"]
    rows = {row["run"]: row for row in write_tables(runner, {})}
    assert set(rows) == {"popularity", "item_knn"} and rows["item_knn"]["users"] == 40
    own = {run: json.loads((tmp_path / f"out/runs/small/{slug(run)}/seed-0/result.json").read_text()) for run in rows}
    assert rows["item_knn"]["metrics"] == own["item_knn"]["metrics"]
    assert rows["item_knn"]["seeds"] == [0] and rows["item_knn"]["identities"] == [own["item_knn"]["identity"]]
    assert "text_knn" not in write_report(tmp_path / "out").read_text()


def test_metrics_are_at_the_ks_of_the_recipe(tmp_path, world):
    runs = {"popularity": {"recommender": "popularity", "evaluation": {"ks": [1, 7]}}}
    (row,) = write_tables(again(make_suite(tmp_path, world, runs, reference="popularity", seeds=[0]), tmp_path), {})
    assert {name for name in row["metrics"] if name.startswith("recall@") and "unf" not in name} >= {"recall@1", "recall@7"}
    assert "recall@5" not in row["metrics"] and "ndcg@10" in row["metrics"]


def test_two_suites_do_not_run_in_one_folder(tmp_path, world):
    suite = make_suite(tmp_path, world, {"popularity": {"recommender": "popularity"}}, reference="popularity")
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / "suite.lock"),
        pytest.raises(DataError, match="another suite is at work in .*out; wait"),
    ):
        Runner(suite, tmp_path / "out", str, progress=False).run()
    assert Runner(suite, tmp_path / "out", str, progress=False).run() == {}


def test_tables_hold_means_spread_and_paired_differences(ran):
    folder, suite, *_ = ran
    rows = write_tables(again(suite, folder), {"cpu": "any"})
    by_run = {row["run"]: row for row in rows}
    assert list(by_run) == list(RUNS) and by_run["sasrec"].get("difference") is None
    row = by_run["diffgrm"]
    cells = [folder / "out" / "runs" / "small" / "diffgrm" / f"seed-{seed}" for seed in (0, 1)]
    values = [json.loads((cell / "result.json").read_text())["metrics"]["ndcg@10"] for cell in cells]
    assert row["metrics"]["ndcg@10"] == pytest.approx(np.mean(values))
    assert row["standard_deviation"]["ndcg@10"] == pytest.approx(np.std(values, ddof=1))
    difference = row["difference"]["ndcg@10"]
    wanted = row["metrics"]["ndcg@10"] - by_run["sasrec"]["metrics"]["ndcg@10"]
    assert difference["mean"] == pytest.approx(wanted) and difference["low"] <= wanted <= difference["high"]
    raised = holm([row["difference"]["ndcg@10"]["p"] for row in rows if "difference" in row])
    assert [row["difference"]["ndcg@10"]["p_holm"] for row in rows if "difference" in row] == raised and len(raised) == 5
    table = pl.read_csv(folder / "out" / "results.csv")
    assert table["run"].to_list() == list(RUNS) and table["ndcg@10"][3] == pytest.approx(row["metrics"]["ndcg@10"])
    for kinds in row["kinds"].values():  # the mean over kinds is the mean over users, who have an event each
        assert sum(kind["share"] * kind["ndcg@10"] for kind in kinds.values()) == pytest.approx(row["metrics"]["ndcg@10"])
    text = (folder / "out" / "results.md").read_text()
    assert "| p (Holm) |" in text and "| NDCG@10 of | memorised (" in text and text.count("| narrow |") == 2
    assert "| narrow | 2 |" in text and json.loads((folder / "out" / "results.json").read_text())["reference"] == "sasrec"


def test_the_page_stands_alone_and_shows_every_run(ran):
    folder, suite, *_ = ran
    write_tables(again(suite, folder), {"cpu": "any"})
    page = write_report(folder / "out").read_text()
    assert page.count("<svg") >= 7 and "one &lt;pass&gt;" in page and "one <pass>" not in page
    for outside in ('src="http', 'href="http', "@import", "<script", "<link"):
        assert outside not in page
    assert "Chosen on validation: neighbours" in page and "<th>memorised<br>" in page
    curves = page[page.index("How hard each digit is") : page.index("Use of the codes")]
    assert "<!-- diffgrm -->" in curves and "<!-- narrow -->" not in curves  # runs of one fit share its curves


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no results\.json; run the suite first"):
        write_report(tmp_path)


def test_the_interval_covers_the_mean_and_narrows_with_users():
    generator = np.random.default_rng(0)
    few, many = generator.normal(0.1, 1, 100), generator.normal(0.1, 1, 10_000)
    widths = [np.subtract(*interval_of_difference(x, np.zeros_like(x))[::-1]) for x in (few, many)]
    assert widths[0] == pytest.approx(2 * 1.96 * few.std() / 10, rel=0.1)
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.3)


def test_gains_are_of_lists_and_mean_over_seeds():
    tables = [pl.DataFrame({"user_id": ["a", "a", "b"], "rank": ranks}) for ranks in ([1, 0, 2], [1, 0, 0])]
    assert list_gains(tables, "recall@10").tolist() == [0.5, 0.5]  # one list for each user
    apart = [table.with_columns(list=pl.Series([0, 4, 5])) for table in tables]
    assert list_gains(apart, "recall@10").tolist() == [1.0, 0.0, 0.5]
    assert list_owners(tables[0]).tolist() == [0, 1] and list_owners(apart[0]).tolist() == [0, 0, 1]


def test_lists_of_a_user_are_drawn_together():
    """Ten alike lists for each of 50 users: the interval is that of 50 means, not of 500 lists."""
    means = np.random.default_rng(0).normal(0.1, 1, 50)
    lists, owners = np.repeat(means, 10), np.repeat(np.arange(50), 10)
    zero = np.zeros_like(lists)
    assert interval_of_difference(lists, zero, owners) == pytest.approx(interval_of_difference(means, np.zeros(50)))
    alone = np.subtract(*interval_of_difference(lists, zero))
    assert np.subtract(*interval_of_difference(lists, zero, owners)) < 2.5 * alone < 0


def test_a_peer_is_scored_by_our_evaluation(tmp_path, world):
    """A peer that recommends the most frequent items is worth what our popularity is worth."""
    script = tmp_path / "peer.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, sys
            from pathlib import Path
            import polars as pl
            folder = Path(sys.argv[1])
            settings = json.loads((folder / "settings.json").read_text())
            items, train = pl.read_parquet(folder / "items.parquet"), pl.read_parquet(folder / "train.parquet")
            counts = items.join(train.group_by("item_id").len(), on="item_id", how="left", maintain_order="left")
            order = counts.with_columns(pl.col("len").fill_null(0)).sort("len", descending=True, maintain_order=True)
            histories = pl.read_parquet(folder / "histories.parquet")
            every = histories.select("user_id").unique(maintain_order=True).join(order.select("item_id"), how="cross")
            for name, table in (("unfiltered", every), ("filtered", every.join(histories, on=["user_id", "item_id"],
                                                                            how="anti", maintain_order="left"))):
                ranked = table.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
                ranked.filter(pl.col("rank") <= settings["k"]).write_parquet(folder / f"{name}.parquet")
            (folder / "facts.json").write_text(json.dumps({"parameters": 0, "said": settings["width"]}))
            """
        )
    )
    runs = {"popularity": RUNS["popularity"], "peer": {"peer": "peer.py", "python": sys.executable, "width": 3}}
    suite = make_suite(tmp_path, world, runs, reference="popularity", seeds=[0])
    runner = Runner(suite, tmp_path / "out", lambda line: None, progress=False)
    assert runner.run() == {}
    ours, theirs = write_tables(runner, {})
    for name, value in theirs["metrics"].items():
        assert ours["metrics"][name] == pytest.approx(value), name
    assert theirs["peer"] and theirs["ms_per_list"] is None and ours["ms_per_list"] > 0
    assert "peer" in write_report(tmp_path / "out").read_text()


PEER = """
import json, sys
from pathlib import Path
import numpy as np, polars as pl
folder = Path(sys.argv[1])
users = pl.read_parquet(folder / "histories.parquet").select("user_id").unique()
items = pl.read_parquet(folder / "items.parquet").select("item_id")[:3]
table = users.join(items, how="cross").with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
width = np.load(folder / "vectors.npy").shape[1] if (folder / "vectors.npy").is_file() else 0
CHANGE
for name in ("filtered", "unfiltered"):
    table.write_parquet(folder / f"{name}.parquet")
(folder / "facts.json").write_text(json.dumps({"width": width}))
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("raise SystemExit(0)", "the peer peer.py left no facts.json that can be read"),
        ("table = table.drop('rank')", "left filtered.parquet without the column rank; it has user_id, item_id"),
        ("table = table.with_columns(rank=pl.col('rank') - 1)", "with ranks that are not 1, 2, 3"),
        ("table = table.with_columns(rank=pl.col('rank') / 2)", "with ranks that are not 1, 2, 3"),
        ("table = pl.concat([table, table])", "with two items of one rank in the list of a user"),
        ("json.dumps = lambda facts: '[]'", "left a facts.json of list; expected a mapping"),
    ],
)
def test_what_a_peer_leaves_is_checked_and_the_rest_of_the_suite_goes_on(tmp_path, world, change, told):
    (tmp_path / "peer.py").write_text(PEER.replace("CHANGE", change))
    runs = {"peer": {"peer": "peer.py", "python": sys.executable}, "popularity": RUNS["popularity"]}
    runner = Runner(make_suite(tmp_path, world, runs, reference="popularity", seeds=[0]), tmp_path / "out", str, False)
    failed = runner.run()
    assert list(failed) == ["small, peer, seed 0"] and told in failed["small, peer, seed 0"]
    assert [row["run"] for row in write_tables(runner, {})] == ["popularity"]


def test_a_peer_is_run_again_when_the_vectors_that_it_is_given_have_changed(tmp_path, world):
    (tmp_path / "peer.py").write_text(PEER.replace("CHANGE", ""))
    for width in (16, 8, 8):
        text = {"recommender": "text_knn", "embedding": {"width": width}}
        runs = {"text": text, "peer": {"peer": "peer.py", "python": sys.executable, "vectors_of": "text"}}
        lines = []
        suite = make_suite(tmp_path, world, runs, reference="text", seeds=[0])
        assert Runner(suite, tmp_path / "out", lines.append, progress=False).run() == {}
        facts = json.loads((tmp_path / "out/runs/small/peer/seed-0/result.json").read_text())["facts"]
        assert facts["width"] == width
    assert sum("done before" in line for line in lines) == 2
    runs["text"]["evaluation"] = {"ks": [3]}  # which says nothing of vectors
    suite = make_suite(tmp_path, world, runs, reference="text", seeds=[0])
    assert Runner(suite, tmp_path / "out", lines.append, progress=False).run() == {}
    assert sum("done before" in line for line in lines) == 3


def test_a_peer_that_fails_says_why(tmp_path, world):
    (tmp_path / "peer.py").write_text("raise SystemExit('no such luck')")
    runs = {
        "popularity": RUNS["popularity"],
        "peer": {"peer": "peer.py", "python": sys.executable},
        "absent": {"peer": "peer.py", "python": "nowhere/python"},
    }
    suite = make_suite(tmp_path, world, runs, reference="popularity", seeds=[0])
    failed = Runner(suite, tmp_path / "out", lambda line: None, progress=False).run()
    assert "no such luck" in failed["small, peer, seed 0"] and "make peers" in failed["small, absent, seed 0"]


def test_the_commands_run_a_suite_and_write_its_page(tmp_path, world, monkeypatch, capsys):
    runs = {"popularity": RUNS["popularity"], "a random order of everything": {"recommender": "random"}}
    make_suite(tmp_path, world, runs, reference="popularity", seeds=[0], test_users=40)
    for command in (["bench", tmp_path / "suite.yaml", "--out", tmp_path / "out", "--quiet"], ["report", tmp_path / "out"]):
        monkeypatch.setattr(sys, "argv", ["diffgrm", *map(str, command)])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    out = " ".join(capsys.readouterr().out.split())
    assert "a random order" in out and "popularity" in out and "results.md" in out
    assert (tmp_path / "out" / "report.html").is_file()
    row = json.loads((tmp_path / "out" / "results.json").read_text())["rows"][0]
    assert row["users"] == 40


def test_a_fitted_model_may_name_what_its_suite_names_and_nothing_else(tmp_path, world):
    scoring = {"vectors": {}, "parts.rescorer:LessPopular": {}}
    small = {"recommender": "hybrid", **SIDS, "model": {"width": 16}, "training": TRAINING, "item_scoring": scoring}
    runs = {"own": small, "without": {"like": "own", "item_scoring": {"parts.rescorer:LessPopular": None}}}
    suite = make_suite(tmp_path, world, runs, seeds=[0], reference="own")
    assert suite.own_classes == {"parts.rescorer:LessPopular"}
    assert Runner(suite, tmp_path / "out", lambda line: None, progress=False).run() == {}
    for manifest in (tmp_path / "out" / "models").glob("*/manifest.json"):
        change_recipe(manifest.parent, {"noising": "os:getcwd"})
    for result in (tmp_path / "out" / "runs").rglob("result.json"):
        result.unlink()
    failed = Runner(suite, tmp_path / "out", lambda line: None, progress=False).run()
    assert len(failed) == 2 and all("os:getcwd (noising)" in why for why in failed.values())


# ---- item vectors of a scorer that is fitted first --------------------------------------------------------------------


def _run_of(recipe):
    return {section: value for section, value in recipe.to_dict().items() if section != "seed"}


def test_a_fit_that_ended_while_its_item_scorer_was_trained_goes_on(tmp_path, world, monkeypatch):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "cache"))
    runs = {"generation": _run_of(small_generation())}
    suite = make_suite(tmp_path, world, runs, reference="generation", seeds=[0])
    step, fit, asked = TrainingTask.training_step, Recommender.fit, []

    def ending(self, batch, index):
        if self.current_epoch == 1:
            raise TrainingError("the lights went out")
        return step(self, batch, index)

    def watched(self, *args, **kwargs):
        asked.append((self.recipe.recommender, kwargs["resume"]))
        return fit(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingTask, "training_step", ending)
        failed = Runner(suite, tmp_path / "out", lambda line: None, progress=False).run()
    assert "the lights went out" in failed["small, generation, seed 0"]
    left = [path.parent.name for path in (tmp_path / "out").rglob("last.ckpt")]
    monkeypatch.setattr(Recommender, "fit", watched)
    assert Runner(suite, tmp_path / "out", lambda line: None, progress=False).run() == {}
    assert left == ["item_scorer"] and asked == [("diffgrm", True), ("sasrec", True)]
    assert not list((tmp_path / "out").rglob("*.ckpt"))


def test_a_peer_can_have_vectors_that_are_learnt_from_events(tmp_path, world, monkeypatch):
    given = []

    def peer(script, python, dataset, split, settings, codes, vectors):
        given.append((codes, vectors))
        raise DataError("seen enough")

    monkeypatch.setattr(module, "run_peer", peer)
    runs = {
        "popularity": RUNS["popularity"],
        "generation": _run_of(small_generation("training.epochs=1")),
        "peer": {"peer": "peer.py", "python": sys.executable, "vectors_of": "generation", "semantic_ids_of": "generation"},
    }
    (tmp_path / "peer.py").write_text("")
    suite = make_suite(tmp_path, world, runs, reference="popularity", seeds=[0])
    failed = Runner(suite, tmp_path / "out", lambda line: None, progress=False).run()
    assert list(failed) == ["small, peer, seed 0"] and "seen enough" in failed["small, peer, seed 0"]
    ((codes, vectors),) = given
    (folder,) = [path.parent for path in (tmp_path / "out" / "models").rglob("encoder.safetensors")]
    model = load(folder)
    assert np.array_equal(vectors, model.encoder.encode(model.item_table)) and np.array_equal(
        codes, model.semantic_ids.codes
    )
