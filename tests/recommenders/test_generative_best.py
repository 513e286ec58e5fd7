"""The recipe that ranks best by generation: where it starts, what it refuses, how it goes on, and all of it by commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import Recipe, load, toy_world
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError, TrainingError
from diffgrm.learning.loop import TrainingResult
from diffgrm.recommenders import trained_network
from helpers.commands import called, save_tables
from helpers.recipes import SMALL_SCORER, small_generation
from helpers.runs import same_weights

NEW = pl.DataFrame({"item_id": ["new 0", "new 1"], "text": ["a red pot", "a blue pan"]})


def left_to_right(*changes):
    """The same for the network that goes from left to right."""
    raw = small_generation().to_dict()
    shared = ("embedding", "tokenizer", "semantic_ids", "training")
    model = {key: value for key, value in raw["model"].items() if key not in ("name", "init", "pairwise_rank")}
    given = {section: raw[section] for section in shared}
    recipe = Recipe(recommender="autoregressive", model={"name": "autoregressive", **model}, **given)
    return recipe.override(["decoding.beam=480", *changes])


RECIPES = {"diffgrm": small_generation, "autoregressive": left_to_right}
EITHER = pytest.mark.parametrize("name", RECIPES)


def fitted(recipe, toy, **options):
    return resolve("recommender", recipe.recommender)(recipe).fit(toy, progress=False, **options)


@pytest.fixture(scope="module")
def recommender(toy):
    """Tests must not change it."""
    return fitted(small_generation(), toy)


# ---- where it starts --------------------------------------------------------------------------------------------------


@EITHER
def test_before_training_it_ranks_as_the_scorer_does_by_quantised_items(name, toy, recommender, monkeypatch):
    """Scores are, but for a constant of each user, the fitted scorer's user vector times the sum of an item's centroids."""
    monkeypatch.setattr(trained_network, "train", lambda *_, **__: TrainingResult(0.0, 0, 0, {}, 0.0))
    made = fitted(RECIPES[name](), toy)
    assert same_weights(made.encoder.scorer, recommender.encoder.scorer) and not same_weights(made, recommender)
    centroids = torch.from_numpy(made.encoder.item_space(made.tokenizer.code_vectors()))  # [n, K, d]
    codes = torch.from_numpy(made.semantic_ids.codes.astype(np.int64))
    items = centroids[torch.arange(codes.shape[1]), codes].sum(1)  # [I, d]
    network = made.encoder.scorer.network.eval()
    for history in (["item 3"], ["item 0", "item 15", "item 7"], [f"item {place}" for place in range(40)]):
        index = torch.from_numpy(made.items.positions(history))[None]
        with torch.no_grad():
            memory = network.encode_history(items, index, torch.ones_like(index, dtype=torch.bool))
            wanted = (network.user_vectors(memory)[0] @ items.T).numpy()
        found = made.recommend([history], k=len(codes), exclude_seen=False)
        assert found.height == len(codes)
        positions = made.items.positions(found["item_id"])
        lift = made.recipe.decoding.options.get("new_items", 0) * (made.item_counts[positions] == 0)
        apart = found["score"].to_numpy() - lift - wanted[positions]
        assert np.ptp(apart) < 1e-3 * max(1.0, np.ptp(wanted)) and np.ptp(wanted) > 0.01


def test_training_moves_on_from_there(recommender):
    state, begun = recommender.network.state_dict(), recommender.encoder.history_encoder().state_dict()
    moved = [key for key in begun if not torch.equal(begun[key], state[f"encoder.{key}"])]
    assert moved and recommender.network.decoder.gate.abs().max() > 0


# ---- what it refuses --------------------------------------------------------------------------------------------------

OTHER_SIZES = {
    "model.width=32": "width is 32 here and 16 there",
    "model.encoder_layers=2": "layers is 2 here and 1 there",
    "model.heads=4": "heads is 4 here and 2 there",
    "model.feed_forward=64": "feed_forward is 64 here and 32 there",
    "model.max_len=20": "max_len is 20 here and 50 there",
    "model.history=bidirectional": "history is bidirectional here and causal there",
    "model.positions=first": "positions is first here and newest there",
}


@EITHER
@pytest.mark.parametrize(("change", "message"), OTHER_SIZES.items())
def test_an_encoder_unlike_the_scorers_is_refused_before_the_scorer_is_fitted(name, change, message, toy, monkeypatch):
    """Also where the weights would fit and mean something else."""
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", lambda *_, **__: pytest.fail("it embeds"))
    with pytest.raises(RecipeError, match=f"like the item scorer's: {message}; "):
        fitted(RECIPES[name](change), toy)


def test_the_scale_of_its_vectors_counts_too_and_all_that_differs_is_told(toy):
    with pytest.raises(
        RecipeError, match="width is 8 here and 16 there; heads is 4 here and 2 there; scale is 1.0 here and 4"
    ):
        fitted(small_generation("model.init=release", "model.width=8", "model.heads=4"), toy)


def test_an_encoder_unlike_that_of_a_model_folder_is_refused_before_training(toy, tmp_path, monkeypatch):
    scorer = resolve("recommender", "sasrec")(Recipe.preset("item-scorer", SMALL_SCORER)).fit(toy, progress=False)
    folder = scorer.save(tmp_path / "scorer")
    monkeypatch.setattr(trained_network, "train", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(RecipeError, match="width is 32 here and 16 there"):
        fitted(small_generation("embedding.changes=[]", f"embedding.model={folder}", "model.width=32"), toy)


def test_a_scorer_that_compares_otherwise_is_no_place_to_start(toy):
    changes = f"embedding.changes=[{', '.join(SMALL_SCORER)}, item_loss.cosine=true, item_loss.temperature=0.1]"
    with pytest.raises(RecipeError, match=r"the item scorer compares by item_loss.cosine or item_loss.temperature"):
        fitted(small_generation(changes), toy)
    made = fitted(small_generation(changes, "model.start=drawn", "training.epochs=1"), toy)  # its vectors are vectors
    lengths = np.linalg.norm(made.encoder.item_space(made.encoder.encode(toy.item_table)), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=5e-3)


START = {
    "embedding={name: lsa}": "model.start=item_scorer begins at an item scorer, but the embedding 'lsa' is not made of one",
    "tokenizer.unit=true": "the tokenizer 'opq' does not give them .*choose tokenizer.name=opq with tokenizer.unit=false",
    "tokenizer={name: residual_kmeans}": "the tokenizer 'residual_kmeans' does not give them",
    "tokenizer={name: random}": "the tokenizer 'random' does not give them",
    "model.skip=false": "begins where digits are compared with the state of the newest item; set model.skip=true",
}


@EITHER
@pytest.mark.parametrize(("change", "message"), START.items())
def test_what_cannot_start_there_is_refused(name, change, message, toy):
    with pytest.raises(RecipeError, match=message):
        fitted(RECIPES[name](change), toy)


def test_commands_refuse_the_same(toy, tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.yaml").write_text(small_generation().to_yaml())
    fit = ["fit", "--recipe", tmp_path / "recipe.yaml", *save_tables(toy, tmp_path), "--out", tmp_path / "model"]
    for change, message in (
        ("model.width=32", "width is 32 here and 16 there"),
        ("model.heads=4", "heads is 4 here and 2 there"),
        ("model.skip=false", "set model.skip=true"),
        ("tokenizer.unit=true", "tokenizer.unit=false"),
    ):
        code, _, err = called(monkeypatch, capsys, *fit, change)
        assert code == 2 and message in err and not (tmp_path / "model").exists()


# ---- killed and resumed -----------------------------------------------------------------------------------------------


def killed(recipe, run, cache, fit, epoch):
    """A fit in a process of its own, which dies in its first (the scorer's) or second (the network's) training."""
    code = f"""
        import os, signal, torch
        torch.set_num_threads(1)
        from diffgrm import DiffGRMRecommender, Recipe, toy_world
        from diffgrm.learning.loop import TrainingTask
        whole, tasks = TrainingTask.training_step, []
        def dying(self, batch, index):
            if self not in tasks:
                tasks.append(self)
            if len(tasks) == {fit} and self.current_epoch == {epoch} and index == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(self, batch, index)
        TrainingTask.training_step = dying
        recipe = Recipe.from_dict({recipe.to_dict()!r})
        DiffGRMRecommender(recipe).fit(toy_world(users=120, seed=1).dataset, run_folder={str(run)!r}, progress=False)
    """
    place = {**environment(), "DIFFGRM_CACHE": str(cache)}
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True, env=place)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(place).resolve()) for place in sys.path)}


@pytest.mark.parametrize(
    ("training", "epoch", "left", "cached"),
    [
        (1, 1, ["item_scorer/last.ckpt"], True),
        (2, 0, ["item_scorer/last.ckpt"], True),
        (2, 1, ["item_scorer/last.ckpt", "last.ckpt"], True),
        (2, 1, ["item_scorer/last.ckpt", "last.ckpt"], False),
    ],
    ids=["scorer", "before the network's first checkpoint", "network", "network, and the cache is lost"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    training, epoch, left, cached, recommender, toy, tmp_path, monkeypatch
):
    recipe, run, cache = small_generation(), tmp_path / "run", tmp_path / "cache"
    killed(recipe, run, cache, training, epoch)
    assert sorted(str(path.relative_to(run)) for path in run.rglob("last.ckpt")) == left
    with pytest.raises(TrainingError, match=r"already holds a run; resume it \(--resume; in Python: resume=True\)"):
        fitted(recipe, toy, run_folder=run)
    if not cached:
        shutil.rmtree(cache, ignore_errors=True)
    monkeypatch.setenv("DIFFGRM_CACHE", str(cache))
    resumed = fitted(recipe, toy_world(users=120, seed=1).dataset, run_folder=run, resume=True)
    assert same_weights(resumed.encoder.scorer, recommender.encoder.scorer)
    assert np.array_equal(resumed.semantic_ids.codes, recommender.semantic_ids.codes) and same_weights(resumed, recommender)


def test_where_nothing_is_there_to_go_on_from_it_says_so(toy, tmp_path):
    (tmp_path / "run" / "item_scorer").mkdir(parents=True)
    with pytest.raises(TrainingError, match="cannot resume: there is no checkpoint .*last.ckpt; start without resume"):
        fitted(small_generation(), toy, run_folder=tmp_path / "run", resume=True)


def test_a_scorer_of_other_settings_is_not_gone_on_from(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "cache"))
    fitted(small_generation(), toy, run_folder=tmp_path / "run")
    changes = f"embedding.changes=[{', '.join(SMALL_SCORER)}, training.learning_rate=0.02]"
    with pytest.raises(
        TrainingError, match="cannot resume: the checkpoint belongs to other data, semantic IDs or training"
    ):
        fitted(small_generation(changes), toy, run_folder=tmp_path / "run", resume=True)


# ---- by commands ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """Arguments of the tables, and a model that the command line fitted."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "recipe.yaml").write_text(small_generation().to_yaml())
    tables = save_tables(toy, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["diffgrm"])
        from diffgrm.apps.cli.main import app

        app(
            ["fit", "--recipe", str(folder / "recipe.yaml"), *map(str, tables), "--out", str(folder / "model"), "--quiet"],
            standalone_mode=False,
        )
    return tables, folder / "model"


