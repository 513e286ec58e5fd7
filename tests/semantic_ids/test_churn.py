"""Churn against counting, and against every renaming of the codes of a tiny world."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgrm.foundation.schema import DataError
from diffgrm.semantic_ids import churn as churns
from diffgrm.semantic_ids.churn import churn
from diffgrm.semantic_ids.sid_files import SidTable


def table(codes, ids=None):
    codes = np.asarray(codes, dtype=np.int32)
    return SidTable(pl.Series(range(len(codes)) if ids is None else ids), codes)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=12))
def test_as_few_items_differ_as_under_the_best_of_all_renamings(rows):
    before, after = np.array(rows)[:, :2], np.array(rows)[:, 2:]
    found = churn(table(before), table(after))
    assert found.changed == (before != after).any(1).mean() and found.digits == tuple((before != after).mean(0))
    for digit in range(2):
        renamings = [np.array(names)[after[:, digit]] for names in permutations(range(4))]
        fewest = min((before[:, digit] != renamed).mean() for renamed in renamings)
        assert found.digits_relabelled[digit] == pytest.approx(fewest)
    assert max(found.digits_relabelled) <= found.changed_relabelled <= sum(found.digits_relabelled) + 1e-12


def test_renamed_codes_change_every_digit_and_nothing_else():
    codes = np.random.default_rng(0).integers(0, 8, (100, 3))
    found = churn(table(codes), table((codes + 1) % 8))
    assert found.changed == 1 and found.digits == (1, 1, 1)
    assert found.changed_relabelled == 0 and found.digits_relabelled == (0, 0, 0)
    same = churn(table(codes), table(codes))
    assert same.changed == same.changed_relabelled == 0 and same.codes_before == same.codes_after == (8, 8, 8)


def test_what_both_hold_is_compared_by_the_spelling_of_ids():
    before = table([[0, 0], [0, 0], [1, 2], [3, 3]], ["7", "8", "9", "only"])
    found = churn(before, table([[1, 2], [0, 1], [0, 0], [5, 5]], [9, 8, 7, 100]))
    assert (found.items, found.only_before, found.only_after) == (3, 1, 1)
    assert found.changed == pytest.approx(1 / 3) and found.digits == pytest.approx((0, 1 / 3))
    assert found.colliding_before == 2 and found.colliding_after == 0
    assert found.codes_before == (2, 2) and found.codes_after == (2, 3)
    lines = dict(found.rows())
    assert lines["items in both"] == "3 (only before 1, only after 1)" and lines["changed, per digit"] == "0.0%, 33.3%"
    assert lines["codes in use, per digit"] == "2 -> 2, 2 -> 3" and lines["first digit changed"] == "0.0%"
    assert found.to_dict()["digits"] == list(found.digits)


def test_sets_that_cannot_be_compared_are_refused(monkeypatch):
    with pytest.raises(DataError, match="2 digits before and 3 after; compare sets of as many digits"):
        churn(table([[0, 0]]), table([[0, 0, 0]]))
    with pytest.raises(DataError, match="no item is in both sets of semantic IDs; do their ids go together"):
        churn(table([[0]], ["a"]), table([[0]], ["b"]))
    monkeypatch.setattr(churns, "MOST_CODES", 2)
    with pytest.raises(DataError, match="digit 1 has 3 codes in use; codes are matched where they are at most 2"):
        churn(table([[0, 0], [0, 1], [0, 2]]), table([[0, 0]] * 3))
