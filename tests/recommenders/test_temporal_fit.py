"""Fitting on a split in time: nothing of what comes after the cut is learnt, and validation is what the split says."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import InteractionDataset, Recipe, evaluate, toy_world
from diffgrm.data.splits import make_split
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.recommenders.fitted_on import FittedOn

CUT = {"split": "temporal", "validation_from": 40, "test_from": 50}
SASREC = {
    "recommender": "sasrec",
    "model": {"width": 16, "layers": 1, "feed_forward": 16, "max_len": 8},
    "training": {"batch_size": 64, "epochs": 1, "warmup_steps": 5, "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def world():
    """Events on days 0 to 70 or so, every user beginning on a day of their own."""
    world = toy_world(users=80, seed=3).dataset
    order = pl.int_range(pl.len()).over("user_id")
    first = (pl.col("user_id").rle_id() * 7 % 45).cast(pl.Int64)
    return world.event_table().with_columns(timestamp=first + 3 * order), world.item_table


def fitted(events, items, recipe):
    data = InteractionDataset.from_tables(events, items)
    recommender = resolve("recommender", recipe["recommender"])(Recipe(**recipe))
    return data, recommender.fit(data, progress=False)


@pytest.mark.parametrize("name", ["popularity", "item_knn", "transition_graph"])
def test_other_events_after_the_cut_change_no_list(world, name):
    events, items = world
    strange = items["item_id"][5]
    other = events.with_columns(item_id=pl.when(pl.col("timestamp") >= 40).then(pl.lit(strange)).otherwise("item_id"))
    histories = {"x": items["item_id"][[0, 9]].to_list(), "y": items["item_id"][[33]].to_list()}
    recipe = {"recommender": name, "data": CUT}
    lists = [fitted(table, items, recipe)[1].recommend(histories, k=10) for table in (events, other)]
    assert lists[0].equals(lists[1])
    late = fitted(other, items, recipe | {"data": CUT | {"validation_from": 60, "test_from": 66}})[1]
    assert not late.recommend(histories, k=10).equals(lists[0])  # what comes before its cut does


@pytest.mark.parametrize("target", ["all", "last", "successive"])
def test_a_network_validates_by_the_targets_between_the_cuts(world, target):
    recipe = SASREC | {"data": CUT | {"target": target}}
    data, recommender = fitted(*world, recipe)
    split = make_split(data, recommender.recipe.data)
    found = evaluate(recommender, split.validation, data.items, split.item_counts).metrics
    validation = recommender.facts["validation"]
    assert validation["val_ndcg@10"] == pytest.approx(found["ndcg@10"], abs=1e-6)
    assert validation["val_recall@10"] == pytest.approx(found["recall@10"], abs=1e-6)
    assert recommender.facts["held_out"] == split.facts and split.facts["target"] == target


def test_a_fitted_model_is_asked_for_other_targets_than_it_was_validated_by(world):
    data, recommender = fitted(*world, {"recommender": "item_knn", "data": CUT | {"target": "last"}})
    asked = recommender.variant(["data.target=successive", "data.cold_targets=drop"])
    split = make_split(data, asked.recipe.data)
    assert split.facts["target"] == "successive" and split.facts["cold_targets"] == "drop"
    assert len(split.test) > split.test.n_users  # several lists of some users
    assert FittedOn.of(recommender.facts, split) == (True, False)  # of the very events that it was fitted on
    for cut in ("data.test_share=0.2", "data.split=leave_one_out"):
        with pytest.raises(RecipeError, match=f"data.cold_targets.* can change after fit, not {cut}"):
            recommender.variant([cut])
    with pytest.raises(RecipeError, match="there is no setting 'data.targets'; did you mean 'target'"):
        recommender.variant(["data.targets=last"])


def test_overrides_that_do_nothing_beside_the_others_are_refused(world):
    _, recommender = fitted(*world, {"recommender": "item_knn"})
    for override in ("data.target=last", "data.cold_targets=drop"):
        with pytest.raises(RecipeError, match=r"data\.\w+ = \w+ does nothing with data.split = leave_one_out"):
            recommender.override([override])
    assert recommender.recipe.data.target == "all"
    with pytest.raises(RecipeError, match=r"retrieval.candidates = 3 does nothing with retrieval.index = exact"):
        fitted(*world, SASREC)[1].variant(["retrieval.index=exact", "retrieval.candidates=3"])
