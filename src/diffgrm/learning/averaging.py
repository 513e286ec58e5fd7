"""An exponential moving average of the weights: what is validated, kept and used in their place."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

AVERAGE = "average"  # of a checkpoint
WHOLE = "module."  # before the names of weights in it


class WeightAveraging(Callback):
    """After every step the average moves to the weights by a share of 1 - decay; it begins at those of the first step.

    Training goes on from the weights themselves, so that its losses are those without an average. Lightning's callback of
    that name would average the whole task, of which the features of all items are part; this one does its network.

    Args:
        decay: what of the average is kept at a step.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._average: AveragedModel | None = None

    @property
    def average(self) -> AveragedModel:
        """A copy of the network that holds the average; there once training has been set up."""
        assert self._average is not None
        return self._average

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Before a checkpoint is read."""
        self._average = AveragedModel(network_of(pl_module), multi_avg_fn=get_ema_multi_avg_fn(self.decay))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The network has come to its device by now."""
        self.average.to(pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *step: Any) -> None:
        """A batch is a step."""
        self.average.update_parameters(network_of(pl_module))

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the average."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on from the weights."""
        self._swap(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """The average lies beside the weights that training goes on from."""
        checkpoint[AVERAGE] = self.average.state_dict()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with both."""
        self.average.load_state_dict(checkpoint[AVERAGE])

    @torch.no_grad()
    def _swap(self, task: L.LightningModule) -> None:
        for averaged, weight in zip(self.average.module.parameters(), network_of(task).parameters(), strict=True):
            held = averaged.clone()
            averaged.copy_(weight)
            weight.copy_(held)


def network_of(task: L.LightningModule) -> nn.Module:
    """The network that a task trains."""
    return task.get_submodule("objective.network")


def validated_weights(checkpoint: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """The network's weights of a checkpoint as they were validated: the average, where there is one.

    Args:
        prefix: of the names of weights that training goes on from.
    """
    average = checkpoint.get(AVERAGE)
    weights, prefix = (checkpoint["state_dict"], prefix) if average is None else (average, WHOLE)
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
