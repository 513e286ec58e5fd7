"""Lightning's trainer as the training loop needs it: checkpoints, early stop, averaging."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from diffgrm.foundation.run_folder import BEST, LAST
from diffgrm.foundation.sections import TrainingSettings
from diffgrm.learning.averaging import WeightAveraging
from diffgrm.learning.heap import HeapTrimming
from diffgrm.learning.machine import trainer_arguments
from diffgrm.learning.progress import ProgressBar, loggers

MONITOR = "val_score"


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
        logger=loggers(settings, run_folder),
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        use_distributed_sampler=False,
    )
