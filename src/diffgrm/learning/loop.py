"""The one training loop, on Lightning: checkpoints, exact resume, early stop, several devices."""

from __future__ import annotations

import logging
import math
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader

from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.evaluation.metrics import ndcg, ranks_in_lists, recall, selection_score
from diffgrm.foundation.outputs import check_writable
from diffgrm.foundation.run_folder import BEST, LAST, check_idle_folder, drop_left_overs, holds_checkpoint
from diffgrm.foundation.schema import DiffGRMError, OutputError, TrainingError
from diffgrm.foundation.sections import TrainingSettings
from diffgrm.foundation.storage import digest
from diffgrm.learning.averaging import validated_weights
from diffgrm.learning.batches import Batch, TrainingBatches
from diffgrm.learning.context import LearningContext
from diffgrm.learning.machine import quiet_lightning
from diffgrm.learning.objectives.base import Objective
from diffgrm.learning.row_updates import RowAdamW, choose_updates, clip_gradients
from diffgrm.learning.trainer import MONITOR, make_trainer
from diffgrm.networks.blocks import unrounded

logger = logging.getLogger(__name__)

CHECK_EVERY = 20  # steps between two looks at the losses on a GPU


@dataclass(frozen=True)
class TrainingResult:
    """What training led to.

    Attributes:
        best_score: 0.8 NDCG@10 + 0.2 Recall@10 on validation, of the weights the network now has.
        epochs, steps: how far training went.
        earlier_seconds: what it took before it was resumed, up to the checkpoint; 0 if it was not.
        validation: the metrics of the best epoch.
        before: the metrics of the weights as they came, where those count too; None: they do not.
    """

    best_score: float
    epochs: int
    steps: int
    validation: dict[str, float]
    earlier_seconds: float
    before: dict[str, float] | None = None


