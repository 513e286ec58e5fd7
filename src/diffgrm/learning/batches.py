"""Batch, training windows and length-bucketed batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import Ragged
from diffgrm.networks.inputs import Histories


class Batch(NamedTuple):
    """Histories and the items that followed some of their beginnings.

    A history has T slots for targets: one, that follows all of it, or one for each of its items where a causal encoder
    serves many targets in one pass.

    Attributes:
        histories: of B stretches of events.
        target: [N] item positions.
        slot: [N] place of each target among the B T slots, in order.
        length: [B, T] how many items of its history each slot may know; 0 where the slot is not used.
    """

    histories: Histories
    target: Tensor
    slot: Tensor
    length: Tensor

    def rows(self, chosen: Tensor) -> Batch:
        """The histories at rows [b] and their targets."""
        slots = self.length.shape[1]
        place = torch.full((len(self.length),), -1, device=chosen.device)
        place[chosen] = torch.arange(len(chosen), device=chosen.device)
        row = place[self.slot // slots]
        keep = row >= 0
        histories = self.histories._replace(
            item_index=self.histories.item_index[chosen], valid=self.histories.valid[chosen]
        )
        slot = row[keep] * slots + self.slot[keep] % slots
        order = slot.argsort()
        return Batch(histories, self.target[keep][order], slot[order], self.length[chosen])

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(self.histories.to(device), *(part.to(device, non_blocking=True) for part in self[1:]))


class TrainingBatches:
    """Every event after a user's first is a target once an epoch; its history is what stands before it.

    Batches hold stretches of similar length, so little is padded; which meet and in what order is a pure function of
    ``(seed, epoch)``. With several devices each takes its share of every batch, so the batches, taken together, do not
    depend on the number of devices.

    Args:
        train: item positions per user, oldest first.
        max_len: most items of a history.
        batch_size: targets per batch over all devices; about, where histories are shared.
        shared: False: a window of its own for each target, of the ``max_len`` items before it; True: one stretch serves all
            its targets. Of users with more than ``max_len`` events, later stretches overlap, so that a target knows at
            least the last half of ``max_len`` items.
        rank, devices: which share of each batch this process takes.
        newest_only: of each user the newest event only is a target; not with shared stretches.
        most: batches of an epoch, which are then the first of its order; None: all.
    """

    BUCKET = 50  # batches whose stretches are sorted by length together

    def __init__(
        self,
        train: Ragged,
        max_len: int,
        batch_size: int,
        seed: int,
        shared: bool = False,
        rank: int = 0,
        devices: int = 1,
        newest_only: bool = False,
        most: int | None = None,
    ) -> None:
        self.events, self.seed, self.rank, self.devices = train.values, seed, rank, devices
        self.start, self.first, self.last = _stretches(train, max_len) if shared else _windows(train, max_len, newest_only)
        self.targets = self.last - self.first + 1  # of each stretch
        longest = int(self.targets.max(initial=1))
        self.batch_size = max(batch_size, longest * devices)  # so that every device gets a stretch
        # A tail too small to share among the devices joins the batch before it.
        whole, tail = divmod(int(self.targets.sum()), self.batch_size)
        self.batches = max(1, whole + (tail >= longest * devices))
        self.most = self.batches if most is None else min(most, self.batches)
        self.epoch = 0

    def __len__(self) -> int:
        return self.most

    @property
    def sampler(self) -> TrainingBatches:
        """Itself: Lightning calls ``loader.sampler.set_epoch`` before every epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The stretches of every batch of an epoch."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.start))
        bucket = (self.targets[order].cumsum() - 1) // (self.batch_size * self.BUCKET)
        order = order[np.lexsort(((self.last - self.start)[order], bucket))]
        before = self.targets[order].cumsum() - self.targets[order]
        batch = np.minimum(before // self.batch_size, self.batches - 1)
        batches = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
        return [batches[i] for i in generator.permutation(len(batches))[: self.most]]

    def __iter__(self) -> Iterator[Batch]:
        for chosen in self.plan(self.epoch):
            yield self.batch(chosen[self.rank :: self.devices])

    def batch(self, chosen: np.ndarray) -> Batch:
        """The batch of some stretches."""
        start, first, last = self.start[chosen], self.first[chosen], self.last[chosen]
        place = first[:, None] + np.arange((last - first).max(initial=0) + 1)  # [B, T] of the targets among the events
        used = place <= last[:, None]
        return Batch(
            Histories.collate(self.events, start, last),
            torch.from_numpy(self.events[place[used]]),
            torch.from_numpy(np.flatnonzero(used)),
            torch.from_numpy(np.where(used, place - start[:, None], 0)),
        )


def _windows(train: Ragged, max_len: int, newest_only: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First event, first target and last target of each stretch: one target each."""
    begin = np.repeat(train.offsets[:-1], train.lengths)
    target = np.flatnonzero(np.arange(len(train.values)) > begin)
    if newest_only:
        target = train.offsets[1:][train.lengths > 1] - 1
    return np.maximum(begin[target], target - max_len), target, target


def _stretches(train: Ragged, max_len: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with ``max_len`` targets in a user's first stretch and half as many in each later one."""
    half = (max_len + 1) // 2
    begin = train.offsets[:-1][train.lengths > 1]
    end = train.offsets[1:][train.lengths > 1] - 1  # the last target
    count = 1 + np.maximum(0, -((begin + max_len - end) // half))  # stretches of each user
    begin, end = np.repeat(begin, count), np.repeat(end, count)
    number = np.arange(len(begin)) - np.repeat(count.cumsum() - count, count)
    last = np.minimum(begin + max_len + number * half, end)
    first = np.where(number == 0, begin + 1, begin + max_len + (number - 1) * half + 1)
    return np.maximum(begin, last - max_len), first, last
