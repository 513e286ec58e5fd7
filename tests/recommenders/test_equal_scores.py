"""Of items with equal scores the first of the item table come in: a shorter list is the head of a longer one."""

from __future__ import annotations

import pytest

from diffgrm import Recipe, evaluate, leave_one_out, toy_world
from diffgrm.foundation.registry import resolve


@pytest.fixture(scope="module")
def world():
    return toy_world(users=60, seed=5).dataset


@pytest.mark.parametrize(
    ("name", "model"), [("item_knn", {"neighbours": 2}), ("transition_graph", {}), ("popularity", None), ("text_knn", None)]
)
def test_lists_and_metrics_do_not_depend_on_how_many_places_are_asked_for(world, name, model):
    recommender = resolve("recommender", name)(Recipe(recommender=name, **({} if model is None else {"model": model}))).fit(
        world, progress=False
    )
    split = leave_one_out(world)
    histories = {user: world.items.gather(row).to_list() for user, row in enumerate(world.events[i][:3] for i in range(20))}
    whole = recommender.recommend(histories, k=world.n_items - 3)
    for k in (1, 4, 11, 25):
        assert recommender.recommend(histories, k=k)["item_id"].equals(head(whole, k))
    found = [
        evaluate(recommender, split.test, world.items, split.item_counts, ks=ks).metrics for ks in ((5,), (5, 21), (3, 5))
    ]
    assert len({(one["recall@5"], one["ndcg@5"], one["recall@5_unfiltered"]) for one in found}) == 1


def head(lists, k):
    return lists.filter(lists["rank"] <= k)["item_id"]
