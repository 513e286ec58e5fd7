"""Rules, over every recommender: the lists that the whole ranking would give, found by looking at a part of it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import InteractionDataset
from diffgrm.foundation.schema import DataError
from helpers.recipes import methods, unfitted
from helpers.ruled import enumerated, meets, stocked, whole_ranking

HISTORIES = {"a": ["item 3", "item 77", "item 410"], "b": ["item 200"], "c": ["item 5", "item 6"]}
KNOW_NO_SIMILARITY = {"popularity", "random"}
SPARSE = {"brand": {"in": ["Lumen"]}}
QUESTIONS = {
    "a filter": {"where": {"stock": {"min": 3}}},
    "two filters": {"where": {"stock": {"min": 3}, "department": {"in": ["Coffee", "Guitar"]}}},
    "a cap": {"caps": {"department": 2}},
    "a cap that more items must be looked at for": {"caps": {"brand": 1, "colour": 9}},
    "a cap that leaves a short list": {"caps": {"colour": 2}, "pins": {2: "item 9", 9: "item 13"}},
    "a cap with missing values": {"caps": {"series": 1}},
    "pins": {"pins": {1: "item 9", 4: "item 77", 30: "item 1"}},
    "pins of seen items": {"pins": {2: "item 77", 3: "item 10"}, "pin_seen": True},
    "a minimum": {"minimum": {"count": 3, "where": SPARSE}},
    "a minimum that few items can meet": {"minimum": {"count": 3, "items": ["item 300", "item 5"]}},
    "a minimum within caps": {"minimum": {"count": 3, "where": SPARSE}, "caps": {"brand": 2, "kind": 1}},
    "a minimum beside pins and a filter": {
        "minimum": {"count": 2, "where": {"stock": {"min": 8}}},
        "pins": {2: "item 9", 5: "item 33"},
        "where": {"stock": {"max": 8}},
    },
}


@pytest.fixture(scope="module")
def world(toy):
    return InteractionDataset.from_tables(toy.event_table(), stocked(toy.item_table), name="toy storefront")


@pytest.fixture(scope="module", params=methods())
def recommender(request, world):
    return unfitted(request.param).fit(world, progress=False)


def searches_wide(recommender):
    """Whether more items that are asked for may change which are the best: beams, and candidates that digits rank."""
    recipe = recommender.recipe
    return "decoding" in recipe.sections and recipe.decoding.name not in ("one_pass", "item_proposals", "digits_and_items")


def lists(recommender, **asked):
    table = recommender.recommend(HISTORIES, 10, **asked)
    return {user: table.filter(user_id=user)["item_id"].to_list() for user in HISTORIES}


def test_lists_are_those_of_the_whole_ranking(recommender):
    """A search that goes by beams is asked for all items at once; the others for as few as will do."""
    questions, more = QUESTIONS, {}
    if searches_wide(recommender):
        questions = {name: QUESTIONS[name] for name in ("a minimum within caps", "a minimum beside pins and a filter")}
        more = {"boosts": [{"by": 1e-9, "items": ["item 0"]}], "depth": len(recommender.items)}
    rows = recommender.item_table.to_dicts()
    for question, rules in questions.items():
        only = [row["item_id"] for row in rows if meets(row, rules.get("where", {}))]
        found = lists(recommender, rules={**rules, **more})
        for user, history in HISTORIES.items():
            ranking = whole_ranking(recommender, history, only)
            expected = enumerated(rows, list(ranking), history, 10, rules)
            if recommender.recipe.recommender == "item_knn":  # most items tie, and which of them come in is left open
                if "caps" not in rules:
                    assert [ranking.get(i) for i in found[user]] == [ranking.get(i) for i in expected], (question, user)
            else:
                assert found[user] == expected, (question, user)


def test_lists_of_narrow_searches_hold_the_rules(recommender):
    rows = {row["item_id"]: row for row in recommender.item_table.iter_rows(named=True)}
    for found in lists(recommender, rules={"caps": {"department": 2}, "minimum": {"count": 4, "where": SPARSE}}).values():
        departments = [rows[item]["department"] for item in found]
        assert len(set(found)) == 10 and max(map(departments.count, departments)) == 2
        assert sum(rows[item]["brand"] == "Lumen" for item in found) == 2  # they are of one department
    found = lists(recommender, rules={"minimum": {"count": 4, "where": SPARSE}, "pins": {3: "item 9"}})
    for items in found.values():
        assert items[2] == "item 9" and sum(rows[item]["brand"] == "Lumen" for item in items) == 4


def test_boosts_are_added_to_scores(recommender):
    spread = np.ptp([*whole_ranking(recommender, HISTORIES["a"]).values()])
    boosts = [{"by": spread / 3, "where": {"kind": {"in": ["capo"]}}}, {"by": -spread, "items": ["item 8", "item 10"]}]
    found = lists(recommender, rules={"boosts": boosts, "depth": len(recommender.items)})
    kinds = dict(recommender.item_table.select("item_id", "kind").iter_rows())
    for user, history in HISTORIES.items():
        scores = whole_ranking(recommender, history)
        lifted = {
            item: score + spread / 3 * (kinds[item] == "capo") - spread * (item in boosts[1]["items"])
            for item, score in scores.items()
        }
        best = sorted(lifted.values(), reverse=True)[:10]
        assert np.allclose([lifted[item] for item in found[user]], best, rtol=1e-5, atol=1e-4 * max(1, spread))


def test_diversity_goes_by_maximal_marginal_relevance(recommender):
    name, weight = recommender.recipe.recommender, 0.6
    rules = {"diversity": weight, "depth": 30, "pins": {2: "item 9"}}
    if name in KNOW_NO_SIMILARITY:
        with pytest.raises(DataError, match=f"diversity: '{name}' knows no similarity of items; leave it out"):
            lists(recommender, rules=rules)
        return
    history = HISTORIES["b"]
    pool = recommender.recommend([history], 30)
    items, scores = pool["item_id"].to_list(), pool["score"].to_numpy().astype(float)
    relevance = dict(zip(items, (scores - scores.min()) / (np.ptp(scores) or 1), strict=True))
    positions = recommender.items.positions(items)
    chosen, found = ["item 9"], []
    while len(found) < 9:
        those = recommender.items.positions(chosen).tolist()
        near = np.max([recommender._similarity(one)[positions] for one in those], axis=0)
        value = {i: (1 - weight) * relevance[i] - weight * n for i, n in zip(items, near, strict=True) if i not in chosen}
        chosen.append(max(value, key=value.get))
        found.append(chosen[-1])
    assert recommender.recommend([history], 10, rules=rules)["item_id"].to_list() == [found[0], "item 9", *found[1:]]


def test_scores_are_those_of_the_search_and_null_where_there_is_none(recommender):
    history = HISTORIES["a"]
    worst = recommender.recommend([history], len(recommender.items))["item_id"][-1]
    best = recommender.recommend([history], 3)
    found = recommender.recommend([history], 4, rules={"pins": {2: worst, 1: best["item_id"][2]}})
    assert found["item_id"].to_list() == [best["item_id"][2], worst, *best["item_id"][:2]]
    assert found["score"].null_count() == 1 and found["score"][1] is None and found.schema["score"] == pl.Float32
    order = [best["score"][2], best["score"][0], best["score"][1]]
    assert found["score"].drop_nulls().to_list() == pytest.approx(order, abs=1e-4)


def test_filters_of_the_question_hold_beside_the_rules(recommender):
    rules = {"pins": {1: "item 9"}, "where": {"stock": {"min": 3}}, "minimum": {"count": 2, "where": SPARSE}}
    for items in lists(recommender, rules=rules, without=["item 9"]).values():
        assert "item 9" not in items
    only = [f"item {number}" for number in range(60)]
    for items in lists(recommender, rules=rules, only=only).values():
        assert set(items) <= set(only)
    with pytest.raises(DataError, match="none that may be recommended meets the rules' 'where'; widen its conditions"):
        lists(recommender, rules={"where": {"stock": {"min": 99}}})


def test_rules_are_those_that_were_asked_for_whoever_asks_besides(recommender, monkeypatch):
    """Another one's rules take the place of the last ones as soon as these are kept."""
    wanted, others = ({"where": {"stock": {"min": least}}} for least in (3, 5))
    kept = {"_ruled": None}
    theirs = recommender.catalogue, recommender.item_rules(others)
    found = property(lambda self: kept["_ruled"], lambda self, value: kept.update(_ruled=theirs))
    monkeypatch.setattr(type(recommender), "_ruled", found, raising=False)
    assert recommender.item_rules(wanted).where.tolist() == (recommender.item_table["stock"] >= 3).to_list()


def test_a_saved_recommender_keeps_the_columns(recommender, tmp_path):
    rules = {**QUESTIONS["a minimum beside pins and a filter"], "caps": {"department": 3}}
    again = diffgrm.load(recommender.save(tmp_path / "model"))
    assert lists(again, rules=rules) == lists(recommender, rules=rules)
