from __future__ import annotations

import csv
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar

from diffgrm import DiffGRMRecommender, Recipe, leave_one_out, toy_world
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import MissingExtraError, RecipeError, TrainingError
from diffgrm.foundation.sections import TrainingSettings
from diffgrm.learning.loop import TrainingTask
from diffgrm.learning.machine import trainer_arguments
from diffgrm.learning.noising.full_mask import FullMaskNoising
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.learning.progress import EVERY
from diffgrm.ranking.item_table import ItemTable
from diffgrm.semantic_ids.catalogue_tables import CatalogueTables
from helpers.networks import learning_task, vectors
from helpers.recipes import small_recipe
from helpers.runs import killed_fit, same_weights

EPOCHS = ["training.epochs=4", "training.schedule=constant"]


def losses(run: Path) -> dict[int, float]:
    """Training loss of every logged step, over all parts of a run."""
    found = {}
    for path in sorted(run.glob("logs/part_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            if row.get("loss"):
                found[int(row["step"])] = float(row["loss"])
    return found


@pytest.fixture(scope="module")
def whole(toy, tiny_recipe, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    return DiffGRMRecommender(tiny_recipe.override(EPOCHS)).fit(toy, run_folder=run, progress=False), run


def test_training_learns_and_writes_logs_and_checkpoints(whole):
    recommender, run = whole
    steps = losses(run)
    assert min(steps.values()) < max(steps.values()) and len(steps) >= 3
    assert (run / "last.ckpt").is_file() and (run / "best.ckpt").is_file()
    assert set(recommender.facts["validation"]) == {"val_ndcg@10", "val_recall@10", "val_score"}


@pytest.mark.parametrize("end", [SystemExit(3), SystemExit("enough"), KeyboardInterrupt()], ids=repr)
def test_who_watches_may_end_it_as_they_like(end, toy, tiny_recipe):
    def watch(epoch, score):
        raise end

    with pytest.raises(type(end)) as found:
        DiffGRMRecommender(tiny_recipe.override(["training.epochs=1"])).fit(toy, watch=watch, progress=False)
    assert getattr(found.value, "code", None) == getattr(end, "code", None)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole, toy, tiny_recipe):
    again = DiffGRMRecommender(tiny_recipe.override(EPOCHS)).fit(toy, progress=False)
    assert same_weights(again, whole[0])
    other = DiffGRMRecommender(tiny_recipe.override([*EPOCHS, "seed=1", "training.epochs=1"])).fit(toy, progress=False)
    assert not same_weights(other, whole[0])


@pytest.mark.parametrize("validate_every", [1, 2])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(validate_every, toy, tmp_path, tiny_recipe):
    """A process is killed for good in its fourth epoch; the resumed run has the losses and weights of the whole one."""
    run = tmp_path / "run"
    settings = [*EPOCHS, f"training.validate_every={validate_every}"]
    whole = DiffGRMRecommender(tiny_recipe.override(settings)).fit(toy, run_folder=tmp_path / "whole", progress=False)
    killed_fit(tiny_recipe.override(settings), run, epoch=3, step=3)
    resumed = DiffGRMRecommender(tiny_recipe.override(settings)).fit(
        toy_world(users=120, seed=1).dataset, run_folder=run, resume=True, progress=False
    )
    wanted, found = losses(tmp_path / "whole"), losses(run)
    later = [s for s in wanted if s >= max(wanted) // 2]
    assert later and all(found[s] == wanted[s] for s in later)
    assert same_weights(resumed, whole)
    earlier = torch.load(run / "last.ckpt", weights_only=False)["seconds"]
    assert 0 < round(earlier, 1) <= resumed.facts["fit_seconds"]  # which is rounded too


def test_a_run_folder_in_use_and_one_without_a_checkpoint_are_refused(whole, toy, tiny_recipe, tmp_path):
    with pytest.raises(TrainingError, match=r"already holds a run; resume it \(--resume; in Python: resume=True\)"):
        DiffGRMRecommender(tiny_recipe).fit(toy, run_folder=whole[1], progress=False)
    with pytest.raises(TrainingError, match="cannot resume: there is no checkpoint"):
        DiffGRMRecommender(tiny_recipe).fit(toy, run_folder=tmp_path, resume=True, progress=False)


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(toy, tiny_recipe, tmp_path, monkeypatch):
    original = DiffusionObjective.loss

    epochs = []
    monkeypatch.setattr(TrainingTask, "on_train_epoch_start", lambda task: epochs.append(task.current_epoch))

    def failing(self, batch, generator, context):
        loss = original(self, batch, generator, context)
        return loss * torch.nan if epochs[-1] == 2 else loss

    monkeypatch.setattr(DiffusionObjective, "loss", failing)
    with pytest.raises(
        TrainingError, match=r"the loss became nan at step \d+ \(epoch 2\).*last good checkpoint is kept"
    ) as error:
        DiffGRMRecommender(tiny_recipe.override(EPOCHS)).fit(toy, run_folder=tmp_path / "run", progress=False)
    assert "Lower training.learning_rate" in str(error.value)
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)
    assert kept["epoch"] == 1
    assert all(torch.isfinite(w).all() for w in kept["state_dict"].values())


def test_training_stops_early_when_validation_no_longer_improves(toy, tiny_recipe, monkeypatch):
    monkeypatch.setattr("diffgrm.learning.loop.ndcg", lambda ranks, k: np.zeros(len(ranks)))
    monkeypatch.setattr("diffgrm.learning.loop.recall", lambda ranks, k: np.zeros(len(ranks)))
    recipe = tiny_recipe.override(["training.epochs=50", "training.patience=2"])
    assert DiffGRMRecommender(recipe).fit(toy, progress=False).facts["epochs"] <= 4


def test_the_weights_of_the_best_validation_are_kept(toy, tiny_recipe, tmp_path):
    recipe = tiny_recipe.override(["training.epochs=6", "training.learning_rate=0.05", "training.patience=20"])
    recommender = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path, progress=False)
    scores = [
        float(row["val_score"])
        for row in csv.DictReader(next(tmp_path.glob("logs/part_*/metrics.csv")).open())
        if row.get("val_score")
    ]
    assert recommender.facts["validation"]["val_score"] == pytest.approx(max(scores))


def task(steps=100, fingerprint="", **settings):
    training = TrainingSettings(**{"warmup_steps": 10, **settings})
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    objective = DiffusionObjective(learning_task(network, torch.zeros(1, 1), noising=FullMaskNoising()))
    return TrainingTask(objective, training, None, steps, 0, fingerprint)


def test_the_learning_rate_warms_up_and_follows_the_cosine_to_zero():
    factors = [task().learning_rate_factor(s) for s in range(101)]
    assert factors[0] == pytest.approx(1 / 11) and factors[10] == 1 and factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-9)
    assert task(schedule="constant").learning_rate_factor(99) == 1
    assert task(steps=5).learning_rate_factor(4) > 0  # a run shorter than its warm-up still trains


