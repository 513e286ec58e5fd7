"""The machine that training runs on: its devices and precision, as Lightning is told of them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.utilities import rank_zero_only

from diffgrm.foundation.schema import TrainingError
from diffgrm.foundation.sections import TrainingSettings


def check_devices(settings: TrainingSettings) -> None:
    """Make sure that this machine has the devices that the settings name, before anything is learnt for them.

    Raises:
        TrainingError: it has not, or nobody knows an accelerator or a strategy of that name.
    """
    asked = f"training.accelerator={settings.accelerator}, devices={settings.devices}, strategy={settings.strategy}"
    asked += f", nodes={settings.nodes}" if settings.nodes > 1 else ""
    cores = os.cpu_count() or 1
    try:
        with quiet_lightning():
            trainer = L.Trainer(**trainer_arguments(settings), logger=False, barebones=True)
        if isinstance(trainer.accelerator, CPUAccelerator) and settings.devices > cores:
            raise ValueError(f"{settings.devices} processes are more than the {cores} cores of its processor")
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError, AssertionError) as error:
        raise TrainingError(
            f"this machine cannot train with {asked}: {' '.join(str(error).split())}. Leave the three out, or set "
            "training.accelerator=cpu"
        ) from error


def trainer_arguments(settings: TrainingSettings) -> dict[str, Any]:
    """What a trainer is told of the machine."""
    accelerator = settings.accelerator
    if accelerator == "auto":  # CUDA or the processor, as in use; Apple's GPUs, which Lightning would take, lack 64 bits
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    asked = {"accelerator": accelerator, "devices": settings.devices, "strategy": settings.strategy}
    return {**asked, "num_nodes": settings.nodes, "precision": _precision(settings)}


def is_first_process() -> bool:
    """Whether this process saves and shows what several have learnt together."""
    rank: int = getattr(rank_zero_only, "rank", 0)  # Lightning's own count, over all machines
    return rank == 0


def _precision(settings: TrainingSettings) -> Any:
    if settings.precision == "bf16":
        return "bf16-mixed"
    gpu = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    gpu = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if settings.precision == "auto" and gpu else "32-true"


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's advice on data loaders and devices, which does not apply here."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for name in names:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