def test_the_shipped_recipe_is_taken_by_its_name(monkeypatch, capsys):
    code, out, _ = called(monkeypatch, capsys, "recipes", "generative-best")
    assert code == 0 and "name: item_scorer" in out
    for name in ("generative-best", "item-scorer"):
        assert Recipe.preset(name) == Recipe.from_dict(Recipe.preset(name).to_dict())
        Recipe.preset(name).refuse_idle()


def test_a_fitted_model_is_that_of_python_and_its_checkpoints_are_gone(made, recommender):
    _, model = made
    again = load(model)
    assert same_weights(again, recommender) and not list(model.parent.rglob("*.ckpt"))
    assert again.recommend([["item 3", "item 9"]]).equals(recommender.recommend([["item 3", "item 9"]]))


@pytest.mark.parametrize(
    "settings",
    [[], ["decoding.name=refined"], ["decoding.name=catalogue_beam"], ["decoding.name=any_order_beam", "decoding.beam=8"]],
    ids=str,
)
def test_recommend_explain_and_evaluate(settings, made, monkeypatch, capsys, tmp_path):
    tables, model = made
    out = tmp_path / "recs.parquet"
    asked = ["recommend", model, *settings, *tables[:2], "--k", 5, "--out", out, "--quiet"]
    code, _, err = called(monkeypatch, capsys, *asked)
    assert code == 0, err
    assert pl.read_parquet(out).group_by("user_id").len()["len"].unique().to_list() == [5]
    code, shown, err = called(
        monkeypatch, capsys, "explain", model, *settings, "--history", "item 3", "--history", "item 9"
    )
    assert code == 0 and "digit" in shown.lower(), err
    figures = tmp_path / "metrics.json"
    code, _, err = called(monkeypatch, capsys, "evaluate", model, *settings, *tables, "--json", figures, "--quiet")
    assert code == 0 and "ndcg@10" in figures.read_text(), err


