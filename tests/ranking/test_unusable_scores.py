"""Item scores, and what items are looked up by, of which no list can be made: errors that name the scorer."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from diffgrm.foundation.schema import DiffGRMError
from diffgrm.ranking.first_stage import FirstStage
from diffgrm.ranking.item_index import KeptIndex
from diffgrm.ranking.item_scoring.base import ItemScoring, ScoredItems, Scorer, Users
from diffgrm.ranking.item_scoring.vectors import VectorScorer
from helpers.item_scores import HISTORIES, ITEM_VECTORS, ITEMS, USER_VECTORS, USERS, Table, neighbours, scored
from parts.odd_scorer import ODD, Odd

RUNTIMES = pytest.mark.parametrize("of", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])


def refused(message):
    return pytest.raises(DiffGRMError, match=re.escape(message))


@RUNTIMES
@pytest.mark.parametrize("says", ["nan", "inf"])
def test_one_score_that_is_no_number_is_an_error(of, says):
    users, items = scored(of)
    with refused(
        f"NaN or +inf, of Odd (1 of {ITEMS}); expected finite numbers, or -inf for an item that is to be left out"
    ):
        ItemScoring((VectorScorer(), Odd(says)), items).scores(users)
    assert np.isfinite(np.asarray(ItemScoring((VectorScorer(), Odd(says, weight=0.0)), items).scores(users))).all()


@RUNTIMES
def test_an_item_can_be_left_out(of):
    users, items = scored(of)
    plain, found = (np.asarray(ItemScoring((VectorScorer(), *more), items).scores(users)) for more in ((), (Odd("-inf"),)))
    assert np.isneginf(found[:, ODD]).all()
    assert np.array_equal(np.delete(found, ODD, axis=1), np.delete(plain, ODD, axis=1))
    with refused("of Odd (1 of"):  # an infinite gain
        ItemScoring((VectorScorer(), Odd("-inf", weight=-1.0)), items).scores(users)


@RUNTIMES
def test_of_a_network_without_numbers_its_vectors_are_named(of):
    vectors = USER_VECTORS.copy()
    vectors[2, 0] = np.nan
    with refused("the network's own vectors of users or items hold such already") as error:
        ItemScoring((VectorScorer(), Odd()), scored(of)[1]).scores(Users(of(vectors), HISTORIES))
    assert f"of VectorScorer ({ITEMS} of {USERS * ITEMS})" in str(error.value)


@RUNTIMES
@pytest.mark.filterwarnings("ignore:overflow")
def test_numbers_whose_sum_is_none_name_all(of):
    users, items = scored(of)
    large = np.full((USERS, len(USER_VECTORS[0])), 3e38, dtype=np.float32)
    ones = ScoredItems(of(np.eye(ITEMS, 3, dtype=np.float32)), items.neighbours)
    with refused("in the sum of VectorScorer, VectorScorer; expected"):
        ItemScoring((VectorScorer(), VectorScorer()), ones).scores(Users(of(large), users.histories))


@RUNTIMES
@pytest.mark.parametrize(
    ("says", "found"), [("short", f"the shape [1, {ITEMS - 1}]"), ("one", "the shape [1, 1]"), ("list", "list")]
)
def test_other_shapes_are_an_error(of, says, found):
    users, items = scored(of)
    wanted = f"the scorer Odd must give an array or a tensor of the shape [{USERS}, {ITEMS}] or [1, {ITEMS}] from scores"
    with refused(f"{wanted}, found {found}"):
        ItemScoring((VectorScorer(), Odd(says)), items).scores(users)


@RUNTIMES
def test_a_second_look_that_no_list_can_be_made_of_is_an_error(of):
    users, items = scored(of)
    table = np.zeros((ITEMS, ITEMS))
    candidates, scores = of(np.tile(np.arange(4), (USERS, 1))), of(np.zeros((USERS, 4), dtype=np.float32))
    table[HISTORIES[1][-1], 2] = np.nan
    with refused(f"NaN or +inf, of Table (1 of {USERS * 3})"):
        ItemScoring((Table(table, candidates=3),), items).rescored(users, candidates, scores)

    class Narrow(Table):
        def rescore(self, *asked):
            return super().rescore(*asked)[:, :1]

    with refused(
        f"the scorer Narrow must give an array or a tensor of the shape [{USERS}, 3] from rescore, found the shape"
    ):
        ItemScoring((Narrow(table, candidates=3),), items).rescored(users, candidates, scores)


@RUNTIMES
def test_what_a_second_look_says_of_no_item_does_not_count(of):
    users, items = scored(of)
    table = np.arange(ITEMS * ITEMS, dtype=np.float32).reshape(ITEMS, ITEMS)
    candidates = np.tile(np.arange(4), (USERS, 1))
    candidates[:, 2:] = -1

    class Mean(Table):
        def rescore(self, users, items, candidates, scores):
            found = super().rescore(users, items, candidates, scores)
            found[candidates < 0] = np.nan
            return found

    scores = of(np.zeros((USERS, 4), dtype=np.float32))
    found = ItemScoring((Mean(table, candidates=3),), items).rescored(users, of(candidates), scores)
    wanted = ItemScoring((Table(table, candidates=3),), items).rescored(users, of(candidates), scores)
    assert np.array_equal(np.asarray(found)[:, :2], np.asarray(wanted)[:, :2]) and not np.asarray(found)[:, 2:].any()


class LookedUp(Scorer):
    """Says by one of the ways of an index what is given."""

    weight = 1.0

    def scores(self, users, items):
        raise AssertionError("it is looked up")


def looked_up(of, way, said):
    """What the first stage says where a scorer's method gives this."""
    kind = type("Given", (LookedUp,), {way: lambda *_: said})
    if way == "user_factors":
        kind.item_factors = lambda *_: np.ones((ITEMS, 2), dtype=np.float32)
    scoring = ItemScoring((VectorScorer(), kind()), ScoredItems(of(ITEM_VECTORS), neighbours()))
    return FirstStage(scoring, "hnsw", 3, 0, KeptIndex()).best(Users(of(USER_VECTORS), HISTORIES), 2, None, None)


@RUNTIMES
@pytest.mark.parametrize("way", ["item_factors", "user_factors", "item_offsets", "sparse_scores"])
def test_what_items_are_looked_up_by_is_finite(of, way):
    shape = {"item_factors": (ITEMS, 2), "user_factors": (USERS, 2), "item_offsets": (ITEMS,)}.get(way, (USERS, ITEMS))
    said = np.zeros(shape, dtype=np.float32)
    said.flat[1] = np.nan
    with refused(f"the scorer Given gave NaN or infinite numbers from {way}, by which no item can be looked up"):
        looked_up(of, way, sp.csr_array(said) if way == "sparse_scores" else said)


@RUNTIMES
@pytest.mark.parametrize(
    ("way", "shape", "wanted"),
    [
        ("item_factors", (ITEMS - 1, 2), [ITEMS, 2]),
        ("item_factors", (ITEMS,), [ITEMS, 1]),
        ("user_factors", (USERS, 1), [USERS, 2]),
        ("item_offsets", (1, ITEMS), [ITEMS]),
    ],
)
def test_what_items_are_looked_up_by_has_its_shape(of, way, shape, wanted):
    with refused(f"the scorer Given must give an array or a tensor of the shape {wanted} from {way}, found the shape"):
        looked_up(of, way, np.zeros(shape, dtype=np.float32))
