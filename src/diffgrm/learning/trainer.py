"""Lightning's trainer as the training loop needs it: checkpoints, early stop, averaging."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from diffgrm.foundation.run_folder import BEST, LAST
from diffgrm.foundation.sections import TrainingSettings
from diffgrm.foundation.storage import atomic_file
from diffgrm.learning.averaging import WeightAveraging
from diffgrm.learning.heap import HeapTrimming
from diffgrm.learning.machine import trainer_arguments
from diffgrm.learning.progress import ProgressBar, loggers

MONITOR = "val_score"


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that a kill or a full disk leaves whole, old or new; Lightning's own copies over the old one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint beside its place, and let it take the place once it is on the disk.

        Raises:
            OutputError: the disk is full, say.
        """
        content = io.BytesIO()  # of a file, torch.save does not tell what the disk says
        torch.save(checkpoint, content)
        with atomic_file(Path(path)) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


def make_trainer(settings: TrainingSettings, run_folder: Path, progress: bool) -> L.Trainer:
    """A trainer whose checkpoints and logs go to a run folder.

    Args:
        progress: show a progress bar.

    Raises:
        MissingExtraError: a logger whose package is not installed.
    """
    # Two, since Lightning's save_last leaves out the validations that were not the best so far.
    best, last = (name.removesuffix(".ckpt") for name in (BEST, LAST))
    callbacks: list[Callback] = [
        HeapTrimming(),
        EarlyStopping(MONITOR, mode="max", patience=settings.patience, check_finite=False),
        ModelCheckpoint(run_folder, filename=best, monitor=MONITOR, mode="max", enable_version_counter=False),
        ModelCheckpoint(run_folder, filename=last, enable_version_counter=False),
    ]
    if settings.ema_decay:
        callbacks.append(WeightAveraging(settings.ema_decay))
    if progress:
        callbacks.append(ProgressBar(leave=False))
    return L.Trainer(
        **trainer_arguments(settings),
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        check_val_every_n_epoch=settings.validate_every,
        callbacks=callbacks,
        plugins=WholeCheckpoints(),
        logger=loggers(settings, run_folder),
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        use_distributed_sampler=False,
    )
