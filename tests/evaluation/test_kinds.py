"""Accuracy by kinds of held-out events."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.evaluation.kinds import by_kind, seen_steps, with_kinds

TRAIN = Ragged.from_lists([[], [0, 1, 2], [2], [3, 0], []])
ASKED = EvaluationSet(
    pl.Series(["a", "b", "c", "d", "e"]),
    Ragged.from_lists([[2, 0], [1], [2], [0, 3], [4]]),
    Ragged.from_lists([[1], [0], [3], [0, 2], [4]]),
)
COUNTS = np.array([2, 1, 2, 1, 0])


def test_a_step_is_two_events_of_one_user_one_after_the_other():
    """0 to 1 is; 1 to 0 is the other way round; 2 to 3 goes from one user to the next; of d's two, 3 to 0 is."""
    assert seen_steps(TRAIN, ASKED, 5).tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("train", [[[]], [[1]], [[], [1], []], [[0], [1]]])
def test_without_steps_in_training_none_was_seen(train):
    assert not seen_steps(Ragged.from_lists(train), ASKED, 5).any()


def evaluated(ranks):
    return pl.DataFrame({"user_id": ["a", "b", "c", "d", "d", "e"], "list": [0, 1, 2, 3, 3, 4], "rank": ranks})


def test_kinds_are_means_over_their_own_events():
    table = with_kinds(evaluated([1, 0, 3, 2, 11, 1]), ASKED, TRAIN, COUNTS)
    assert table["memorised"].to_list() == [True, False, False, True, False, False]
    assert table["training_events"].to_list() == [1, 2, 1, 2, 2, 0]
    assert table["in_tail"].to_list() == [True, False, True, False, True, True]  # one of five items is the head
    found = by_kind([table])
    assert list(found) == ["memorisation", "training_events", "popularity", "history_length"]
    assert list(found["training_events"]) == ["0-5"] and table["history_length"].to_list() == [2, 1, 1, 2, 2, 1]
    assert {kind: values["events"] for kind, values in found["history_length"].items()} == {"1-4 items": 6}
    seen, rest = found["memorisation"]["memorised"], found["memorisation"]["rest"]
    assert (seen["events"], rest["events"], seen["share"]) == (2, 4, pytest.approx(1 / 3))
    assert seen["recall@10"] == 1 and rest["recall@10"] == 0.5
    assert seen["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2) and rest["ndcg@10"] == pytest.approx((0.5 + 1) / 4)
    whole = found["training_events"]["0-5"]
    assert whole["ndcg@10"] == pytest.approx((2 * seen["ndcg@10"] + 4 * rest["ndcg@10"]) / 6)


def test_seeds_are_averaged_and_users_may_be_left_out():
    tables = [with_kinds(evaluated(ranks), ASKED, TRAIN, COUNTS) for ranks in ([1] * 6, [0] * 6)]
    assert by_kind(tables)["popularity"]["head"]["recall@10"] == 0.5
    fewer = with_kinds(evaluated([1] * 6).filter(pl.col("user_id") != "b"), ASKED, TRAIN, COUNTS)
    assert fewer["memorised"].to_list() == [True, False, True, False, False]


def test_bins_are_those_of_the_training_events():
    table = pl.DataFrame({"rank": [1] * 6, "training_events": [0, 5, 6, 10, 20, 21]})
    kinds = by_kind([table])["training_events"]
    assert {kind: values["events"] for kind, values in kinds.items()} == {"0-5": 2, "6-10": 2, "11-20": 1, "21+": 1}
