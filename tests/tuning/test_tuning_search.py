from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import optuna
import polars as pl
import pytest
import yaml
from matplotlib import pyplot
from matplotlib.figure import Figure

from diffgrm import Recipe, leave_one_out, toy_world, tune
from diffgrm.apps import choosing
from diffgrm.apps.choosing import Range
from diffgrm.apps.reporting.figures import plot
from diffgrm.apps.tuning import page
from diffgrm.apps.tuning import search as module
from diffgrm.apps.tuning.trials import Trial, _draw
from diffgrm.evaluation.metrics import evaluate
from diffgrm.foundation.outputs import held_folder
from diffgrm.foundation.schema import DataError, DiffGRMError, MissingExtraError, RecipeError, TrainingError
from diffgrm.learning.loop import TrainingTask
from diffgrm.recommenders.base import Recommender
from helpers.commands import caller, save_tables

KNN = Recipe(recommender="item_knn")
SPACE = {"model.decay": {"min": 0.1, "max": 0.95}, "model.neighbours": [2, 5, 50]}
SASREC = Recipe(
    recommender="sasrec",
    model={"width": 8, "heads": 1, "layers": 1, "feed_forward": 8, "max_len": 6},
    training={"batch_size": 128, "epochs": 3, "warmup_steps": 2},
)


@pytest.fixture(scope="module")
def world():
    return toy_world(users=60, seed=2).dataset


def search(world, out, trials=4, recipe=KNN, space=SPACE, **how):
    return tune(recipe, world, space, trials, out=out, **how)


def told(result):
    return [(trial.state, trial.settings, trial.score) for trial in result.trials]


def test_the_best_on_validation_is_found_and_written(world, tmp_path):
    lines = []
    found = search(world, tmp_path, 6, startup=3, say=lines.append)
    split = leave_one_out(world)
    for trial in found.trials:
        recipe = KNN.override(choosing.as_overrides(trial.settings))
        fitted = module.registry.resolve("recommender", "item_knn")(recipe).fit(world)
        metrics = evaluate(fitted, split.validation, world.items, split.item_counts).metrics
        assert trial.score == pytest.approx(0.8 * metrics["ndcg@10"] + 0.2 * metrics["recall@10"])
    best = max(found.trials, key=lambda trial: trial.score)
    assert found.score == best.score and Recipe.from_yaml(tmp_path / "best.yaml") == found.recipe
    assert {key: found.recipe.model.options[key.split(".")[1]] for key in SPACE} == best.settings
    table = pl.read_csv(tmp_path / "trials.csv")
    assert table["score"].to_list() == [trial.score for trial in found.trials] and table.height == 6
    assert json.loads((tmp_path / "trials.json").read_text())["best"] == best.number
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 2 and "src=" not in page and f"Trial {best.number} did best" in page  # no curves here
    assert len(lines) == 6 and lines[-1].startswith("[6/6")
    decays = [trial.settings["model.decay"] for trial in found.trials]
    assert len(set(decays)) == 6 and all(0.1 <= decay <= 0.95 for decay in decays)


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(world, tmp_path, monkeypatch):
    whole = search(world, tmp_path / "whole", 7, startup=2)
    fit, fitted = Recommender.fit, []

    def killed(self, *args, **kwargs):
        fitted.append(self.recipe.model.options["decay"])
        if len(fitted) == 4:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Recommender, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        search(world, tmp_path / "parts", 7, startup=2)
    assert len(json.loads((tmp_path / "parts" / "trials.json").read_text())["trials"]) == 3
    with (tmp_path / "parts" / "trials.log").open("a") as log:
        log.write('{"op_code": 6, "worker')  # as a full disk leaves it
    parts = search(world, tmp_path / "parts", 7, startup=2)
    assert told(parts) == told(whole) and fitted[3] == fitted[4] and len(fitted) == 8
    more = search(world, tmp_path / "parts", 8, startup=2)
    assert told(more)[:7] == told(whole) and len(fitted) == 9
    assert told(search(world, tmp_path / "parts", 3, startup=2)) == told(more) and len(fitted) == 9  # all are there


def test_another_search_in_the_same_folder_is_refused(world, tmp_path):
    search(world, tmp_path, 1)
    other = toy_world(users=60, seed=3).dataset
    for text, change in {
        "recipe": {"recipe": KNN.override(["model.shrink=3"])},
        "choose": {"space": {"model.decay": [0.1, 0.2]}},
        "data": {"world": other},
        "seed, startup": {"seed": 3, "startup": 9},
        "pruning": {"pruning": "none"},
    }.items():
        with pytest.raises(DataError, match=f"holds a search with another {text}; go on with what it began with"):
            search(**{"world": world, "out": tmp_path, **change})
    with (
        held_folder(tmp_path, "search.lock", "search"),
        pytest.raises(DataError, match="another search is at work in"),
    ):
        search(world, tmp_path, 1)
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(DataError, match="search.json cannot be read"):
        search(world, tmp_path, 1)


