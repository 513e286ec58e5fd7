"""Batch, training windows and length-bucketed batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.context import Context
from diffgrm.data.dataset import Ragged
from diffgrm.data.marks import Weights
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
        weight: [N] what each target's loss counts for, 1 on average over training; None: all count alike.
    """

    histories: Histories
    target: Tensor
    slot: Tensor
    length: Tensor
    weight: Tensor | None = None

    def rows(self, chosen: Tensor) -> Batch:
        """The histories at rows [b] and their targets."""
        slots = self.length.shape[1]
        place = torch.full((len(self.length),), -1, device=chosen.device)
        place[chosen] = torch.arange(len(chosen), device=chosen.device)
        row = place[self.slot // slots]
        keep = row >= 0
        histories = self.histories.rows(chosen)
        slot = row[keep] * slots + self.slot[keep] % slots
        order = slot.argsort()
        weight = None if self.weight is None else self.weight[keep][order]
        return Batch(histories, self.target[keep][order], slot[order], self.length[chosen], weight)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        parts = (None if part is None else part.to(device, non_blocking=True) for part in self[1:])
        return Batch(self.histories.to(device), *parts)  # type: ignore[arg-type]


class TrainingBatches:
    """Every event after a user's first that may be a target is one once an epoch; its history is what stands before it.

    Batches hold stretches of similar length, so little is padded; which meet and in what order is a pure function of
    ``(seed, epoch)``. With several devices each takes its share of every batch, so the batches, taken together, do not
    depend on the number of devices.

    Args:
        train: item positions per user, oldest first; where their marks tell more of events, batches have it.
        max_len: most items of a history.
        batch_size: targets per batch over all devices; about, where histories are shared.
        shared: False: a window of its own for each target, of the ``max_len`` items before it; True: one stretch serves all
            its targets. Of users with more than ``max_len`` events, later stretches overlap, so that a target knows at
            least the last half of ``max_len`` items.
        rank, devices: which share of each batch this process takes.
        newest_only: of each user the newest target only; not with shared stretches.
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
        self.context = Context.of(train, causal=shared)
        self.events, self.seed, self.rank, self.devices = train.values, seed, rank, devices
        self.types, self.weights, self.is_target = train.marks.inputs, Weights.of(train.marks), train.marks.is_target
        self.start, self.first, self.last = _stretches(train, max_len) if shared else _windows(train, max_len, newest_only)
        self.targets = self.last - self.first + 1  # of each stretch
        if shared and self.is_target is not None:
            before = np.concatenate([[0], np.cumsum(self.is_target)])
            self.targets = before[self.last + 1] - before[self.first]
            used = self.targets > 0
            self.start, self.first, self.last = self.start[used], self.first[used], self.last[used]
            self.targets = self.targets[used]
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
        if self.is_target is not None:
            used &= self.is_target[np.minimum(place, last[:, None])]
        return Batch(
            Histories.collate(self.events, start, last, self.types, self.context),
            torch.from_numpy(self.events[place[used]]),
            torch.from_numpy(np.flatnonzero(used)),
            torch.from_numpy(np.where(used, place - start[:, None], 0)),
            None if self.weights is None else torch.from_numpy(self.weights.at(place[used])),
        )


def _windows(train: Ragged, max_len: int, newest_only: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First event, first target and last target of each stretch: one target each."""
    begin, is_target = np.repeat(train.offsets[:-1], train.lengths), train.marks.is_target
    follows = np.arange(len(train.values)) > begin
    target = np.flatnonzero(follows if is_target is None else follows & is_target)
    if newest_only:
        newest = train.target_places(0)
        target = (train.offsets[:-1] + newest)[newest > 0]
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
