"""The moving average of weights, against one that is written out; what validates, what is kept, and runs that go on."""

from __future__ import annotations

import copy
import csv

import pytest
import torch

from diffgrm import DiffGRMRecommender, Recipe, toy_world
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.averaging import WeightAveraging
from diffgrm.learning.loop import TrainingTask
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from helpers.runs import killed_fit, same_weights

DECAY = 0.8
SETTINGS = ["training.epochs=4", "training.schedule=constant", f"training.ema_decay={DECAY}", "training.patience=9"]


def weights(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def alike(a, b, tolerance=1e-6):
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=tolerance) for name in a)


def test_the_average_is_validated_kept_and_saved_while_training_goes_on_from_the_weights(
    toy, tiny_recipe, tmp_path, monkeypatch
):
    steps, validated, losses = [], [], []
    step, validate, loss = WeightAveraging.on_train_batch_end, TrainingTask.validation_step, DiffusionObjective.loss

    def stepped(self, trainer, task, *rest):
        step(self, trainer, task, *rest)
        steps.append(weights(task.objective.network))

    def validating(self, *rest):
        validated.append((len(steps), weights(self.objective.network)))
        validate(self, *rest)

    def recorded(self, *rest):
        losses.append(loss(self, *rest))
        return losses[-1]

    monkeypatch.setattr(WeightAveraging, "on_train_batch_end", stepped)
    monkeypatch.setattr(TrainingTask, "validation_step", validating)
    monkeypatch.setattr(DiffusionObjective, "loss", recorded)
    made = DiffGRMRecommender(tiny_recipe.override(SETTINGS)).fit(toy, run_folder=tmp_path / "run", progress=False)

    average, written_out = copy.deepcopy(steps[0]), {}
    for number, now in enumerate(steps, start=1):
        average = {name: DECAY * average[name] + (1 - DECAY) * now[name] for name in now} if number > 1 else average
        written_out[number] = average
    assert len(validated) == 4 and all(alike(found, written_out[number]) for number, found in validated)
    assert not alike(validated[-1][1], steps[-1], 1e-3)
    logged = csv.DictReader(next(tmp_path.glob("run/logs/part_*/metrics.csv")).open())
    scores = [float(row["val_score"]) for row in logged if row.get("val_score")]
    best = validated[scores.index(max(scores))][1]
    assert alike(weights(made.network), best, 0)
    assert alike(weights(DiffGRMRecommender.load(made.save(tmp_path / "model")).network), best, 0)

    with_average, losses[:] = [value.item() for value in losses], []
    plain = tiny_recipe.override([*SETTINGS, "training.ema_decay=0"])
    DiffGRMRecommender(plain).fit(toy, progress=False)
    assert [value.item() for value in losses] == with_average


def test_a_killed_run_goes_on_with_its_average(toy, tiny_recipe, tmp_path):
    recipe = tiny_recipe.override([*SETTINGS, "training.precision=bf16"])  # the average is of 32 bits all the same
    whole = DiffGRMRecommender(recipe).fit(toy, progress=False)
    killed_fit(recipe, tmp_path / "run", epoch=3, step=3)
    resumed = DiffGRMRecommender(recipe).fit(
        toy_world(users=120, seed=1).dataset, run_folder=tmp_path / "run", resume=True, progress=False
    )
    assert same_weights(resumed, whole) and resumed.facts["validation"] == whole.facts["validation"]
    assert all(value.dtype == torch.float32 for value in whole.network.state_dict().values())


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_weights_that_no_process_holds_whole_are_not_averaged(strategy):
    message = rf"ema_decay = 0.9 averages weights that .* holds whole, but training.strategy {strategy} .*; choose ddp"
    with pytest.raises(RecipeError, match=message):
        Recipe(training={"ema_decay": 0.9, "strategy": strategy})