@pytest.mark.parametrize("decoder", ["one_pass", "refined"])
def test_explaining_what_is_filled_at_once(decoder, recommender):
    """All digits in one step, by the probability that the network gives each; the search is over before it begins."""
    asked = recommender.variant([f"decoding.name={decoder}"])
    history, n = ["item 3", "item 9"], recommender.semantic_ids.n_digits
    listed, rows = asked.recommend([history], k=3), asked.explain(history, k=3)
    assert rows["step"].unique().to_list() == [1] and rows.height == 3 * n
    assert rows.unique("item_id", maintain_order=True)["item_id"].to_list() == listed["item_id"].to_list()
    assert (rows["items_left"] == 1).all()
    if decoder == "one_pass":
        sums = rows.group_by("rank", maintain_order=True).agg(pl.col("confidence").log().sum())
        lift = recommender.item_counts[recommender.items.positions(listed["item_id"])] == 0
        assert sums["confidence"].to_numpy() + lift == pytest.approx(listed["score"].to_numpy(), abs=1e-3)
    assert asked.beams(history, k=3).height == 0
    order = asked.fill_order(asked.read_histories([history])[1])
    assert order[:, 0].tolist() == [1.0] * n


def test_similar_and_a_catalogue_that_changes(made, monkeypatch, capsys, tmp_path):
    model = Path(shutil.copytree(made[1], tmp_path / "model"))
    NEW.write_parquet(tmp_path / "new.parquet")
    NEW.with_columns(text=pl.Series(["a green cup", "a blue pan"])).write_parquet(tmp_path / "other.parquet")
    for command in (
        ["similar", model, "item 3", "--k", 4],
        ["items", "add", model, "--items", tmp_path / "new.parquet"],
        ["similar", model, "new 0", "--k", 4],
        ["items", "update", model, "--items", tmp_path / "other.parquet", "--semantic-ids", "move"],
        ["items", "remove", model, "new 1"],
        ["recommend", model, "--history", "new 0", "--history", "item 3", "--k", 3],
    ):
        code, _, err = called(monkeypatch, capsys, *command)
        assert code == 0, (command, err)
    changed, before = load(model), load(made[1])
    assert len(changed.items) == len(before.items) + 2 and not changed.recommendable[changed.items.positions(["new 1"])[0]]
    everything = changed.recommend([["item 3"]], k=len(changed.items) - 2)["item_id"]
    assert "new 0" in set(everything) and "new 1" not in set(everything)