def poisoned(world, item):
    """The same but for test events, all of which are of an item that nobody has met."""
    events = world.events.values.copy()
    events[world.events.offsets[1:] - 1] = item
    return replace(world, events=replace(world.events, values=events))


@pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
def test_trials_are_given_no_test_event(world, tmp_path, monkeypatch, split):
    recipe = KNN.override([f"data.split={split}"])
    full = module.make_split(world, recipe.data)
    given, fit, asked = [], Recommender.fit, []
    known = full.train.values.tolist() + full.validation.histories.values.tolist() + full.validation.targets.values.tolist()

    def seen(self, data, **kwargs):
        given.append(data)
        return fit(self, data, **kwargs)

    def measured(recommender, held_out, *args, **kwargs):
        asked.append(held_out)
        return evaluate(recommender, held_out, *args, **kwargs)

    monkeypatch.setattr(Recommender, "fit", seen)
    monkeypatch.setattr(choosing, "evaluate", measured)
    first = search(world, tmp_path / "first", 3, recipe)
    for data in given:
        assert len(data.test) == 0 and len(data.test.targets.values) == 0 and not data.facts
        assert data.dataset.timestamps is None
        assert np.array_equal(data.dataset.events.values, full.train.values)
        assert np.array_equal(data.validation.targets.values, full.validation.targets.values)
        arrays = (data.dataset.events, data.train, data.validation.histories, data.validation.targets)
        assert set(np.concatenate([rows.values for rows in arrays])) <= set(known)
    assert len(asked) == 3 and all(np.array_equal(a.targets.values, full.validation.targets.values) for a in asked)
    if split == "leave_one_out":
        unmet = int(np.setdiff1d(np.arange(world.n_items), world.events.values)[0])
        again = search(poisoned(world, unmet), tmp_path / "first", 4, recipe)  # the same search: test is no part of it
        assert told(again)[:3] == told(first)
        assert told(search(poisoned(world, unmet), tmp_path / "other", 3, recipe)) == told(first)


def scores_of(monkeypatch, by_rate):
    """Let validation find scores that go by the learning rate, so that what is given up is known beforehand."""

    def step(self, batch, index):
        score = by_rate(self.settings.learning_rate, self.current_epoch)
        self.latest = {"val_ndcg@10": score, "val_recall@10": score, "val_score": score}
        self.log_dict(self.latest, batch_size=1)

    monkeypatch.setattr(TrainingTask, "validation_step", step)


def test_trials_below_the_median_are_given_up_after_the_validation_that_shows_it(world, tmp_path, monkeypatch):
    scores_of(monkeypatch, lambda rate, epoch: rate * (epoch + 1))
    space = {"training.learning_rate": {"min": 0.001, "max": 0.1}}
    found = search(world, tmp_path / "median", 7, SASREC, space, startup=3)
    assert {trial.state for trial in found.trials} == {"done", "pruned"}
    for number, trial in enumerate(found.trials):
        rate, ended = trial.settings["training.learning_rate"], [t for t in found.trials[:number] if t.state == "done"]
        expected = [(epoch, pytest.approx(rate * (epoch + 1))) for epoch in range(3)]
        below = len(ended) >= 3 and rate < np.median([t.settings["training.learning_rate"] for t in ended])
        assert trial.state == ("pruned" if below else "done"), number
        assert trial.curve == expected[: 1 if below else 3]
        assert trial.score == trial.curve[-1][1]
    assert (tmp_path / "median" / "report.html").read_text().count("<svg") == 3
    every = search(world, tmp_path / "none", 2, SASREC, space, startup=1, pruning="none")
    assert [trial.state for trial in every.trials] == ["done", "done"]


def test_a_trial_that_cannot_be_trained_is_noted_and_the_search_goes_on(world, tmp_path, monkeypatch):
    fit = Recommender.fit

    def diverging(self, *args, **kwargs):
        if self.recipe.model.options["neighbours"] == 5:
            raise TrainingError("the loss became nan")
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Recommender, "fit", diverging)
    found = search(world, tmp_path, 3, space={"model.neighbours": [5, 6]}, seed=1)
    states = {trial.settings["model.neighbours"]: trial.state for trial in found.trials}
    assert states == {5: "failed", 6: "done"}
    assert "the loss became nan" in (tmp_path / "report.html").read_text()
    with pytest.raises(DiffGRMError, match="(?s)none of 1 trials came to its end:.*the loss became nan"):
        search(world, tmp_path / "other", 1, space={"model.neighbours": [5]})
    assert not (tmp_path / "other" / "best.yaml").exists()


def test_what_is_not_the_fault_of_the_settings_ends_the_search(world, tmp_path, monkeypatch):
    monkeypatch.setattr(Recommender, "fit", lambda *args, **kwargs: (_ for _ in ()).throw(DataError("no such file")))
    with pytest.raises(DataError, match="no such file"):
        search(world, tmp_path)


def test_values_of_lists_may_be_parts_with_their_settings(world, tmp_path):
    space = {"model": [{"name": "item_knn", "neighbours": 3}, {"name": "item_knn", "decay": 0.3}]}
    found = search(world, tmp_path, 2, space=space)
    assert all(trial.settings["model"] in space["model"] for trial in found.trials)


