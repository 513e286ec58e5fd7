from __future__ import annotations

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.learning.batches import TrainingBatches

GENERATOR = np.random.default_rng(0)
TRAIN = Ragged.from_lists([GENERATOR.integers(0, 99, size) for size in GENERATOR.integers(0, 40, 60)])


def pairs(batches):
    """Every (history, target) of an epoch."""
    for batch in batches:
        items, index, valid, *_ = batch.histories
        history, slots = items[index], batch.length.shape[1]
        for target, slot, length in zip(batch.target, batch.slot, batch.length.flatten()[batch.slot], strict=True):
            row = slot // slots
            assert 0 < length <= valid[row].sum()
            yield tuple(history[row, :length].tolist()), int(target)


def wanted(max_len):
    rows = [TRAIN[i].tolist() for i in range(len(TRAIN))]
    return sorted((tuple(row[max(0, t - max_len) : t]), row[t]) for row in rows for t in range(1, len(row)))


def test_every_position_is_a_target_once_with_a_rolling_window():
    for epoch in (0, 1):
        batches = TrainingBatches(TRAIN, max_len=10, batch_size=32, seed=0)
        batches.set_epoch(epoch)
        assert sorted(pairs(batches)) == wanted(10)


def test_an_epoch_of_few_steps_holds_the_first_batches_of_its_order():
    whole, short = (TrainingBatches(TRAIN, 10, 32, seed=0, most=most) for most in (None, 3))
    assert len(short) == 3 < len(whole) == len(TrainingBatches(TRAIN, 10, 32, seed=0, most=10**6))
    seen = []
    for epoch in (0, 1):
        for batches in (whole, short):
            batches.set_epoch(epoch)
        first = [batch.target.tolist() for batch in whole][:3]
        assert [batch.target.tolist() for batch in short] == first
        seen.append(first)
    assert seen[0] != seen[1]  # the next epoch draws others


def test_of_each_user_the_newest_event_alone_may_be_the_target():
    rows = [TRAIN[i].tolist() for i in range(len(TRAIN)) if len(TRAIN[i]) > 1]
    newest = sorted((tuple(row[:-1][-10:]), row[-1]) for row in rows)
    assert sorted(pairs(TrainingBatches(TRAIN, 10, 32, seed=0, newest_only=True))) == newest


def test_the_order_is_a_function_of_seed_and_epoch():
    batches = TrainingBatches(TRAIN, 10, 32, seed=5)
    first = [b.target.tolist() for b in batches]
    assert first == [b.target.tolist() for b in TrainingBatches(TRAIN, 10, 32, seed=5)]
    batches.set_epoch(1)
    assert first != [b.target.tolist() for b in batches]


def test_little_is_padded():
    batches = TrainingBatches(TRAIN, 50, 32, seed=0)
    cells, real = zip(*((b.histories.valid.numel(), int(b.histories.valid.sum())) for b in batches), strict=True)
    naive = 50 * sum(len(b.target) for b in batches)
    assert sum(real) / sum(cells) > 0.9 and sum(cells) < naive / 2


def test_devices_share_every_batch_and_see_the_same_data_together():
    alone = list(TrainingBatches(TRAIN, 10, 32, seed=0))
    shares = [list(TrainingBatches(TRAIN, 10, 32, seed=0, rank=r, devices=3)) for r in range(3)]
    assert {len(s) for s in shares} == {len(TrainingBatches(TRAIN, 10, 32, seed=0, devices=3))}
    together = [sorted(t for s in step for t in s.target.tolist()) for step in zip(*shares, strict=True)]
    if len(alone) == len(together):
        assert together == [sorted(b.target.tolist()) for b in alone]
    assert sorted(t for step in together for t in step) == sorted(t for b in alone for t in b.target.tolist())
    assert all(len(b.target) > 0 for s in shares for b in s)


@pytest.mark.parametrize("max_len", [1, 2, 7, 10, 50])
def test_shared_stretches_serve_every_target_once_with_at_least_half_of_its_window(max_len):
    batches = TrainingBatches(TRAIN, max_len, batch_size=64, seed=0, shared=True)
    found = sorted(pairs(batches))
    assert [t for _, t in sorted(found, key=lambda pair: pair[1])] == sorted(t for _, t in wanted(max_len))
    rows = [TRAIN[i].tolist() for i in range(len(TRAIN))]
    least = {
        (tuple(row[max(0, t - length) : t]), row[t])
        for row in rows
        for t in range(1, len(row))
        for length in range(min(t, (max_len + 1) // 2), max_len + 1)
    }
    assert set(found) <= least


def test_shared_batches_hold_about_as_many_targets_as_asked():
    for batch_size in (8, 64, 200):
        batches = TrainingBatches(TRAIN, 10, batch_size, seed=0, shared=True)
        sizes = [len(b.target) for b in batches]
        assert len(sizes) == len(batches) and min(sizes) > 0
        assert max(sizes) < 2 * max(batch_size, 10) + 10
        assert sum(sizes) == len(wanted(10))


def test_shared_batches_are_shared_among_devices_too():
    shares = [list(TrainingBatches(TRAIN, 10, 32, seed=0, shared=True, rank=r, devices=3)) for r in range(3)]
    together = sorted(int(t) for share in shares for b in share for t in b.target)
    assert together == sorted(t for _, t in wanted(10))
    assert len({len(share) for share in shares}) == 1 and all(len(b.target) > 0 for s in shares for b in s)


@pytest.mark.parametrize("shared", [False, True])
def test_some_histories_of_a_batch_keep_their_targets(shared):
    batch = next(iter(TrainingBatches(TRAIN, 10, 64, seed=0, shared=shared)))
    chosen = torch.tensor([5, 0, 3])
    some = batch.rows(chosen)
    slots, row = batch.length.shape[1], batch.slot // batch.length.shape[1]
    assert some.length.tolist() == batch.length[chosen].tolist()
    assert (some.slot.diff() > 0).all() and len(some.target) == len(some.slot)
    for new, old in enumerate(chosen.tolist()):
        mine = some.slot // slots == new
        assert some.target[mine].tolist() == batch.target[row == old].tolist()
        assert (some.slot[mine] % slots).tolist() == (batch.slot[row == old] % slots).tolist()
    assert sorted(pairs([some])) == sorted(
        pair for place, pair in zip(row.tolist(), pairs([batch]), strict=True) if place in chosen
    )
