"""Rules as a value, what catalogues make of them, and lists by small hand-made rankings."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from diffgrm import Rules, read_rules
from diffgrm.data.dataset import Ragged
from diffgrm.data.ids import IdMap
from diffgrm.data.marks import Marks
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError
from diffgrm.ranking import item_rules
from diffgrm.ranking.item_rules import ItemRules
from diffgrm.ranking.query import Query
from diffgrm.ranking.ruled import rank_by_rules
from helpers.ruled import enumerated, meets

FULL = {
    "where": {"stock": {"min": 3}, "category": {"in": ["Coffee", "Baking"]}},
    "caps": {"brand": 2},
    "boosts": [{"by": 0.5, "where": {"brand": {"in": ["Moka"]}}}, {"by": -1, "items": ["item 3", 7]}],
    "pins": {1: "item 27"},
    "pin_seen": True,
    "minimum": {"count": 3, "where": {"sponsored": {"in": [True]}}},
    "diversity": 0.3,
    "depth": 50,
    "deepest": 500,
}
TABLE = pl.DataFrame(
    {
        "item_id": [f"i{n}" for n in range(8)],
        "text": ["x"] * 8,
        "brand": ["a", "a", "a", "b", "b", None, None, "c"],
        "stock": [0, 1, 2, 3, 4, 5, None, 7],
        "price": [1.5, 2.5, None, float("nan"), 3.0, 9.0, 9.5, 0.0],
        "tags": [["x", "y"], ["y"], [], None, ["z"], ["x"], ["w"], ["w", "z"]],
        "sold": [True, False, None, True, True, False, False, False],
        "day": pl.Series(range(8)).cast(pl.Date),
    }
)


def ruled(rules, similarity=None):
    return ItemRules.of(read_rules(rules), IdMap(TABLE["item_id"]), TABLE, similarity)


def problems_of(make):
    with pytest.raises(DataError) as error:
        make()
    first, *problems = str(error.value).split("\n")
    assert first == "the rules have problems:"
    return [problem.removeprefix("  - ") for problem in problems]


# ---- the value -------------------------------------------------------------------------------------------------------


def test_yaml_json_and_mappings_are_the_same_rules(tmp_path):
    rules = read_rules(FULL)
    (tmp_path / "rules.json").write_text(rules.to_json())
    written = "where: {stock: {min: 3}, category: {in: [Coffee, Baking]}}\ncaps: {brand: 2}\npins: {1: item 27}\n"
    (tmp_path / "rules.yaml").write_text(written)
    assert read_rules(tmp_path / "rules.json") == read_rules(json.loads(rules.to_json())) == rules
    assert read_rules(str(tmp_path / "rules.yaml")) == read_rules({name: FULL[name] for name in ("where", "caps", "pins")})
    assert hash(read_rules(dict(FULL))) == hash(rules) == hash(pickle.loads(pickle.dumps(rules)))
    assert read_rules(rules) is rules and rules.size == 7
    with pytest.raises(ValueError, match="frozen"):
        rules.diversity = 0.1


def test_rules_that_ask_for_nothing_are_none(tmp_path):
    assert read_rules(None) is read_rules({}) is read_rules(Rules()) is None
    for number, nothing in enumerate(("", "# caps: {brand: 2}", "{}", "caps: {}", "null")):  # a file is meant to hold some
        (tmp_path / f"{number}.yaml").write_text(nothing)
        with pytest.raises(DataError, match=rf"the file .*{number}.yaml holds no rules; write some, or give no file"):
            read_rules(tmp_path / f"{number}.yaml")


def test_all_problems_of_a_value_are_told_at_once():
    wrong = {
        "cap": {"brand": 1},
        "caps": {"brand": 0},
        "where": {"stock": {"mn": 3}, "colour": {}},
        "boosts": [{"by": 1.0}, {"b": 1, "items": ["i1"]}],
        "minimum": {"cont": 1, "items": ["i1"]},
        "pins": {0: "i1", "01": "i2"},
        "diversity": 2,
        "deepest": True,
    }
    assert problems_of(lambda: read_rules(wrong)) == [
        "where.stock.mn: there is no such rule; did you mean 'min'?",
        "where.colour: a condition says nothing; give min, max or in",
        "caps.brand: Input should be greater than or equal to 1",
        "boosts.0: no item is named; give items, or where with conditions on columns",
        "boosts.1.by: Field required",
        "boosts.1.b: there is no such rule; did you mean 'by'?",
        "pins: 0 is no place; expected a whole number from 1 to 1,000",
        "pins: '01' is no place; expected a whole number from 1 to 1,000",
        "minimum.count: Field required",
        "minimum.cont: there is no such rule; did you mean 'count'?",
        "diversity: Input should be less than or equal to 1",
        "deepest: Input should be a valid integer",
        "cap: there is no such rule; did you mean 'caps'?",
    ]


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"depth": 50, "caps": {"brand": 1}}, "rules: depth = 50 does nothing without diversity or boosts; leave it out"),
        ({"pin_seen": True}, "rules: pin_seen = True does nothing without pins; leave it out"),
        (
            {"diversity": 0.1, "depth": 50, "deepest": 20},
            "rules: deepest = 20 is less than depth = 50; raise it, or lower depth",
        ),
        (
            {"boosts": [{"by": 0, "items": ["i1"]}]},
            "boosts.0: by is 0, which changes no score; give another number, or leave the boost out",
        ),
        ({"where": {"a": {"min": 3, "max": 2}}}, "where.a: min 3 is above max 2; no value is both"),
        ({"where": {"a": {"in": []}}}, "where.a.in: Tuple should have at least 1 item after validation, not 0"),
    ],
)
def test_rules_that_do_nothing_are_refused(rules, problem):
    assert problems_of(lambda: read_rules(rules)) == [problem]


def test_what_is_no_rules_is_refused(tmp_path):
    with pytest.raises(DataError, match="rules are int; expected diffgrm.Rules, a mapping of them, or the path"):
        read_rules(7)
    with pytest.raises(DataError, match="the rules cannot be read from .*nowhere.yaml: the file .* is missing"):
        read_rules(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("caps: [")
    with pytest.raises(DataError, match="the rules cannot be read from .*bad.yaml"):
        read_rules(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text(str(tmp_path / "bad.yaml"))  # the text of a file is no path again
    with pytest.raises(DataError, match="rules are str; expected"):
        read_rules(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(DataError, match=r"from .*bad.yaml: it is no text in UTF-8, for byte 4 is 0xff$"):
        read_rules(tmp_path / "bad.yaml")


# ---- columns and ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "met"),
    [
        ({"stock": {"min": 3}}, [3, 4, 5, 7]),
        ({"stock": {"max": 3, "min": 1}}, [1, 2, 3]),
        ({"stock": {"in": [2, 7.0]}}, [2, 7]),
        ({"price": {"max": 2.5}}, [0, 1, 7]),
        ({"brand": {"in": ["a", "c"]}}, [0, 1, 2, 7]),
        ({"tags": {"in": ["x", "w"]}}, [0, 5, 6, 7]),
        ({"sold": {"in": [False]}}, [1, 5, 6, 7]),
        ({"sold": {"in": [False]}, "price": {"min": 5}}, [5, 6]),
    ],
)
def test_conditions_are_on_numbers_texts_truth_values_and_lists(where, met):
    assert np.flatnonzero(ruled({"where": where}).where).tolist() == met


def test_boosts_add_up():
    boosts = [{"by": 1, "where": {"brand": {"in": ["a"]}}, "items": ["i7"]}, {"by": -0.25, "items": ["i0"]}]
    assert ruled({"boosts": boosts}).offsets.tolist() == [0.75, 1, 1, 0, 0, 0, 0, 1]


def test_all_problems_with_columns_are_told_at_once():
    wrong = {
        "where": {"brnd": {"min": 3}, "day": {"min": 1}, "tags": {"max": 2}, "stock": {"in": ["3", True]}},
        "boosts": [{"by": 1, "where": {"brand": {"in": [3, "a"]}}}],
        "caps": {"tags": 1, "shelf": 2},
    }
    columns = "brand, day, item_id, price, sold, stock, tags, text"
    assert problems_of(lambda: ruled(wrong)) == [
        "where.brnd: the item table has no column 'brnd'; did you mean 'brand'?",
        "where.day: the column has type Date; conditions are on texts, numbers, truth values, and lists of those",
        "where.tags: min and max are for a number a row, and the column has type List(String); give in",
        "where.stock.in: the column holds numbers; give some instead of '3', True",
        "boosts.0.where.brand.in: the column holds texts; give some instead of 3",
        "caps.tags: the column has type List(String), and a cap needs one value a row; add a column with the value that "
        "counts",
        f"caps.shelf: the item table has no column 'shelf'; known: {columns}",
    ]


def test_unknown_items_and_pins_that_cannot_be_are_told():
    wrong = {"pins": {1: "i1", 2: "i99"}, "minimum": {"count": 1, "items": ["i98", "i1"]}, "diversity": 0.5}
    assert problems_of(lambda: ruled(wrong)) == [
        "minimum: 1 items are not in the catalogue: i98; leave them out",
        "pins: 1 items are not in the catalogue: i99; leave them out",
        "diversity: there are no vectors that tell how similar items are; leave it out",
    ]
    assert problems_of(lambda: ruled({"pins": {1: "i1", 2: "i0"}, "caps": {"brand": 1}})) == [
        "pins: more than 1 of them have the same brand, and caps.brand is 1; pin fewer"
    ]
    assert problems_of(lambda: ruled({"pins": {1: "i1", 2: "i1"}})) == [
        "pins: i1 has more than one place; pin every item once"
    ]
    beside = ruled({"pins": {1: "i1", 9: "i2"}, "minimum": {"count": 3, "items": ["i4", "i5", "i6"]}})
    assert problems_of(lambda: beside.check_k(3, None)) == [
        "minimum.count is 3, but the list has 3 places, of which pins of other items take 2; lower it, or raise k"
    ]
    beside.check_k(5, None)
    beside.check_k(3, ~np.isin(np.arange(8), [1, 2]))  # pins that nobody may get take no place


def drawn_question(generator):
    """Rules, a number of places and histories; most items have the same score as another one, or one near to it."""
    shuffled = [f"i{item}" for item in generator.permutation(8)]
    places = sorted(generator.choice(12, int(generator.integers(1, 5)), replace=False) + 1)
    rules = {"pins": {int(place): shuffled[number] for number, place in enumerate(places)}}
    if generator.random() < 0.3:
        rules["pin_seen"] = True
    if generator.random() < 0.5:
        rules["where"] = {"brand": {"in": ["a", "b"]}} if generator.random() < 0.5 else {"stock": {"min": 2}}
    if generator.random() < 0.4:
        rules["minimum"] = {"count": 1, "items": [f"i{item}" for item in generator.choice(8, 3, replace=False)]}
    histories = [generator.choice(8, int(generator.integers(0, 4)), replace=False).tolist() for _ in range(4)]
    return rules, int(generator.integers(1, 7)), histories


def test_lists_with_pins_are_those_by_the_book():
    """Pins that are seen leave their place as those do that the filter takes, whoever else is asked for."""
    generator, refused = np.random.default_rng(0), 0
    rows = TABLE.select("item_id", "brand", "stock").to_dicts()
    for _ in range(300):
        rules, k, histories = drawn_question(generator)
        allowed = [row["item_id"] for row in rows if meets(row, rules.get("where", {}))]
        pins = [item for _, item in sorted(rules["pins"].items()) if item in allowed][:k]
        taken = sum(item not in rules["minimum"]["items"] for item in pins) if "minimum" in rules else 0
        if "minimum" in rules and k - taken < 1:
            with pytest.raises(DataError, match=f"of which pins of other items take {taken};"):
                listed(rules, k, histories)
            refused += 1
            continue
        for history, found in zip(histories, listed(rules, k, histories)[0], strict=True):
            names = {f"i{item}" for item in history}
            expected = enumerated(rows, [item for item in allowed if item not in names], names, k, rules)
            assert [f"i{item}" for item in found] == expected, (rules, k, history)
    assert 5 < refused < 100


def test_conditions_that_no_item_meets_are_told(caplog, monkeypatch):
    monkeypatch.setattr(item_rules.logger, "filters", [])  # of a server, which tells it seldom
    ruled(
        {
            "where": {"stock": {"in": [3, 99]}, "sold": {"in": [True, False]}, "tags": {"in": ["x", "w"]}},
            "boosts": [{"by": 1, "where": {"brand": {"in": ["a", "c"]}}}],
        }
    )
    assert [record.getMessage() for record in caplog.records] == [
        "the rules name what no item has:\n  - where.stock.in: no item has 99; the column has 0, 1, 2, 3, 4, ... (7 in all)"
    ]
    caplog.clear()
    ruled({"where": {"price": {"min": 10}}, "boosts": [{"by": 1, "where": {"tags": {"in": ["xx", "y", "q"]}}}]})
    ruled({"minimum": {"count": 1, "where": {"brand": {"in": ["bb"]}}}})
    assert [record.getMessage() for record in caplog.records] == [
        "the rules name what no item has:\n"
        "  - where.price: no item has such a number\n"
        "  - boosts.0.where.tags.in: no item has 'xx', 'q'; did you mean 'x'?",
        "the rules name what no item has:\n  - minimum.where.brand.in: no item has 'bb'; did you mean 'b'?",
    ]


# ---- lists -----------------------------------------------------------------------------------------------------------


class Ranking:
    """Ranks by fixed scores, and notes what it is asked."""

    def __init__(self, scores):
        self.scores, self.asked = np.array(scores, dtype=np.float32), []

    def __call__(self, query):
        self.asked.append((len(query.histories), query.k))
        scores = np.tile(self.scores, (len(query.histories), 1))
        if query.offsets is not None:
            scores += query.offsets
        for row, history in enumerate(query.histories.seen()):
            scores[row, history] = -np.inf
        if query.candidates is not None:
            scores[:, ~query.candidates] = -np.inf
        items = np.argsort(-scores, axis=1, kind="stable")[:, : query.k]
        best = np.take_along_axis(scores, items, 1)
        if query.progress:
            query.progress(len(query.histories))
        return np.where(best > -np.inf, items, -1), best


def listed(rules, k, histories=((),), scores=range(8, 0, -1), takes_offsets=True, similarity=None):
    rank, done = Ranking(scores), []
    bound = ruled(rules, similarity)
    query = Query(Ragged.from_lists([list(history) for history in histories]), k, True, bound.where, done.append)
    items, found = rank_by_rules(rank, query, bound, 8, takes_offsets)
    assert sum(done) == len(histories)
    return [row[row >= 0].tolist() for row in items], found, rank.asked


def test_more_items_are_looked_at_for_those_whose_lists_are_too_short():
    lists, _, asked = listed({"caps": {"brand": 1}, "deepest": None}, 1, [(), (0, 1, 2, 3)])
    assert lists == [[0], [4]] and asked == [(2, 4)]
    lists, _, asked = listed({"caps": {"brand": 1}}, 2, [(3, 4), (0, 1)], scores=[8, 7, 6, 5, 4, 1, 2, 3])
    assert lists == [[0, 7], [2, 3]] and asked == [(2, 8)]
    lists, _, asked = listed({"caps": {"sold": 1}}, 1, [(), (2,)])
    assert lists == [[0], [0]] and asked == [(2, 4)]


def test_a_list_that_no_more_items_can_fill_is_left_short_at_once():
    """Four values of stock are left, so that no list can have more than four items, and four are found at first."""
    rules = {"caps": {"sold": 1}, "where": {"sold": {"in": [True, False]}}}
    lists, _, asked = listed(rules, 1, [()])
    assert lists == [[0]] and asked == [(1, 4)]
    lists, _, asked = listed({"caps": {"sold": 1}, "where": {"brand": {"in": ["a", "b"]}}}, 1)
    assert lists == [[0]] and asked == [(1, 4)]
    lists, _, asked = listed({"caps": {"sold": 2}, "where": {"sold": {"in": [True]}}}, 3)
    assert lists == [[0, 3]] and asked == [(1, 3)]


def test_no_more_than_the_deepest_item_is_looked_at():
    rules = {"caps": {"brand": 1}, "deepest": 4}
    assert listed(rules, 3)[0] == [[0, 3]] and listed({"caps": {"brand": 1}}, 3)[0] == [[0, 3, 5]]


def test_a_minimum_is_looked_for_among_its_set_where_the_best_items_do_not_hold_it():
    rules = {"minimum": {"count": 2, "items": ["i5", "i6", "i7"]}}
    lists, scores, asked = listed(rules, 3, [(), (0, 1, 2, 3)])
    assert lists == [[0, 5, 6], [4, 5, 6]] and asked == [(2, 3), (1, 3)]
    assert np.isnan(scores).tolist() == [[False, True, True], [False, False, False]]


def test_places_of_a_minimum_are_held_free_within_caps():
    """i0 would take the only place of its brand from i1, which is of the set."""
    rules = {"minimum": {"count": 1, "items": ["i1", "i2"]}, "caps": {"brand": 1}}
    assert listed(rules, 3)[0] == [[1, 3, 5]]


def test_a_set_that_nobody_may_get_is_not_looked_for_again():
    rules = {"minimum": {"count": 2, "items": ["i1", "i7"]}, "where": {"stock": {"max": 2}}}
    lists, _, asked = listed(rules, 2, [(1,)])
    assert lists == [[0, 2]] and len(asked) <= 2


def test_pins_that_a_user_may_not_get_leave_their_place_to_the_ranking():
    rules = {"pins": {1: "i7", 2: "i4"}, "where": {"brand": {"in": ["a", "b"]}}}
    assert listed(rules, 3, [(), (4,)])[0] == [[0, 4, 1], [0, 1, 2]]
    assert listed({**rules, "pin_seen": True}, 3, [(4,)])[0] == [[0, 4, 1]]
    assert listed({"pins": {5: "i1"}, "where": {"stock": {"max": 2}}}, 5)[0] == [[0, 2, 1]]


def test_items_that_were_met_but_do_not_count_as_seen_may_be_pinned():
    settings = EventSettings(event="action", targets=["buy"], context=["view"], seen=["buy"])
    histories = replace(Ragged.from_lists([[7, 1]]), marks=Marks(settings, np.array([1, 0], dtype=np.int16)))
    ranking = Ranking(range(8, 0, -1))
    items, _ = rank_by_rules(ranking, Query(histories, 2), ruled({"pins": {1: "i7", 2: "i1"}}), 8, True)
    assert items.tolist() == [[7, 0]]
    table = pl.DataFrame({"item_id": range(20), "kind": ["x"] * 9 + ["y"] + ["x"] * 10})
    bound = ItemRules.of(read_rules({"caps": {"kind": 1}}), IdMap(table["item_id"]), table, None)
    viewed = Query(replace(histories, values=np.array([9, 0])), 2)  # 9 is not among those that are looked at first
    assert rank_by_rules(Ranking(range(20, 0, -1)), viewed, bound, 20, True)[0].tolist() == [[1, 9]]


def test_pins_behind_the_end_of_a_list_stand_at_its_end():
    assert listed({"pins": {99: "i7"}}, 3)[0] == [[0, 1, 7]]
    assert listed({"pins": {1: "i6", 3: "i5", 98: "i4", 99: "i7"}}, 4)[0] == [[6, 5, 4, 7]]
    assert listed({"pins": {2: "i6", 3: "i5", 99: "i7"}}, 2)[0] == [[6, 5]]  # as many as there are places
    assert listed({"pins": {3: "i6", 99: "i7"}}, 3, [(), (7,)])[0] == [[0, 6, 7], [0, 1, 6]]
    assert listed({"pins": {10: "i1", 12: "i7"}}, 1, [(1,)])[0] == listed({"pins": {12: "i7"}}, 1, [(1,)])[0] == [[7]]
    only = {"pins": {8: "i7", 9: "i1"}, "where": {"stock": {"max": 2}}}  # i7 is none of these
    assert listed(only, 3)[0] == [[0, 2, 1]]


def test_boosts_outside_the_search_order_its_best_items_anew():
    rules = {"boosts": [{"by": 10, "items": ["i7", "i3"]}], "depth": 4}
    assert listed(rules, 2, takes_offsets=False)[0] == [[3, 0]] and listed(rules, 2)[0] == [[3, 7]]


def test_diversity_is_the_marginal_relevance():
    """Two groups of items that are alike: with equal weights, the best of the other group comes second."""
    group = np.array([0, 0, 0, 1, 1, 0, 0, 0])

    def similarity(item, others=None):
        return (group[others if others is not None else slice(None)] == group[item]).astype(np.float32)

    assert listed({"diversity": 0.5, "depth": 8}, 3, similarity=similarity)[0] == [[0, 3, 1]]
    assert listed({"diversity": 0.5, "depth": 3}, 3, similarity=similarity)[0] == [[0, 1, 2]]
    assert listed({"diversity": 0.01, "depth": 8}, 3, similarity=similarity)[0] == [[0, 1, 2]]
    pinned = {"diversity": 0.5, "depth": 8, "pins": {3: "i4"}}
    assert listed(pinned, 3, similarity=similarity)[0] == [[0, 1, 4]]
    of_set = {"diversity": 0.5, "depth": 8, "minimum": {"count": 2, "items": ["i1", "i3", "i2"]}}
    assert listed(of_set, 3, similarity=similarity)[0] == [[0, 3, 1]]
    assert listed(of_set, 2, similarity=similarity)[0] == [[1, 3]]


def test_boosts_and_diversity_go_no_deeper_where_caps_do():
    """A cap that never binds changes nothing; where it does, what comes in from below the depth stands in its order."""
    group = np.array([0, 0, 0, 1, 1, 0, 0, 0])

    def similarity(item, others=None):
        return (group[others if others is not None else slice(None)] == group[item]).astype(np.float32)

    for rules, wanted, filled in (
        ({"boosts": [{"by": 10, "items": ["i7", "i2"]}], "depth": 3}, [2, 0], [2, 3, 5, 6]),
        ({"diversity": 0.5, "depth": 3}, [0, 1], [0, 3, 5, 6]),
    ):
        by, asked = similarity if "diversity" in rules else None, {"takes_offsets": False}
        assert listed(rules, 2, similarity=by, **asked)[0] == [wanted]
        assert listed({**rules, "caps": {"brand": 9}}, 2, similarity=by, **asked)[0] == [wanted]
        assert listed({**rules, "caps": {"brand": 1}}, 4, similarity=by, **asked)[0] == [filled]


def test_one_user_or_many_get_the_same_lists(monkeypatch):
    rules = {"caps": {"brand": 1}, "pins": {2: "i4"}, "minimum": {"count": 1, "items": ["i6", "i7"]}}
    generator = np.random.default_rng(0)
    histories = [generator.choice(8, generator.integers(0, 5), replace=False) for _ in range(30)]
    together = listed(rules, 3, histories)[0]
    monkeypatch.setattr("diffgrm.ranking.ruled.HELD", 20)
    assert listed(rules, 3, histories)[0] == together == [listed(rules, 3, [history])[0][0] for history in histories]
