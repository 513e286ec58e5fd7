"""Whether a model is measured on the split that it learnt from, of tables and of cuts."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import InteractionDataset, Recipe, leave_one_out, toy_world
from diffgrm.data.splits import make_split
from diffgrm.foundation.registry import resolve
from diffgrm.recommenders.fitted_on import FittedOn


@pytest.fixture(scope="module")
def world():
    return toy_world(users=40, seed=3).dataset


@pytest.fixture(scope="module")
def events(world):
    return world.event_table()


def dataset(world, events):
    return InteractionDataset.from_tables(events, world.item_table)


def earlier(world, events):
    """The same without each user's two newest events."""
    return dataset(world, events.filter(pl.int_range(pl.len()).over("user_id") < pl.len().over("user_id") - 2))


def fitted(dataset, **recipe):
    return resolve("recommender", "item_knn")(Recipe(recommender="item_knn", **recipe)).fit(dataset, progress=False)


def test_the_split_of_the_fit_is_known_again_however_rows_stand(world, events):
    model = fitted(world)
    shuffled = dataset(world, events.sample(fraction=1, shuffle=True, seed=5))
    found = FittedOn.of(model.facts, leave_one_out(shuffled))
    assert found.to_dict() == {"split_of_the_fit": True, "learnt_from_another_split_before": False}
    assert found.sentences(model.recipe.data) == []


def test_what_a_fit_on_more_rows_has_learnt_is_told(world, events):
    model, other = fitted(world), leave_one_out(earlier(world, events))
    found = FittedOn.of(model.facts, other)
    assert found == (False, False) and found.to_dict()["split_of_the_fit"] is False
    users = other.dataset.users.series
    trained = leave_one_out(world).train
    targets = {user: other.test.targets[row][0] for row, user in enumerate(other.test.user_ids)}
    assert all(target in trained[users.index_of(user)] for user, target in targets.items())  # which is what it warns of
    (line,) = found.sentences(model.recipe.data)
    assert line.startswith(
        "Warning: this is not the split that the model was fitted on (other rows, items or cuts), so that"
    )
    assert line.endswith("only later events; else measure it with the tables that it was fitted on.")


def test_cuts_by_shares_are_told_where_they_move(world, events):
    for data, words in (
        ({"split": "temporal"}, "shares (data.validation_share, data.test_share)"),
        ({"split": "temporal", "test_from": str(events["timestamp"].quantile(0.9))}, "shares (data.validation_share)"),
    ):
        model = fitted(world, data=data)
        lines = FittedOn.of(model.facts, make_split(earlier(world, events), model.recipe.data)).sentences(model.recipe.data)
        assert len(lines) == 2 and words in lines[1] and "fit with dates (data.validation_from" in lines[1]


def test_a_model_that_went_on_knows_the_split_it_went_on_with_and_whether_it_saw_another(world, events):
    model = fitted(earlier(world, events))
    more, split = model.fit_more(world, progress=False), leave_one_out(world)
    found = FittedOn.of(more.facts, split)
    assert found == (True, True)
    (line,) = found.sentences(more.recipe.data)
    assert "last went on learning with this very split, but learnt from another one before, so that it may have" in line
    assert FittedOn.of(more.facts, leave_one_out(earlier(world, events))) == (False, True)
    assert FittedOn.of(more.fit_more(world, progress=False).facts, split) == (True, True)

    same = fitted(world).fit_more(world, progress=False)
    for _ in range(2):
        assert FittedOn.of(same.facts, split) == (True, False)
        same = same.fit_more(split, progress=False)
    back = same.fit_more(earlier(world, events), progress=False).fit_more(world, progress=False)
    assert FittedOn.of(back.facts, split) == (True, True)


def test_new_items_and_items_that_are_gone_leave_the_split_what_it_is(world, events):
    few = [f"item {number}" for number in range(200)]
    kept = InteractionDataset.from_tables(events.filter(pl.col("item_id").is_in(few)), world.item_table.head(200))
    assert FittedOn.of(fitted(kept).fit_more(world, progress=False).facts, leave_one_out(world)) == (True, True)
    assert FittedOn.of(fitted(world).fit_more(kept, progress=False).facts, leave_one_out(kept)) == (True, True)


def test_a_model_that_does_not_tell_is_not_trusted(world):
    split = leave_one_out(world)
    for facts in ({}, {"training_fingerprint": "x", "went_on": {"times": 1}}):
        found = FittedOn.of(facts, split)
        assert found.same is None
        assert "saved by an earlier diffgrm, and does not tell" in found.sentences(Recipe().data)[0]
