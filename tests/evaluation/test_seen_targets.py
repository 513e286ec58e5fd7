"""Targets that no filtered list can hold are counted, and told where they are many."""

from __future__ import annotations

from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgrm import InteractionDataset, PopularityRecommender, Recipe, evaluate, leave_one_out
from diffgrm.data import mapped
from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.data.marks import Marks
from diffgrm.evaluation.seen_targets import seen_targets
from diffgrm.foundation.event_settings import EventSettings

SHOP = {"event": "action", "targets": ["buy"], "context": ["view"]}
ITEMS = pl.DataFrame({"item_id": list("abcdef")}).with_columns(text=pl.col("item_id"))


def history(looked_at, users=10):
    """Users who buy four items; the last two after a look at them where that is said."""
    rows = []
    for user in range(users):
        for item in np.roll(list("abcdef"), user)[:4]:
            rows += [(user, item, "view")] * (user < looked_at) + [(user, item, "buy")]
    return pl.DataFrame(rows, ["user_id", "item_id", "action"], orient="row")


@pytest.fixture
def told(caplog):
    def fitted_and_evaluated(table, events):
        recipe = Recipe(recommender="popularity", events=events, evaluation={"ks": [3]})
        dataset = InteractionDataset.from_tables(table, ITEMS, events=recipe.events)
        caplog.clear()
        recommender, split = PopularityRecommender(recipe).fit(dataset), leave_one_out(dataset)
        at_fit = caplog.text
        caplog.clear()
        found = evaluate(recommender, split.test, dataset.items, split.item_counts, ks=[3])
        return at_fit, caplog.text, found.metrics["recall@10"]

    return fitted_and_evaluated


def test_purchases_that_follow_a_view_are_told_to_be_left_out_of_lists(told):
    at_fit, at_evaluation, recall = told(history(10), SHOP)
    assert recall == 0
    assert "100% of the validation targets (10 of 10) are of items that their history counts as seen" in at_fit
    assert "100% of the held-out targets (10 of 10)" in at_evaluation
    for text in (at_fit, at_evaluation):
        assert "by events of the types buy, view (events.seen); name only" in text
        assert "such as events.seen=[buy], or go by" in text
    at_fit, at_evaluation, recall = told(history(10), SHOP | {"seen": ["buy"]})
    assert not at_fit and not at_evaluation and recall == 1


@pytest.mark.parametrize(("looked_at", "is_told"), [(2, False), (3, True)])
def test_more_than_a_fifth_is_told(told, looked_at, is_told):
    at_fit, at_evaluation, recall = told(history(looked_at), SHOP)
    assert bool(at_fit) == bool(at_evaluation) == is_told and recall == pytest.approx(1 - looked_at / 10)


def test_what_comes_again_is_told_too(told):
    again = pl.concat([history(0), history(0)])
    assert "set events.seen=[] where it shall come again" in told(again, SHOP | {"seen": ["buy"]})[0]
    assert "keep one event of each item in a history (events.repeats=first)" in told(again.drop("action"), {})[0]
    assert not told(again.drop("action"), {"repeats": "first"})[0]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5), unique=True)), min_size=1),
    st.integers(1, 9),
)
def test_the_count_is_that_of_a_list_at_a_time(rows, block):
    histories, targets = zip(*rows, strict=True)
    settings = EventSettings(event="action", targets=["buy"], context=["view"], seen=["buy"])
    types = [np.arange(len(one), dtype=np.int16) % 2 for one in histories]
    asked = Ragged.from_lists(histories)
    asked = Ragged(asked.values, asked.offsets, Marks(settings, np.concatenate(types)))
    with mock.patch.object(mapped, "BLOCK", block):
        found = seen_targets(EvaluationSet(pl.Series(range(len(rows))), asked, Ragged.from_lists(targets)))
    assert found == sum(len(set(one[::2]) & set(target)) for one, target in rows)