def test_tuples_are_chosen_as_the_lists_that_files_have(world, tmp_path):
    recipe = SASREC.override(["training.epochs=1"])
    found = search(world, tmp_path, 2, space={"training.loggers": [("csv",), ()]}, recipe=recipe)
    assert sorted(trial.settings["training.loggers"] for trial in found.trials) == [[], ["csv"]]
    assert "What each setting did" in (tmp_path / "report.html").read_text()


def test_values_that_are_spelled_alike_have_places_of_their_own_on_the_axis(monkeypatch):
    figure, values = Figure(), [1, "1", [1]]
    monkeypatch.setattr(page, "plot", lambda size, draw: draw(figure))
    trials = [Trial(number, "done", {"a": value}, 0.5, [], {}) for number, value in enumerate(values)]
    page.by_setting(SimpleNamespace(choose={"a": values}), trials)
    assert list(figure.axes[0].lines[0].get_xdata()) == [0, 1, 2]


def test_figures_leave_those_of_the_caller_alone():
    matplotlib.use("agg")
    before = matplotlib.get_backend(), pyplot.get_fignums(), dict(matplotlib.rcParams)

    def draw(figure):
        raise ValueError("no such figure")

    with pytest.raises(ValueError, match="no such figure"):
        plot((2, 2), draw)
    assert "<svg" in plot((2, 2), lambda figure: figure.add_subplot())
    assert (matplotlib.get_backend(), pyplot.get_fignums(), dict(matplotlib.rcParams)) == before


@pytest.mark.parametrize(("package", "extra"), [("optuna", "tune"), ("matplotlib", "tune")])
def test_without_its_extra_nothing_is_begun(world, tmp_path, monkeypatch, package, extra):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'diffgrm\[{extra}\]'"):
        search(world, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fit_takes_a_split_only_if_it_is_the_recipe_s(world):
    split = leave_one_out(world)
    recommender = module.registry.resolve("recommender", "item_knn")
    of_split, of_dataset = (recommender(KNN).fit(data, progress=False) for data in (split, world))
    assert of_split.recommend([["item 0"]], k=5).equals(of_dataset.recommend([["item 0"]], k=5))
    with pytest.raises(RecipeError, match="the recipe says data.split=temporal, but this is a leave_one_out split"):
        recommender(KNN.override(["data.split=temporal"])).fit(split)


def test_the_command_line_searches_goes_on_and_writes_a_recipe_that_fit_takes(world, tmp_path, monkeypatch, capsys):
    call, tables = caller(monkeypatch, capsys), save_tables(world, tmp_path)
    recipe = tmp_path / "knn.yaml"
    recipe.write_text(yaml.safe_dump({"recommender": "item_knn", "choose": {"model.decay": [0.2, 0.5, 0.9]}}))
    asked = ["tune", recipe, "model.neighbours=9", *tables, "--out", tmp_path / "out", "--quiet"]
    code, out, errors = call(*asked, "--trials", 2)
    assert code == 0 and "Best on validation" in out, errors
    assert call(*asked, "--trials", 3)[0] == 0
    assert pl.read_csv(tmp_path / "out" / "trials.csv").height == 3
    best = Recipe.from_yaml(tmp_path / "out" / "best.yaml")
    assert best.model.options["neighbours"] == 9
    code, _, errors = call(
        "fit", "--recipe", tmp_path / "out" / "best.yaml", *tables, "--out", tmp_path / "model", "--quiet"
    )
    assert code == 0, errors
    code, _, errors = call(*asked, "--trials", 2, "--space", recipe)
    assert code == 2 and "say what may be chosen; leave one out" in errors


@pytest.mark.parametrize("line", [b"garbage", b"\xff\xfe", b"[]", b"{}", b""])
@pytest.mark.parametrize("place", [1, -1])
def test_a_damaged_line_among_the_trials_is_told_by_its_number(world, tmp_path, line, place):
    search(world, tmp_path, 1)
    log = tmp_path / "trials.log"
    lines = log.read_bytes().split(b"\n")
    lines.insert(place, line)
    log.write_bytes(b"\n".join(lines))
    number = 2 if place == 1 else len(lines) - 1
    with pytest.raises(DataError, match=f"trials.log is damaged: line {number} is no event of a search; put a copy"):
        search(world, tmp_path, 2)
    assert log.read_bytes() == b"\n".join(lines)


@pytest.mark.parametrize(
    "options",
    [
        {"min": 1234567.1, "max": 1234567.9},
        {"min": 1234567.1, "max": 1234567.9, "log": True},
        {"min": -1e6, "max": -1e6 + 0.5},
        {"min": 1e-9, "max": 1e-3},
        {"min": 0.1, "max": 0.95},
    ],
)
def test_any_number_of_a_range_is_drawn_as_short_as_one_would_write_it(options):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [_draw(study.ask(), "x", Range(**options)) for _ in range(50)]
    assert len(set(drawn)) == 50 and all(options["min"] <= value <= options["max"] for value in drawn)
    assert max(len(repr(value)) for value in drawn) <= 15