class TrainingTask(L.LightningModule):
    """Optimiser steps, validations and checkpoints of an objective.

    Args:
        steps: planned optimiser steps, where the cosine ends; watch, going_on: see :func:`train`.
        fingerprint: of everything that determines the losses; a checkpoint of another one is refused.
    """

    def __init__(
        self,
        objective: Objective,
        settings: TrainingSettings,
        validation: EvaluationSet,
        steps: int,
        seed: int,
        fingerprint: str = "",
        watch: Callable[[int, float], None] | None = None,
        going_on: bool = False,
    ) -> None:
        super().__init__()
        self.objective, self.settings, self.validation = objective, settings, validation
        self.steps, self.seed, self.fingerprint, self.watch = steps, seed, fingerprint, watch
        self.going_on = going_on
        self.losses: list[tuple[int, Tensor]] = []  # step and loss, of this epoch
        self.checked = 0  # losses that are known to be finite
        self.latest: dict[str, float] = {}
        self.started, self.earlier_seconds = time.perf_counter(), 0.0

    def on_fit_start(self) -> None:
        """Stop if processes are about to train on different semantic IDs, data or settings.

        Each learns semantic IDs for itself, and processors of different makes may round differently.
        """
        mine = torch.tensor([int(self.fingerprint[:12] or "0", 16)], device=self.device)
        gathered: Any = self.all_gather(mine)
        if (gathered != mine).any():
            raise TrainingError(
                "the processes have learnt different semantic IDs, or were given different tables or settings; let all "
                "machines read the same files, and the same cache (DIFFGRM_CACHE=a folder that all of them see)"
            )

    # ---- training -----------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of one batch. All randomness comes from (seed, step, rank), so a resumed run repeats itself."""
        with seeded(self.seed, self.global_step, self.global_rank, self.device) as generator:
            loss = self.objective.loss(batch, generator, self.context)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        self.losses.append((self.global_step, loss.detach()))
        if self.device.type == "cpu" or len(self.losses) - self.checked >= CHECK_EVERY:
            self._check_losses()
        return loss

    @property
    def context(self) -> LearningContext:
        """How far training is."""
        return LearningContext(self.global_step, self.steps, self.current_epoch, self.settings.epochs, self.going_on)

    def _check_losses(self) -> None:
        """Stop if a loss is not a number. To look is to wait for the device, so GPUs are asked every few steps only."""
        new = self.losses[self.checked :]
        if new and not torch.isfinite(torch.stack([loss for _, loss in new])).all():
            step, loss = next((step, loss) for step, loss in new if not torch.isfinite(loss))
            raise TrainingError(
                f"the loss became {loss.item()} at step {step} (epoch {self.current_epoch}); training stopped "
                "and the last good checkpoint is kept. Lower training.learning_rate, lengthen training.warmup_steps or "
                "set training.precision=32"
            )
        self.checked = len(self.losses)

    def on_validation_start(self) -> None:
        """No checkpoint is written of weights that followed a loss that is not a number."""
        self._check_losses()

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch, unless a run resumes at its very end."""
        if not self.losses:
            return
        self.log("train_loss", torch.stack([loss for _, loss in self.losses]).mean(), sync_dist=True)
        self.losses.clear()
        self.checked = 0

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up, then cosine or constant; weight decay on matrices only, tables of items as they are set."""
        choose_updates(self.objective.network, self.settings, self.objective.few_items)
        matrices = [p for p in self.objective.network.parameters() if p.ndim >= 2]
        others = [p for p in self.objective.network.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimiser = RowAdamW(groups, lr=self.settings.learning_rate, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, self.learning_rate_factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm. Lightning refuses to where AdamW is fused and the precision bf16, which needs no scaling."""
        if gradient_clip_val:
            clip_gradients((p for group in optimizer.param_groups for p in group["params"]), gradient_clip_val)

    def learning_rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step."""
        warmup = min(self.settings.warmup_steps, max(self.steps - 1, 0))
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.settings.schedule == "constant":
            return 1.0
        done = (step - warmup) / max(self.steps - warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    # ---- validation: each process ranks for its share of the users, then the sums are added up ---------------------

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Rank the validation users, by item, history filtered; in 32 bits, as in use, whatever training rounds to."""
        with unrounded(self.device):
            self._validate()

    def _validate(self) -> None:
        users = np.arange(self.global_rank, len(self.validation), self.trainer.world_size)
        ranking = self.objective.ranking()
        lists = ranking.top(self.validation.histories.rows(users), 10)
        ranks = ranks_in_lists(lists, self.validation.targets.rows(users))
        sums = torch.tensor([ndcg(ranks, 10).sum(), recall(ranks, 10).sum(), len(users)], dtype=torch.float64)
        gathered: Any = self.all_gather(sums.float().to(self.device))
        total = gathered.reshape(-1, 3).sum(0)
        ndcg_10, recall_10 = (total[:2] / total[2]).tolist()
        metrics = {"val_ndcg@10": ndcg_10, "val_recall@10": recall_10, MONITOR: selection_score(ndcg_10, recall_10)}
        self.log_dict(metrics, prog_bar=True, batch_size=1)
        self.log_dict(self.objective.observe(ranking, self.validation), batch_size=1, sync_dist=True)
        self.latest = metrics

    def on_validation_end(self) -> None:
        """Tell whoever watches."""
        if self.watch is not None:
            self.watch(self.current_epoch, self.latest[MONITOR])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the validation metrics of these weights with them, and what the run is about."""
        checkpoint["validation"] = self.latest
        checkpoint["seconds"] = self.earlier_seconds + time.perf_counter() - self.started
        checkpoint["fingerprint"] = self.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with other data, semantic IDs or settings than the run began with."""
        if checkpoint.get("fingerprint") != self.fingerprint:
            raise TrainingError(
                "cannot resume: the checkpoint belongs to other data, semantic IDs or training settings than these; resume "
                "with the recipe and tables the run began with, start in another run folder, or delete this one"
            )
        self.earlier_seconds = checkpoint.get("seconds", 0.0)


@contextmanager
def seeded(seed: int, step: int, rank: int, device: torch.device) -> Iterator[torch.Generator]:
    """Dropout and masks follow (seed, step, rank) inside the block; the global random state is put back after it."""
    for_dropout, for_masks = (np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint64) >> 1).tolist()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(for_dropout)  # torch.manual_seed looks for devices of all makes, every step
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(for_dropout)
        yield torch.Generator(device).manual_seed(for_masks)


def train(
    objective: Objective,
    *,
    events: Ragged,
    validation: EvaluationSet,
    max_len: int,
    settings: TrainingSettings,
    seed: int,
    run_folder: Path,
    network_settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
    watch: Callable[[int, float], None] | None = None,
    going_on: bool = False,
) -> TrainingResult:
    """Train an objective's network in place; it ends with the weights of the best validation.

    Args:
        events: training events per user, oldest first.
        max_len: most items of a history.
        run_folder: gets ``last.ckpt`` and ``best.ckpt`` after every validation, and the logs.
        network_settings: with which the network was made; a run does not go on with others, of which its weights' shapes
            may say nothing (dropout, temperatures).
        resume: go on from ``last.ckpt``; the losses are those of a run that was never interrupted. Where only what is
            trained before the network has a checkpoint (in a folder below), the network's training begins.
        progress: show a progress bar.
        watch: told the epoch and the score of every validation; what it raises ends the training.
        going_on: the weights come from a fit: what changes under way is at its end, and the weights as they come count as
            an epoch: they are validated too, and stay where none is better.

    Raises:
        TrainingError: the loss is not finite, a run folder that is in use, or nothing to resume from.
        MissingExtraError: a logger whose package is not installed.
    """
    if resume or not run_folder.is_dir() or (run_folder / LAST).is_file():  # what was trained before it may lie there
        check_run_folder(run_folder, resume, going_on)
    run_folder.mkdir(parents=True, exist_ok=True)
    drop_left_overs(run_folder)
    validation = validation.sample(settings.validation_users, seed)
    data = _Data(events, max_len, settings, seed, objective)
    kept = settings.model_dump(exclude={"patience", "loggers", "accelerator", "devices", "nodes", "strategy"})
    asked = [sorted(kept.items()), sorted((network_settings or {}).items())]
    learnt_from = [events.values, events.offsets, *events.marks.arrays, *events.facts.arrays]
    fingerprint = digest([*objective.identity(), objective.shared, max_len, seed, *asked, *learnt_from])
    steps = len(data.batches(rank=0, devices=settings.processes)) * settings.epochs
    task = TrainingTask(objective, settings, validation, steps, seed, fingerprint, watch, going_on)
    resume = resume and (run_folder / LAST).is_file()
    with quiet_lightning(), _ended_as_asked():
        if resume:
            _checkpoint(run_folder / LAST)
        trainer = make_trainer(settings, run_folder, progress)
        try:
            before = _validated(trainer, task, data) if going_on else None
            if before is not None and settings.epochs == 0:
                return TrainingResult(before.metrics[MONITOR], 0, 0, before.metrics, 0.0, before.metrics)
            trainer.fit(task, data, ckpt_path=run_folder / LAST if resume else None, weights_only=True)
        except OSError as error:
            if isinstance(error, DiffGRMError) and not isinstance(error, OutputError):
                raise
            raise TrainingError(
                f"training stopped, for files could not be read or written ({error}); make room where {run_folder} lies, "
                f"then start again{'' if going_on else ', or resume where a checkpoint is left in it'}"
            ) from error
    best = _checkpoint(run_folder / BEST)
    weights, metrics = validated_weights(best, "objective.network."), best["validation"]
    if before is not None and before.metrics[MONITOR] >= metrics[MONITOR]:
        weights, metrics = before.weights, before.metrics
    objective.network.load_state_dict(weights)
    return TrainingResult(
        metrics[MONITOR],
        trainer.current_epoch,
        trainer.global_step,
        metrics,
        task.earlier_seconds,
        None if before is None else before.metrics,
    )


class _Weights(NamedTuple):
    """Weights by name, and their metrics on validation."""

    weights: dict[str, Tensor]
    metrics: dict[str, float]


def _validated(trainer: L.Trainer, task: TrainingTask, data: L.LightningDataModule) -> _Weights:
    """A copy of the weights as they are, validated; nobody who watches is told."""
    watch, task.watch = task.watch, None
    trainer.validate(task, data, verbose=False)
    task.watch = watch
    return _Weights({name: tensor.clone() for name, tensor in task.objective.network.state_dict().items()}, task.latest)


def check_run_folder(run_folder: Path, resume: bool, going_on: bool = False) -> None:
    """Make sure that a run can start or go on in a folder, before anything is learnt for it.

    Args:
        going_on: the run is an update, which cannot be resumed.

    Raises:
        TrainingError: it is a file, lies where one may not write, or holds another run. DataError: that one is at work.
    """
    if run_folder.exists() and not run_folder.is_dir():
        raise TrainingError(f"the run folder {run_folder} is a file; choose another")
    check_writable(run_folder.absolute() / "checkpoint", TrainingError)
    if not resume and holds_checkpoint(run_folder):
        check_idle_folder(run_folder)
        mend = "an update cannot be resumed;" if going_on else "resume it (--resume; in Python: resume=True),"
        raise TrainingError(f"{run_folder} already holds a run; {mend} choose another run folder, or delete it")


@contextmanager
def _ended_as_asked() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt and SIGTERM exits with 143, where Lightning exits with 1 and with 0."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as end:
        raise SystemExit(128 + signal.SIGTERM) from end
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise  # of whoever watches
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from there on
        raise KeyboardInterrupt from None


def _checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, of which nothing is run: tensors, numbers and texts only.

    Raises:
        TrainingError: it is damaged, or holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise TrainingError(
            f"the checkpoint {path} is damaged, or holds something else than weights and numbers; start in another run "
            f"folder, or delete it ({error})"
        ) from error


class _Data(L.LightningDataModule):
    """Training batches of this process, and one token validation batch (the task ranks all users in it)."""

    def __init__(self, events: Ragged, max_len: int, settings: TrainingSettings, seed: int, objective: Objective) -> None:
        super().__init__()
        self.events, self.max_len, self.batch_size, self.seed = events, max_len, settings.batch_size, seed
        self.shared, self.newest_only = objective.shared, objective.newest_only
        self.most = settings.steps_per_epoch

    def batches(self, rank: int, devices: int) -> TrainingBatches:
        """Batches of one of several processes."""
        sizes = self.max_len, self.batch_size, self.seed
        return TrainingBatches(self.events, *sizes, self.shared, rank, devices, self.newest_only, self.most)

    def train_dataloader(self) -> TrainingBatches:
        """Batches of this process."""
        assert self.trainer is not None
        return self.batches(self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        """One token batch."""
        token: Any = [0]
        return DataLoader(token)