@pytest.mark.parametrize("decoder", ["one_pass", "refined"])
def test_it_is_served(decoder, made, tmp_path):
    """With the settings that its decoder has, and a clear word on those that it has not."""
    pytest.importorskip("fastapi")
    from diffgrm.apps.serving.app import create_app
    from diffgrm.apps.serving.live import LiveModel
    from helpers.serving import client_of

    model = Path(shutil.copytree(made[1], tmp_path / "model"))
    token = {"Authorization": "Bearer a token for tests only"}
    app = create_app(LiveModel(model, overrides=[f"decoding.name={decoder}"]), token="a token for tests only")
    offline = load(model).variant([f"decoding.name={decoder}"])
    history = ["item 3", "item 9"]
    with client_of(app) as client:
        answer = client.post("/recommend", json={"histories": [history], "k": 4})
        assert answer.status_code == 200, answer.text
        items = [item["item_id"] for item in answer.json()["lists"][0]["items"]]
        assert items == offline.recommend([history], 4)["item_id"].to_list()
        told = client.get("/model").json()
        assert told["beam"] is None and told["candidates"] == (32 if decoder == "refined" else None) and told["explains"]
        refused = client.post("/recommend", json={"histories": [history], "beam": 8})
        assert refused.status_code == 422 and "beam" in refused.text
        wider = client.post("/recommend", json={"histories": [history], "candidates": 64})
        assert wider.status_code == (200 if decoder == "refined" else 422), wider.text
        explained = client.post("/explain", json={"history": history, "k": 2})
        assert explained.status_code == 200, explained.text
        assert [found["item_id"] for found in explained.json()["items"]] == items[:2]
        added = client.post("/items", json={"items": NEW.to_dicts()}, headers=token)
        assert added.status_code == 201, added.text
        assert client.post("/recommend", json={"histories": [["new 0"]], "k": 2}).status_code == 200


# ---- new items --------------------------------------------------------------------------------------------------------


def test_items_without_events_are_lifted_by_as_much_as_is_asked(recommender):
    """At once, from the same model, late items among them; nothing changes in the order of the others."""
    grown = recommender.add_items(NEW)
    plain, lifted = (
        grown.variant([f"decoding.new_items={lift}"]).recommend(
            [["item 0", "item 15"]], k=len(grown.items), exclude_seen=False
        )
        for lift in (0, 100)
    )
    without = grown.items.gather(np.flatnonzero(grown.item_counts == 0))
    assert set(NEW["item_id"]) < set(without) and set(lifted["item_id"].head(len(without))) == set(without)
    is_new = pl.col("item_id").is_in(without.implode())
    assert plain.filter(~is_new)["item_id"].equals(lifted.filter(~is_new)["item_id"])
    both = plain.join(lifted, on="item_id", suffix="_lifted").with_columns(gain=pl.col("score_lifted") - pl.col("score"))
    assert both.height == plain.height and np.allclose(
        both["gain"], np.where(both.select(is_new)["item_id"], 100, 0), atol=1e-3
    )
