"""Checkpoints are whole, old or new, whenever a process was killed or a disk was full."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack

import pytest
import torch

from diffgrm import SASRecRecommender
from diffgrm.foundation.schema import TrainingError
from helpers.folders import full_disk
from helpers.recipes import small_recipe
from helpers.runs import same_weights


def test_a_full_disk_leaves_the_checkpoint_from_which_the_run_goes_on(toy, tmp_path):
    recipe = small_recipe("sasrec").override(["training.epochs=3", "training.patience=9"])
    run, wanted = tmp_path / "run", r"ckpt could not be written: .*is whole.*, or resume where a checkpoint is left in it"
    with ExitStack() as disk, pytest.raises(TrainingError, match=wanted):

        def watch(epoch, score):
            if epoch == 1:
                disk.enter_context(full_disk(5000))

        SASRecRecommender(recipe).fit(toy, run_folder=run, progress=False, watch=watch)
    assert torch.load(run / "last.ckpt", weights_only=True)["epoch"] == 0
    assert sorted(path.name for path in run.iterdir()) == ["best.ckpt", "fit.lock", "last.ckpt", "logs"]
    (run / ".last.ckpt.77.tmp").write_text("half of it, of a process that was killed")
    resumed = SASRecRecommender(recipe).fit(toy, run_folder=run, resume=True, progress=False)
    assert same_weights(resumed, SASRecRecommender(recipe).fit(toy, progress=False))
    assert not list(run.glob(".*"))


def test_checkpoints_do_not_go_through_the_folder_of_temporary_files(toy, tmp_path, monkeypatch):
    """That may be another disk, from which a file is copied over the one before, not put in its place."""
    run = tmp_path / "run"
    run.mkdir()
    made = tempfile.mkstemp

    def beside(*arguments, dir=None, **named):
        assert dir is not None, "a temporary file that lies anywhere"
        return made(*arguments, dir=dir, **named)

    monkeypatch.setattr(tempfile, "mkstemp", beside)
    SASRecRecommender(small_recipe("sasrec")).fit(toy, run_folder=run, progress=False)
    assert (run / "last.ckpt").is_file() and (run / "best.ckpt").is_file()