def test_weight_decay_is_for_matrices_only():
    groups = task().configure_optimizers()["optimizer"].param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.01), (3, 0.0)]


def test_logs_go_where_they_are_asked_for(toy, tiny_recipe, tmp_path):
    recipe = tiny_recipe.override(["training.loggers=[csv,tensorboard]", "training.epochs=1"])
    DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path, progress=False)
    assert list(tmp_path.glob("tensorboard/**/events.*")) and list(tmp_path.glob("logs/**/metrics.csv"))


def test_a_missing_logger_names_its_install_line(toy, tiny_recipe, monkeypatch):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("diffgrm.learning.progress.TensorBoardLogger", missing)
    recipe = tiny_recipe.override(["training.loggers=[tensorboard]"])
    with pytest.raises(MissingExtraError, match=r"pip install 'diffgrm\[tensorboard\]'"):
        DiffGRMRecommender(recipe).fit(toy, progress=False)


@pytest.mark.parametrize("noising", ["coherent", "random", "full_mask", "confidence"])
@pytest.mark.parametrize("reduction", ["view_mean", "token_mean"])
def test_every_schedule_and_reduction_trains(toy, tiny_recipe, noising, reduction):
    recipe = tiny_recipe.override([f"noising.name={noising}", f"objective.reduction={reduction}", "training.epochs=1"])
    assert DiffGRMRecommender(recipe).fit(toy, progress=False).facts["steps"] > 0


