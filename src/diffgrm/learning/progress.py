"""What a training shows while it runs, and what it writes down for later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomTimeColumn
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.progress import TimeElapsedColumn, TimeRemainingColumn

from diffgrm.foundation.schema import MissingExtraError
from diffgrm.foundation.sections import TrainingSettings

EVERY = 20  # steps between two looks at the figures it shows


class ProgressBar(RichProgressBar):
    """Lightning's own without its dot between times, which ends a run where the terminal has ASCII only.

    Figures are looked at every few steps only: to look is to wait for a GPU.
    """

    def _update_metrics(self, trainer: L.Trainer, *more: Any, **named: Any) -> None:
        if trainer.global_step % EVERY == 0 or not trainer.training:
            super()._update_metrics(trainer, *more, **named)

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """What the bar shows."""
        kept = [column for column in super().configure_columns(trainer) if not isinstance(column, CustomTimeColumn)]
        return [*kept, TimeElapsedColumn(), TimeRemainingColumn()]


def loggers(settings: TrainingSettings, folder: Path) -> list[Logger]:
    """The loggers that the settings name, each of which writes into the run folder.

    Raises:
        MissingExtraError: the package of one is not installed.
    """
    found: list[Logger] = []
    part = f"part_{len(list(folder.glob('logs/part_*')))}"  # a resumed run goes on in a new part
    if "csv" in settings.loggers:
        found.append(CSVLogger(folder, name="logs", version=part))
    if "tensorboard" in settings.loggers:
        try:
            found.append(TensorBoardLogger(str(folder), name="tensorboard", version=part))
        except ModuleNotFoundError as error:
            raise MissingExtraError("tensorboard", "tensorboard", "training.loggers=[tensorboard]") from error
    return found
