"""Novelty, diversity, and accuracy by segments of users."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from diffgrm import evaluate
from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.data.ids import IdMap
from diffgrm.evaluation.beyond_accuracy import diversity, novelty, self_information
from diffgrm.evaluation.kinds import by_kind
from diffgrm.evaluation.segments import with_segment
from diffgrm.foundation.schema import DataError
from diffgrm.semantic_ids.embeddings.lsa import word_vectors

EVENTS = pl.DataFrame({"user_id": ["a", "a", "b", "c"], "rank": [1, 0, 2, 0]})
USERS = pl.DataFrame({"user_id": ["c", "a", "x"], "country": ["JP", "FR", "DE"], "age": [3, None, 5]})


def test_diversity_is_a_mean_over_pairs():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(20, 6)) * (generator.random((20, 6)) < 0.6)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    lists = np.stack([generator.permutation(20)[:7] for _ in range(9)])
    lists[2, 3:] = lists[4, 2:] = -1
    found = diversity(lists, sp.csr_array(vectors))
    for row, value in zip(lists, found, strict=True):
        held = vectors[row[row >= 0]]
        first, second = np.triu_indices(len(held), 1)
        assert value == pytest.approx(np.mean(1 - (held[first] * held[second]).sum(1)))


def test_novelty_is_what_popularity_tells_of_the_items():
    counts = np.array([8, 4, 4, 0])
    information = self_information(counts)
    assert information.tolist() == [1.0, 2.0, 2.0, 4.0]  # an item without events as if it had one of sixteen
    assert novelty(np.array([[0, 1], [3, -1], [-1, -1]]), information).tolist() == [1.5, 4.0, 0.0]


def test_both_are_metrics_of_an_evaluation():
    items, counts = IdMap(pl.Series(list("abcd"))), np.array([8, 4, 4, 0])
    texts = word_vectors(pl.DataFrame({"item_id": list("abcd"), "text": ["red hat", "red hat", "blue pan", "old book"]}))

    class Fixed:
        def recommend(self, histories, k, *, exclude_seen):
            rows = [(user, item, 0.0, r) for user in histories["user_id"].unique() for r, item in enumerate("bcd"[:k], 1)]
            return pl.DataFrame(rows, ["user_id", "item_id", "score", "rank"], orient="row")

    held_out = EvaluationSet(pl.Series(["u"]), Ragged.from_lists([[0]]), Ragged.from_lists([[1]]))
    found = evaluate(Fixed(), held_out, items, counts, ks=(1, 2)).metrics
    assert found["novelty@1"] == 2.0 and found["novelty@10"] == pytest.approx(8 / 3) and "diversity@2" not in found
    found = evaluate(Fixed(), held_out, items, counts, ks=(1, 2), texts=texts).metrics
    assert found["diversity@2"] == pytest.approx(1) and found["diversity@10"] == pytest.approx(1)
    assert "diversity@1" not in found  # there are no pairs


def test_texts_without_words_are_like_none():
    vectors = word_vectors(pl.DataFrame({"item_id": ["a", "b"], "text": ["!!", "??"]}))
    assert diversity(np.array([[0, 1]]), vectors).tolist() == [1.0]


def test_accuracy_by_a_column_of_the_users():
    events = with_segment(EVENTS, USERS, "country")
    found = by_kind([events])["segment:country"]
    assert {name: values["events"] for name, values in found.items()} == {"(unknown)": 1, "FR": 2, "JP": 1}
    assert found["FR"]["recall@10"] == 0.5 and found["JP"]["recall@10"] == 0
    assert found["(unknown)"]["ndcg@10"] == pytest.approx(1 / np.log2(3))
    both = by_kind([with_segment(events, USERS, "age")])
    assert list(both) == ["segment:country", "segment:age"] and set(both["segment:age"]) == {"3", "(unknown)"}


def test_two_segments_of_one_name_are_refused():
    elsewhere = USERS.with_columns(country=pl.Series(["x", "y", "z"]))
    message = "segments by the column 'country' are asked for twice; leave one out, or rename its column"
    with pytest.raises(DataError, match=message):
        with_segment(with_segment(EVENTS, USERS, "country"), elsewhere, "country")
    assert "segment:land" in with_segment(
        with_segment(EVENTS, USERS, "country"), elsewhere.rename({"country": "land"}), "land"
    )


def test_whole_numbers_are_found_as_text_and_the_other_way_round():
    numbered = EVENTS.with_columns(user_id=pl.Series([1, 1, 2, 3]))
    users = pl.DataFrame({"user_id": ["1", "2", "3"], "kind": ["x", "y", "x"]})
    assert with_segment(numbered, users, "kind")["segment:kind"].to_list() == ["x", "x", "y", "x"]


@pytest.mark.parametrize(
    ("users", "column", "text"),
    [
        (USERS, "contry", "expected column 'contry'; did you mean 'country'"),
        (pl.concat([USERS, USERS]), "country", "users stand more than once in the table of users: c, a, x"),
        (USERS.with_columns(user_id=pl.lit("z") + "_" + pl.col("user_id")), "age", "knows none of the users .* it has z_c"),
        (
            USERS.with_columns(pl.col("country").replace("JP", "(unknown)")),
            "country",
            r"'country' has the value '\(unknown\)', which is what users are called .* leave those cells empty",
        ),
        (USERS, "user_id", "'user_id' tells users apart; name a column that tells something of them"),
        (pl.DataFrame({"user_id": range(60), "n": range(60)}), "n", "'n' has 60 different values; expected at most 50"),
    ],
)
def test_tables_of_users_that_cannot_be_used_are_refused(users, column, text):
    with pytest.raises(DataError, match=text):
        with_segment(EVENTS, users, column)