def test_two_processes_see_the_same_data_and_come_to_the_same_result(toy, tiny_recipe, tmp_path):
    """The command line on two CPU processes: one model folder, and validation as with one process, within noise."""
    toy.event_table().write_parquet(tmp_path / "i.parquet")
    toy.item_table.write_parquet(tmp_path / "t.parquet")
    settings = ["model.dropout=0", "training.accelerator=cpu", "training.epochs=2"]
    (tmp_path / "recipe.yaml").write_text(tiny_recipe.override(settings).to_yaml())
    files = ["--recipe", "recipe.yaml", "--interactions", "i.parquet", "--items", "t.parquet", "--out", "model"]
    command = [sys.executable, "-m", "diffgrm", "fit", *files, "--quiet", "training.devices=2", "training.strategy=ddp"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # each; else they fight for the cores
    done = subprocess.run(command, cwd=tmp_path, env=one_thread, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    one = DiffGRMRecommender(tiny_recipe.override(settings)).fit(toy, progress=False)
    two = DiffGRMRecommender.load(tmp_path / "model")
    assert one.facts["steps"] == two.facts["steps"] and one.facts["epochs"] == two.facts["epochs"]
    assert two.facts["validation"]["val_score"] == pytest.approx(one.facts["validation"]["val_score"], abs=0.02)
    # without dropout, the mean of the halves' gradients is the gradient of the whole batch, but for rounding
    for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert (a - b).abs().mean() < 0.01


def fit_on_two_nodes(folder: Path, *more: str) -> list[subprocess.Popen]:
    """The command line as two machines run it, here on one: processes that find each other over the network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    files = ["--recipe", "recipe.yaml", "--interactions", "i.parquet", "--items", "t.parquet", "--out", "model"]
    command = [
        sys.executable,
        "-m",
        "diffgrm",
        "fit",
        *files,
        "--quiet",
        "training.nodes=2",
        "training.strategy=ddp",
        *more,
    ]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [
        subprocess.Popen(command, cwd=folder, env=os.environ | meeting | {"NODE_RANK": str(n)}, **piped) for n in (0, 1)
    ]


def test_two_nodes_share_a_run_that_goes_on_after_one_of_them_was_killed(toy, tiny_recipe, tmp_path):
    toy.event_table().write_parquet(tmp_path / "i.parquet")
    toy.item_table.write_parquet(tmp_path / "t.parquet")
    settings = ["model.dropout=0", "training.accelerator=cpu", "training.epochs=6", "training.patience=9"]
    settings.append("training.ema_decay=0.5")
    (tmp_path / "recipe.yaml").write_text(tiny_recipe.override(settings).to_yaml())
    nodes = fit_on_two_nodes(tmp_path)
    last = tmp_path / "model.run" / "last.ckpt"
    while not last.exists() and nodes[0].poll() is None:
        time.sleep(0.05)
    nodes[1].kill()
    said = nodes[0].communicate(timeout=120)[0]
    assert nodes[0].returncode != 0 and not (tmp_path / "model").exists(), said
    nodes = fit_on_two_nodes(tmp_path, "--resume")
    said = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "Saved to model" in said[0] and "Saved to model" not in said[1]
    one = DiffGRMRecommender(tiny_recipe.override(settings)).fit(toy, progress=False)
    two = DiffGRMRecommender.load(tmp_path / "model")
    assert one.facts["steps"] == two.facts["steps"] and one.facts["epochs"] == two.facts["epochs"]
    assert two.facts["validation"]["val_score"] == pytest.approx(one.facts["validation"]["val_score"], abs=0.02)
    for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert (a - b).abs().mean() < 0.01


def test_processes_that_learnt_different_semantic_ids_do_not_train_together(monkeypatch):
    mine = task(fingerprint="ab" * 32)
    monkeypatch.setattr(TrainingTask, "all_gather", lambda self, tensor: torch.stack([tensor, tensor]))
    mine.on_fit_start()
    monkeypatch.setattr(TrainingTask, "all_gather", lambda self, tensor: torch.stack([tensor, tensor + 1]))
    with pytest.raises(TrainingError, match="the processes have learnt different semantic IDs, or were given different"):
        mine.on_fit_start()


def test_a_run_is_not_resumed_with_other_data_or_settings(whole, toy, tiny_recipe, tmp_path):
    import shutil

    run = shutil.copytree(whole[1], tmp_path / "run")
    for change in (
        ["seed=5"],
        ["tokenizer.iterations=2"],
        ["training.learning_rate=0.02"],
        ["noising.order=most"],
        ["model.dropout=0.4"],
    ):
        other = DiffGRMRecommender(tiny_recipe.override([*EPOCHS, *change]))
        with pytest.raises(TrainingError, match="the checkpoint belongs to other data, semantic IDs or training settings"):
            other.fit(toy, run_folder=run, resume=True, progress=False)


def test_a_decoder_that_cannot_work_is_refused_before_training(toy, tiny_recipe, monkeypatch):
    monkeypatch.setattr("diffgrm.recommenders.trained_network.train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(RecipeError, match=r"decoding\.steps 9 is more than the 3 digits"):
        DiffGRMRecommender(tiny_recipe.override(["decoding.steps=9"])).fit(toy)


@pytest.mark.parametrize(("name", "by_items"), [("diffgrm", False), ("hybrid", True)])
def test_the_catalogue_is_built_once_and_item_vectors_once_a_validation(name, by_items, toy, monkeypatch):
    """The tables serve the whole training; weights differ from one validation to the next, and so do vectors."""
    built, made, validations = [], [], []
    tables, vectors = CatalogueTables.__init__, ItemTable.vectors.func
    validate = TrainingTask.validation_step

    def build(self, *args):
        built.append(self)
        tables(self, *args)

    def make(self):
        made.append(self)
        return vectors(self)

    def validated(self, *args):
        validations.append(self.current_epoch)
        validate(self, *args)

    monkeypatch.setattr(CatalogueTables, "__init__", build)
    monkeypatch.setattr(ItemTable.vectors, "func", make)
    monkeypatch.setattr(TrainingTask, "validation_step", validated)
    recipe = small_recipe(name).override(["training.epochs=3", "training.patience=9"])
    recommender = resolve("recommender", name)(recipe).fit(toy, progress=False)
    assert validations == [0, 1, 2] and len(built) == 1 and len(made) == 3 * by_items
    recommender.recommend([["item 3"]], k=3)
    recommender.variant(["decoding.name=any_order_beam"]).recommend([["item 3"]], k=3)
    assert len(built) == 2 and len(made) == 4 * by_items


def test_digits_may_be_learnt_beside_items_that_rank_alone(toy):
    recipe = small_recipe("sid_sasrec").override(["training.epochs=1", "objective=joint", "model.name=diffgrm"])
    fitted = resolve("recommender", "sid_sasrec")(recipe).fit(toy, progress=False)
    assert fitted.recommend([["item 3"]], k=3).height == 3 and fitted.facts["epochs"] == 1


def test_what_is_learnt_travels_to_other_processes(toy, tiny_recipe, monkeypatch):
    """Strategies that spawn processes pickle the task."""
    seen = []

    def pickled(objective, **rest):
        seen.append(pickle.loads(pickle.dumps(objective)))
        raise TrainingError("enough")

    monkeypatch.setattr("diffgrm.recommenders.trained_network.train", pickled)
    with pytest.raises(TrainingError, match="enough"):
        DiffGRMRecommender(tiny_recipe).fit(toy, progress=False)
    assert seen[0].ranking().network is seen[0].network


def test_several_devices_need_a_common_run_folder(toy, tiny_recipe):
    with pytest.raises(TrainingError, match="several devices need a folder that all of them see: pass run_folder="):
        DiffGRMRecommender(tiny_recipe.override(["training.devices=2"])).fit(toy)


def test_every_epoch_has_an_order_of_its_own(toy, tiny_recipe, monkeypatch):
    seen = []
    step = TrainingTask.training_step

    def recording(self, batch, index):
        seen.append((self.current_epoch, tuple(batch.target.tolist())))
        return step(self, batch, index)

    monkeypatch.setattr(TrainingTask, "training_step", recording)
    DiffGRMRecommender(tiny_recipe.override(["training.epochs=2"])).fit(toy, progress=False)
    first, second = ({targets for epoch, targets in seen if epoch == e} for e in (0, 1))
    assert first and not first & second
    assert sorted(t for row in first for t in row) == sorted(t for row in second for t in row)


def test_the_difficulty_of_every_digit_is_logged(whole):
    recommender, run = whole
    rows = list(csv.DictReader(next(run.glob("logs/part_*/metrics.csv")).open()))
    for digit in range(recommender.semantic_ids.n_digits):
        values = [float(row[f"val_digit_{digit}_nll"]) for row in rows if row.get(f"val_digit_{digit}_nll")]
        assert len(values) == 4 and all(0 < v < 10 for v in values)


def test_the_logged_difficulty_is_the_loss_of_the_fully_masked_target(whole, toy):
    recommender, _ = whole
    sids, split = recommender.semantic_ids, leave_one_out(toy)
    codes = torch.from_numpy(sids.codes.astype(np.int64))
    objective = DiffusionObjective(learning_task(recommender.network, codes, noising=FullMaskNoising()))
    found = objective.observe(recommender.ranker(), split.validation)
    total = torch.zeros(sids.n_digits)
    for user in range(len(split.validation)):
        history = torch.from_numpy(split.validation.histories[user][-recommender.network.max_len :])
        valid = torch.ones(1, len(history), dtype=torch.bool)
        memory = recommender.network.encode_history(
            vectors(recommender.network, codes[history]), torch.arange(len(history))[None], valid
        )
        hidden = torch.ones(1, 1, sids.n_digits, dtype=torch.bool)
        log_p = recommender.network.denoise(hidden.long(), hidden, memory)[0, 0].log_softmax(-1)
        target = codes[split.validation.targets[user][0]]
        total -= log_p.gather(1, target[:, None])[:, 0].detach()
    wanted = (total / len(split.validation)).tolist()
    assert list(found.values()) == pytest.approx(wanted, abs=1e-3)


def test_a_causal_encoder_trains_on_shared_histories(toy, tiny_recipe, tmp_path):
    recipe = tiny_recipe.override(["model.history=causal", "training.epochs=2"])
    recommender = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path, progress=False)
    assert recommender.network.causal and len(recommender.recommend(users=["user 0"], k=3)) == 3
    rows = list(csv.DictReader(next(tmp_path.glob("logs/part_*/metrics.csv")).open()))
    first, second = (float(row["train_loss"]) for row in rows if row.get("train_loss"))
    assert second < first
    with pytest.raises(TrainingError, match="cannot resume"):
        DiffGRMRecommender(recipe.override(["model.history=bidirectional"])).fit(
            toy, run_folder=tmp_path, resume=True, progress=False
        )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"decoding": "left_to_right"}, "'diffgrm' lacks .* decoding 'left_to_right' needs next_digit"),
        ({"objective": "next_item", "recommender": "diffgrm"}, "'any_order_beam' ranks by what Denoises .* does not teach"),
        ({"objective": "diffusion"}, "'item_proposals' ranks by what ScoresItems .* 'diffusion' does not teach"),
        (
            {"recommender": "sasrec", "model": {"name": "diffgrm", "branches": ["id"]}},
            "the model 'diffgrm' needs n_digits, codebook_size, which the recommender 'sasrec' does not have",
        ),
        ({"model": "sasrec"}, "'sasrec' lacks .* objective 'diffusion' needs denoise"),
        (
            {"recommender": "autoregressive", "decoding": "any_order_beam"},
            "lacks .* 'any_order_beam' needs denoise",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused_before_anything_is_made(raw, text, toy):
    recipe = Recipe.from_dict(raw)
    with pytest.raises(RecipeError, match=text):
        resolve("recommender", recipe.recommender)(recipe).fit(toy)


def test_without_a_gpu_of_cuda_training_takes_the_processor(tiny_recipe):
    assert not torch.cuda.is_available() or pytest.skip("there is one")
    assert trainer_arguments(tiny_recipe.training)["accelerator"] == "cpu"  # and not Apple's GPUs, which lack 64 bits
    asked = tiny_recipe.override(["training.accelerator=gpu"]).training
    assert trainer_arguments(asked)["accelerator"] == "gpu"


def test_the_progress_bar_looks_at_the_figures_every_few_steps_only(toy, tiny_recipe, monkeypatch):
    looks, look = [], RichProgressBar._update_metrics

    def counted(bar, trainer, *more):
        looks.append((trainer.global_step, trainer.training))
        look(bar, trainer, *more)

    monkeypatch.setattr(RichProgressBar, "_update_metrics", counted)
    DiffGRMRecommender(tiny_recipe.override(["training.epochs=2", "training.batch_size=16"])).fit(toy)
    steps = {step for step, training in looks if training}
    assert steps and all(step % EVERY == 0 for step in steps)
