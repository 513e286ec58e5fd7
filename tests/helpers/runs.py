"""Training runs: one that is killed for good, and whether two ended alike."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import torch

from diffgrm import Recipe


def killed_fit(recipe: Recipe, run: Path, epoch: int, step: int) -> None:
    """Fit on the data of the fixture ``toy`` in a process of its own, which dies at a step of an epoch."""
    code = f"""
        import os, signal, sys, torch
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        torch.set_num_threads(1)
        from diffgrm import DiffGRMRecommender, Recipe, toy_world
        from diffgrm.learning.loop import TrainingTask
        whole = TrainingTask.training_step
        def dying(self, batch, index):
            if self.current_epoch == {epoch} and index == {step}:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(self, batch, index)
        TrainingTask.training_step = dying
        recipe = Recipe.from_dict({recipe.to_dict()!r})
        DiffGRMRecommender(recipe).fit(toy_world(users=120, seed=1).dataset, run_folder={str(run)!r}, progress=False)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


def same_weights(a, b) -> bool:
    """Of the networks of two recommenders."""
    mine, other = a.network.state_dict(), b.network.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)
