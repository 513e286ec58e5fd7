"""What networks are told of places of histories: nothing at first, then that place only, in every network that takes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffgrm.data.context import Context, input_sizes
from diffgrm.data.dataset import Ragged
from diffgrm.data.marks import Marks, RowFacts
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import resolve
from diffgrm.networks.contracts import TakesContext, encoded, lacks
from diffgrm.networks.inputs import Histories
from helpers.networks import SMALL, build, features, trainable

SETTINGS = EventSettings(time_inputs=["gap", "recency"], user_columns={"plan": ["free", "paid"]})
TOLD = [(name, options) for name, options in trainable() if not lacks(resolve("model", name), TakesContext)]


def test_all_networks_but_those_of_raw_digits_take_context():
    without = {name for name, _ in trainable()} - {name for name, _ in TOLD}
    assert without == {"masked_history", "masked_history_dense", "epic"}


def histories(times, plans, moments=None) -> Ragged:
    rows = Ragged.from_lists([[1, 2, 1], [3, 3]])
    facts = RowFacts(moments, np.array(plans, np.int16)[:, None])
    return replace(rows, marks=Marks(SETTINGS, times=np.array(times)), facts=facts)


@pytest.mark.parametrize(("name", "options"), TOLD, ids=str)
def test_context_is_nothing_at_first_and_then_moves_the_histories_that_have_it(name, options):
    network = build(name, **SMALL, **options).eval()
    network.take_context(sum(input_sizes(SETTINGS)))
    items = features()

    def users(rows, told=True):
        context = Context.of(rows, network.causal) if told else None
        asked = Histories.collate(rows.values, rows.offsets[:-1], rows.offsets[1:], None, context)
        return network.user_vectors(encoded(network, network.item_vectors(items.of(asked.items)), asked))

    base = histories([0, 50, 4000, 0, 9], [1, 2])
    with torch.no_grad():
        plain = users(base, told=False)
        assert torch.allclose(users(base), plain, atol=1e-6)
        for key, weight in network.named_parameters():
            if key.endswith("context"):
                weight.normal_(generator=torch.Generator().manual_seed(1))
        before = users(base)
        changes = {
            "gap": histories([0, 3000, 4000, 0, 9], [1, 2]),
            "recency": histories([0, 50, 4000, 0, 9], [1, 2], np.array([9000, 9])),
            "plan": histories([0, 50, 4000, 0, 9], [2, 2]),
        }
        for what, rows in changes.items():
            after = users(rows)
            assert not torch.allclose(after[0], before[0], atol=1e-4), what
            assert torch.allclose(after[1], before[1], atol=1e-5), what  # of which nothing changed
        alone = users(base.rows(np.array([1])))
        assert torch.allclose(alone[0], before[1], atol=1e-5)  # whatever else is in the batch
