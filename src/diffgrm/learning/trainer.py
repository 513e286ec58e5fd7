"""Lightning's trainer as the training loop needs it: checkpoints, early stop, logs, progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomTimeColumn
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.progress import TimeElapsedColumn, TimeRemainingColumn

from diffgrm.foundation.run_folder import BEST, LAST
from diffgrm.foundation.schema import MissingExtraError
from diffgrm.foundation.sections import TrainingSettings
from diffgrm.learning.averaging import WeightAveraging
from diffgrm.learning.machine import trainer_arguments

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
        EarlyStopping(MONITOR, mode="max", patience=settings.patience, check_finite=False),
        ModelCheckpoint(run_folder, filename=best, monitor=MONITOR, mode="max", enable_version_counter=False),
        ModelCheckpoint(run_folder, filename=last, enable_version_counter=False),
    ]
    if settings.ema_decay:
        callbacks.append(WeightAveraging(settings.ema_decay))
    if progress:
        callbacks.append(_ProgressBar(leave=False))
    return L.Trainer(
        **trainer_arguments(settings),
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        check_val_every_n_epoch=settings.validate_every,
        callbacks=callbacks,
        logger=_loggers(settings, run_folder),
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        use_distributed_sampler=False,
    )


class _ProgressBar(RichProgressBar):
    """Lightning's own without its dot between times, which ends a run where the terminal has ASCII only."""

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """What the bar shows."""
        kept = [column for column in super().configure_columns(trainer) if not isinstance(column, CustomTimeColumn)]
        return [*kept, TimeElapsedColumn(), TimeRemainingColumn()]


def _loggers(settings: TrainingSettings, folder: Path) -> list[Logger]:
    loggers: list[Logger] = []
    part = f"part_{len(list(folder.glob('logs/part_*')))}"  # a resumed run goes on in a new part
    if "csv" in settings.loggers:
        loggers.append(CSVLogger(folder, name="logs", version=part))
    if "tensorboard" in settings.loggers:
        try:
            loggers.append(TensorBoardLogger(str(folder), name="tensorboard", version=part))
        except ModuleNotFoundError as error:
            raise MissingExtraError("tensorboard", "tensorboard", "training.loggers=[tensorboard]") from error
    return loggers
