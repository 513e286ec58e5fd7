"""Batch, rolling training windows and length-bucketed batches (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import Ragged


class Batch(NamedTuple):
    """Histories and, in training, the items that followed.

    Attributes:
        history: [B, S] item positions, oldest first, 0 where padded.
        valid: [B, S] bool, false where padded.
        target: [B] item positions.
    """

    history: Tensor
    valid: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


def collate(events: np.ndarray, start: np.ndarray, stop: np.ndarray) -> tuple[Tensor, Tensor]:
    """History [B, S] and valid [B, S] of the stretches ``events[start:stop]``, padded to the longest."""
    column = np.arange(int((stop - start).max(initial=1)))
    valid = column < (stop - start)[:, None]
    index = np.where(valid, start[:, None] + column, 0)
    return torch.from_numpy(np.where(valid, events[index], 0)), torch.from_numpy(valid)


class TrainingBatches:
    """Every event after a user's first is a target once an epoch; its history is the window before it.

    Batches hold targets of similar history length, so little is padded; which targets meet and in what order is a pure
    function of ``(seed, epoch)``. With several devices each takes its share of every batch, so the batches, taken
    together, do not depend on the number of devices.

    Args:
        train: item positions per user, oldest first.
        max_len: most items of a window.
        batch_size: targets per batch over all devices.
        rank, devices: which share of each batch this process takes.
    """

    BUCKET = 50  # batches whose targets are sorted by length together

    def __init__(self, train: Ragged, max_len: int, batch_size: int, seed: int, rank: int = 0, devices: int = 1) -> None:
        self.events, self.max_len, self.batch_size, self.seed = train.values, max_len, batch_size, seed
        self.rank, self.devices = rank, devices
        first = np.repeat(train.offsets[:-1], train.lengths)
        self.targets = np.flatnonzero(np.arange(len(train.values)) > first)
        self.starts = np.maximum(first[self.targets], self.targets - max_len)
        self.epoch = 0

    def __len__(self) -> int:
        # A tail too small to share among the devices joins the batch before it.
        whole, tail = divmod(len(self.targets), self.batch_size)
        return max(1, whole + (tail >= self.devices))

    @property
    def sampler(self) -> TrainingBatches:
        """Itself: Lightning calls ``loader.sampler.set_epoch`` before every epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The targets of every batch of an epoch, as indices into ``targets``."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.targets))
        lengths = (self.targets - self.starts)[order]
        bucket = np.arange(len(order)) // (self.batch_size * self.BUCKET)
        order = order[np.lexsort((lengths, bucket))]
        batches = np.split(order, np.arange(1, len(self)) * self.batch_size)
        return [batches[i] for i in generator.permutation(len(batches))]

    def __iter__(self) -> Iterator[Batch]:
        for chosen in self.plan(self.epoch):
            yield self.batch(chosen[self.rank :: self.devices])

    def batch(self, chosen: np.ndarray) -> Batch:
        """The batch of some targets."""
        history, valid = collate(self.events, self.starts[chosen], self.targets[chosen])
        return Batch(history, valid, torch.from_numpy(self.events[self.targets[chosen]]))
