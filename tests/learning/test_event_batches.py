"""What events were and what they count for: in batches, in splits, in counts and in networks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm.data.dataset import InteractionDataset, Ragged, leave_one_out, validation_only
from diffgrm.data.ids import IdMap
from diffgrm.data.marks import Marks, Weights
from diffgrm.data.splits import temporal
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import resolve
from diffgrm.learning.batches import TrainingBatches
from diffgrm.networks.contracts import TakesTypes, encoded, lacks
from diffgrm.networks.inputs import Histories
from diffgrm.ranking.neighbours import ItemKNN
from helpers.networks import SMALL, build, features, trainable

SETTINGS = EventSettings(event="action", targets=["buy"], context=["view", "dislike"], weight="n")
N_ITEMS = 9


def events(seed=0, users=30, longest=9, settings=SETTINGS) -> Ragged:
    """Users of some events each, with types and weights."""
    generator = np.random.default_rng(seed)
    rows = Ragged.from_lists([generator.integers(0, N_ITEMS, n) for n in generator.integers(0, longest, users)])
    count = len(rows.values)
    types = generator.integers(0, 3, count).astype(np.int16)
    return Ragged(rows.values, rows.offsets, Marks(settings, types, generator.integers(1, 5, count).astype(np.float32)))


def as_events(rows: Ragged, row: int) -> list[tuple]:
    where = slice(rows.offsets[row], rows.offsets[row + 1])
    return list(zip(rows.values[where].tolist(), rows.marks.types[where].tolist(), strict=True))


# ---- batches ---------------------------------------------------------------------------------------------------------


def known_and_target(batches):
    """Of every target: the (item, type) of its history, itself, and its weight."""
    for batch in batches:
        items, index, valid, types, _ = batch.histories
        for number, (slot, target) in enumerate(zip(batch.slot.tolist(), batch.target.tolist(), strict=True)):
            row = slot // batch.length.shape[1]
            length = int(batch.length.flatten()[slot])
            assert valid[row, :length].all()
            places = index[row, :length]
            history = list(zip(items[places].tolist(), types[places].tolist(), strict=True))
            yield history, target, round(float(batch.weight[number]), 4)


@pytest.mark.parametrize("newest_only", [False, True])
def test_every_target_with_the_context_before_it_is_met_once(newest_only):
    train = events()
    weights, wanted = Weights.of(train.marks), []
    for user in range(len(train)):
        met = as_events(train, user)
        targets = [at for at in range(1, len(met)) if met[at][1] == 0]
        for at in targets[-1:] if newest_only else targets:
            weight = round(float(weights.at(np.array([train.offsets[user] + at]))[0]), 4)
            wanted.append((met[max(0, at - 5) : at], met[at][0], weight))
    found = list(known_and_target(TrainingBatches(train, 5, 8, 0, newest_only=newest_only)))
    assert sorted(found) == sorted(wanted)


def test_shared_stretches_have_the_same_targets():
    train = events(longest=20)
    alone = list(known_and_target(TrainingBatches(train, 50, 8, 0)))
    assert sorted(known_and_target(TrainingBatches(train, 50, 8, 0, shared=True))) == sorted(alone)
    short = TrainingBatches(train, 4, 8, 0, shared=True)
    assert sorted(target for _, target, _ in known_and_target(short)) == sorted(target for _, target, _ in alone)
    assert (short.targets > 0).all() and sum(len(batch.target) for batch in short) == short.targets.sum()


def test_weights_are_1_on_average_over_the_targets_and_nothing_where_all_are_alike():
    train = events()
    is_target = train.marks.is_target
    assert Weights.of(train.marks).at(is_target).mean() == pytest.approx(1)
    for alike in (1, 3):
        marks = Marks(SETTINGS, train.marks.types, np.full(len(train.values), alike, np.float32))
        assert Weights.of(marks) is None
        weighted = list(TrainingBatches(Ragged(train.values, train.offsets, marks), 5, 8, 0))
        plain = list(TrainingBatches(Ragged(train.values, train.offsets, Marks(SETTINGS, train.marks.types)), 5, 8, 0))
        for one, other in zip(weighted, plain, strict=True):  # bit for bit what is trained on without weights
            assert one.weight is None and other.weight is None
            assert all(torch.equal(a, b) for a, b in zip(one[1:4], other[1:4], strict=True))


def test_no_types_are_told_where_networks_are_not_to_know_them():
    untold = SETTINGS.model_copy(update={"type_input": False})
    batches = list(TrainingBatches(events(settings=untold), 5, 8, 0))
    assert all(batch.histories.types is None for batch in batches)


# ---- splits ----------------------------------------------------------------------------------------------------------


def dataset(rows: Ragged) -> InteractionDataset:
    met = np.flatnonzero(rows.lengths)
    rows = rows.rows(met)
    times = np.concatenate([np.arange(length) for length in rows.lengths])
    ids = IdMap(pl.Series(range(N_ITEMS)))
    return InteractionDataset(IdMap(pl.Series(met)), ids, pl.DataFrame(), rows, times, time_type=pl.Int64())


@pytest.mark.parametrize(("make", "held"), [(leave_one_out, 2), (validation_only, 1)])
def test_the_last_targets_are_held_out_and_context_stands_in_histories(make, held):
    data = dataset(events(longest=12))
    split = make(data)
    validation = {user: row for row, user in enumerate(split.validation.user_ids)}
    test = {user: row for row, user in enumerate(split.test.user_ids)}
    for row, user in enumerate(data.users.series):
        met = as_events(data.events, row)
        targets = [at for at, (_, kind) in enumerate(met) if kind == 0]
        asked = len(targets) >= held and targets[-held] >= 1
        assert (user in validation) == asked and (user in test) == (asked and held == 2)
        assert as_events(split.train, row) == (met[: targets[-held]] if asked else met)
        for found, of, at in ((validation, split.validation, -held), (test, split.test, -1)):
            if user in found:
                assert as_events(of.histories, found[user]) == met[: targets[at]]
                assert of.targets[found[user]].tolist() == [met[targets[at]][0]]
    counts = [
        sum(kind == 0 and item == one for row in range(data.n_users) for one, kind in as_events(split.train, row))
        for item in range(N_ITEMS)
    ]
    assert split.item_counts.tolist() == counts


def test_only_targets_are_asked_for_in_a_window_of_time():
    data = dataset(events(longest=12))
    split = temporal(data)
    for of in (split.validation, split.test):
        for number, user in enumerate(of.user_ids):
            met = as_events(data.events, data.users.positions([user])[0])
            start = len(as_events(of.histories, number))
            wanted = {item for item, kind in met[start:] if kind == 0}
            assert set(of.targets[number].tolist()) <= wanted and len(of.targets[number])


def test_what_was_trained_on_is_told_apart_by_types_and_weights():
    data = dataset(events())
    prints = {leave_one_out(data).fingerprint}
    types, weights = data.events.marks.types, data.events.marks.weights
    for marks in (Marks(SETTINGS, types), Marks(SETTINGS, types, np.ones_like(weights))):
        prints.add(leave_one_out(dataset(Ragged(data.events.values, data.events.offsets, marks))).fingerprint)
    assert len(prints) == 3


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_neighbours_go_from_what_was_met_to_what_was_a_target_by_weights():
    train = events(users=60)
    mean = Weights.of(train.marks).mean
    met, learnt = np.zeros((60, N_ITEMS)), np.zeros((60, N_ITEMS))
    for user in range(60):
        for place in range(train.offsets[user], train.offsets[user + 1]):
            item, weight = train.values[place], train.marks.weights[place] / mean
            met[user, item] = max(met[user, item], weight)
            if train.marks.types[place] == 0:
                learnt[user, item] = max(learnt[user, item], weight)
    norms = np.sqrt((met**2).sum(0))[:, None] * np.sqrt((learnt**2).sum(0))
    wanted = (met.T @ learnt) / (norms + 20)
    np.fill_diagonal(wanted, 0)
    assert np.allclose(ItemKNN().fit(train, N_ITEMS).toarray(), wanted, atol=1e-6)


# ---- networks --------------------------------------------------------------------------------------------------------

TYPED = [(name, options) for name, options in trainable() if not lacks(resolve("model", name), TakesTypes)]


def test_all_networks_but_those_of_raw_digits_take_types():
    without = {name for name, _ in trainable()} - {name for name, _ in TYPED}
    assert without == {"masked_history", "masked_history_dense", "epic"}


@pytest.mark.parametrize(("name", "options"), TYPED, ids=str)
def test_a_type_is_nothing_at_first_and_then_moves_every_place_that_has_it(name, options):
    network = build(name, **SMALL, **options).eval()
    network.take_types(2)
    items = features()
    rows = Ragged.from_lists([[1, 2, 1], [3, 3]])
    starts, stops, kinds = rows.offsets[:-1], rows.offsets[1:], np.array([0, 1, 1, 0, 0], np.int16)

    def users(types):
        asked = Histories.collate(rows.values, starts, stops, types)
        memory = encoded(network, network.item_vectors(items.of(asked.items)), asked)
        return network.user_vectors(memory)

    with torch.no_grad():
        plain, typed = users(None), users(kinds)
        assert torch.allclose(plain, typed, atol=1e-6)
        for key, weight in network.named_parameters():
            if key.endswith("event_types"):
                weight[1] = torch.linspace(-1, 1, weight.shape[1])
        changed = users(kinds)
    assert not torch.allclose(changed[0], plain[0], atol=1e-3)  # it has events of the second type
    assert torch.allclose(changed[1], plain[1], atol=1e-6)  # it has none


def test_an_item_that_was_met_in_two_ways_stands_twice():
    found = Histories.collate(np.array([4, 7, 4, 4]), np.array([0]), np.array([4]), np.array([0, 0, 1, 0], np.int16))
    assert found.items[found.item_index[0]].tolist() == [4, 7, 4, 4]
    assert found.types[found.item_index[0]].tolist() == [0, 0, 1, 0] and len(found.items) == 3
